/** The CustomResourceDefinition, made from the zod schema: what zod says in its own words is put into Kubernetes'. */
import { z } from "zod";
import { apiGroup, apiVersion, resourceKind, resourcePlural, snapshotKind, snapshotPlural } from "./names.ts";
import { replicatedVolumeSchema } from "./replicated-volume.ts";
import { replicatedVolumeSnapshotSchema } from "./replicated-volume-snapshot.ts";

export interface JsonSchema {
  readonly type?: string;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly enum?: readonly string[];
  readonly default?: unknown;
  readonly "x-kubernetes-validations"?: readonly { readonly rule: string; readonly message: string }[];
  readonly "x-kubernetes-int-or-string"?: boolean;
  readonly [keyword: string]: unknown;
}

/** The object's OpenAPI v3 schema in the structural form that the API server asks for. */
export function structuralSchema(of: z.ZodType = replicatedVolumeSchema): JsonSchema {
  const schema = structural(z.toJSONSchema(of, { target: "openapi-3.0", io: "input" }));
  // What metadata holds is the API server's own business, and it refuses any word about it.
  return { ...schema, properties: { ...schema.properties, metadata: { type: "object" } } };
}

function structural(value: unknown): JsonSchema {
  const schema: Record<string, unknown> = {};
  for (const [keyword, entry] of Object.entries(value as Record<string, unknown>)) {
    if (keyword === "$schema") continue;
    if (keyword === "properties")
      schema["properties"] = Object.fromEntries(
        Object.entries(entry as Record<string, unknown>).map(([name, property]) => [name, structural(property)]),
      );
    else if (keyword === "items") schema["items"] = structural(entry);
    // JavaScript's own bounds of whole numbers are not the field's.
    else if ((keyword === "maximum" || keyword === "minimum") && Math.abs(Number(entry)) === Number.MAX_SAFE_INTEGER)
      continue;
    else schema[keyword] = entry;
  }
  if (schema["x-kubernetes-int-or-string"] === true) {
    schema["anyOf"] = [{ type: "integer" }, { type: "string" }];
    delete schema["type"];
  }
  return schema;
}

const column = (name: string, jsonPath: string, description: string, more: Readonly<Record<string, unknown>> = {}) => ({
  name,
  type: "string",
  jsonPath,
  description,
  ...more,
});

export const volumeSchema = replicatedVolumeSchema;
export const snapshotSchema = replicatedVolumeSnapshotSchema;

export function customResourceDefinition(): Record<string, unknown> {
  return definition({
    kind: resourceKind,
    plural: resourcePlural,
    shortName: "rv",
    schema: volumeSchema,
    columns: [
      column("Phase", ".status.phase", "The volume's health in one word"),
      column("In-Sync", ".status.inSyncReplicas", "Replicas in sync, of those wanted"),
      column("Syncing", ".status.syncProgress", "How far the resync is"),
      column("Capacity", ".spec.capacity", "How much it may hold"),
      column("Claim", ".status.claim", "The claim that is bound to it"),
      column("Node", ".status.holder", "The node that may write", { priority: 1 }),
      column("Age", ".metadata.creationTimestamp", "Since when it exists", { type: "date" }),
    ],
  });
}

export function snapshotResourceDefinition(): Record<string, unknown> {
  return definition({
    kind: snapshotKind,
    plural: snapshotPlural,
    shortName: "rvs",
    schema: snapshotSchema,
    columns: [
      column("Volume", ".spec.volume", "The volume that it shows"),
      column("Phase", ".status.phase", "Whether it is there"),
      column("Moment", ".status.creationTime", "When that was", { type: "date" }),
      column("Files", ".status.files", "How many files it has", { type: "integer" }),
      column("Age", ".metadata.creationTimestamp", "Since when it exists", { type: "date" }),
    ],
  });
}

interface Definition {
  readonly kind: string;
  readonly plural: string;
  readonly shortName: string;
  readonly schema: z.ZodType;
  readonly columns: readonly Record<string, unknown>[];
}

function definition({ kind, plural, shortName, schema, columns }: Definition): Record<string, unknown> {
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${plural}.${apiGroup}` },
    spec: {
      group: apiGroup,
      scope: "Cluster",
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        shortNames: [shortName],
        categories: ["storage"],
      },
      versions: [
        {
          name: apiVersion,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: columns,
          schema: { openAPIV3Schema: structuralSchema(schema) },
        },
      ],
    },
  };
}
