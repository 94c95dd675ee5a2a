/**
 * The ReplicatedVolumeSnapshot: what is wanted and known of one snapshot of a volume. The CSI service makes these for
 * VolumeSnapshots and clones; nodes carry them out. The one source of types, CRD and reference, as for the volume.
 */
import { z } from "zod";
import type { ObjectMeta } from "./replicated-volume.ts";

const unchanging = {
  "x-kubernetes-validations": [{ rule: "self == oldSelf", message: "cannot be changed: a snapshot shows one moment" }],
};
const time = z.string().meta({ format: "date-time" });

const spec = z.object({
  volume: z
    .string()
    .min(1)
    .max(253)
    .meta({ description: "Name of the ReplicatedVolume.", ...unchanging }),
  maxPauseSeconds: z.int().min(1).max(600).optional().meta({
    format: "int32",
    description: "How long changes to the volume may wait while the moment is fixed; 30 unless told.",
  }),
});

const replica = z.object({
  name: z.string().max(63).describe("Name of the replica."),
  state: z.enum(["Ready", "Missing"]).describe("`Missing`: it was not in sync, or failed. It is given a copy later."),
  method: z
    .enum(["Reflink", "Copy"])
    .optional()
    .describe("`Reflink`: its files share their data with the volume's. `Copy`: they take space of their own."),
  message: z.string().max(1024).optional().describe("Why it is missing."),
});

const status = z.object({
  phase: z
    .enum(["Pending", "Ready", "Failed"])
    .optional()
    .describe("`Failed`: the message says why; it is tried again."),
  message: z.string().max(1024).optional().describe("Why there is no snapshot yet."),
  creationTime: time.optional().describe("The moment that it shows."),
  capacityBytes: z
    .int()
    .min(0)
    .optional()
    .meta({ format: "int64", description: "The volume's capacity at that moment." }),
  files: z.int().min(0).optional().meta({ format: "int64", description: "How many files it has." }),
  bytes: z.int().min(0).optional().meta({ format: "int64", description: "How long its files are together." }),
  pauseMilliseconds: z.int().min(0).optional().meta({ format: "int64", description: "How long changes waited." }),
  replicas: z
    .array(replica)
    .max(8)
    .optional()
    .meta({
      description: "Which replicas have it.",
      "x-kubernetes-list-type": "map",
      "x-kubernetes-list-map-keys": ["name"],
    }),
  removed: z.boolean().optional().describe("It is deleted, and its trees are gone from every replica in sync."),
});

export const replicatedVolumeSnapshotSchema = z
  .object({
    apiVersion: z.string().optional(),
    kind: z.string().optional(),
    metadata: z.record(z.string(), z.unknown()).optional(),
    spec: spec.describe("What is wanted."),
    status: status.optional().describe("What is there."),
  })
  .describe("A volume as it was at one moment: a plain tree in `.chiron/snapshots` of each of its replicas.");

export type SnapshotStatus = z.output<typeof status>;

/** As the API server answers it. */
export interface ReplicatedVolumeSnapshot {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly spec: z.output<typeof spec>;
  readonly status?: SnapshotStatus;
}
