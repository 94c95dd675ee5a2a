/**
 * A StorageClass's parameters, and what a volume of that class looks like: each has a subdirectory of its own in every
 * place. Refusals name the parameter and say what to write.
 */
import { quantityToBytes } from "./quantity.ts";
import type { ReplicatedVolumeSpecInput } from "./replicated-volume.ts";

type Input = ReplicatedVolumeSpecInput;
type ReplicaInput = Input["replicas"][number];

/** Says which parameter of the StorageClass is wrong; trying again does not help before it is changed. */
export class StorageClassError extends Error {
  override readonly name = "StorageClassError";
  readonly parameter: string;
  constructor(parameter: string, problem: string) {
    super(`StorageClass parameter "${parameter}": ${problem}`);
    this.parameter = parameter;
  }
}

/** The part of a spec that the class decides. */
export type ClassSettings = Pick<
  Input,
  "replicas" | "minInSyncReplicas" | "readPolicy" | "fullPolicy" | "writeCache" | "resync"
>;

const words = {
  readPolicy: ["RoundRobin", "Nearest", "LowestLatency"],
  fullPolicy: ["FailWrites", "DropReplica"],
  writeCache: ["None", "WriteBack"],
  resyncMode: ["Automatic", "Manual"],
} as const;

const known = ["nfs", "hostPath", "minInSyncReplicas", "resyncBandwidth", ...Object.keys(words)];
/** csi-provisioner adds these when it runs with --extra-create-metadata. */
export const claimNameParameter = "csi.storage.k8s.io/pvc/name";
export const claimNamespaceParameter = "csi.storage.k8s.io/pvc/namespace";

export function parseStorageClass(
  parameters: Readonly<Record<string, string>>,
  mountOptions: readonly string[] = [],
): ClassSettings {
  for (const parameter of Object.keys(parameters))
    if (!known.includes(parameter) && !parameter.startsWith("csi.storage.k8s.io/"))
      throw new StorageClassError(parameter, `is not known; there are ${known.join(", ")}`);
  const nfs = places("nfs", parameters["nfs"], "mars:/export,venus:/export");
  const directories = places("hostPath", parameters["hostPath"], "node1:/srv/a,node1:/srv/b");
  const replicas = nameReplicas([
    ...nfs.map(([server, path]) => ({
      host: server,
      backend: { nfs: { server, path, ...(mountOptions.length > 0 ? { mountOptions: [...mountOptions] } : {}) } },
    })),
    ...directories.map(([node, path]) => ({ host: node, backend: { hostPath: { node, path } } })),
  ]);
  if (replicas.length === 0)
    throw new StorageClassError("nfs", 'name the places of the replicas, such as "mars:/export,venus:/export"');
  if (replicas.length > 8)
    throw new StorageClassError(nfs.length > 0 ? "nfs" : "hostPath", `names ${replicas.length} places; 8 is the most`);
  const readPolicy = word("readPolicy", parameters);
  const fullPolicy = word("fullPolicy", parameters);
  const writeCache = word("writeCache", parameters);
  const mode = word("resyncMode", parameters);
  const bandwidth = quantity("resyncBandwidth", parameters["resyncBandwidth"]);
  const minInSyncReplicas = count("minInSyncReplicas", parameters["minInSyncReplicas"], replicas.length);
  return {
    replicas,
    ...(minInSyncReplicas === undefined ? {} : { minInSyncReplicas }),
    ...(readPolicy === undefined ? {} : { readPolicy }),
    ...(fullPolicy === undefined ? {} : { fullPolicy }),
    ...(writeCache === undefined ? {} : { writeCache }),
    ...(mode === undefined && bandwidth === undefined
      ? {}
      : { resync: { ...(mode === undefined ? {} : { mode }), ...(bandwidth === undefined ? {} : { bandwidth }) } }),
  };
}

/** `host:/path` pairs; an IPv6 address stands in brackets. */
export function places(parameter: string, value: string | undefined, example: string): (readonly [string, string])[] {
  if (value === undefined) return [];
  const found = value.split(",").map((part): readonly [string, string] => {
    const match = /^\s*(\[[0-9A-Fa-f:.]+\]|[^\s:[\]/]+):(\/\S*?)\s*$/.exec(part);
    if (!match) throw new StorageClassError(parameter, `cannot read "${part.trim()}"; write it like "${example}"`);
    const path = match[2] ?? "";
    if (path.split("/").includes("..")) throw new StorageClassError(parameter, `"${path}" must not contain ".."`);
    return [(match[1] ?? "").replaceAll(/[[\]]/g, ""), path.length > 1 ? path.replace(/\/+$/, "") : path];
  });
  for (const [index, [host, path]] of found.entries())
    if (found.findIndex((other) => other[0] === host && other[1] === path) !== index)
      throw new StorageClassError(parameter, `names ${host}:${path} twice; each replica needs a place of its own`);
  return found;
}

/** Replicas are called after their hosts, made unique: "mars", "venus", "mars-2". */
function nameReplicas(
  found: readonly { readonly host: string; readonly backend: Omit<ReplicaInput, "name"> }[],
): ReplicaInput[] {
  const taken = new Set<string>();
  return found.map(({ host, backend }) => {
    const label = /^[0-9.]+$|:/.test(host) ? host : (host.split(".")[0] ?? host);
    const base =
      label
        .toLowerCase()
        .replaceAll(/[^a-z0-9]+/g, "-")
        .replaceAll(/^-+|-+$/g, "")
        .slice(0, 60) || "replica";
    let name = base;
    for (let number = 2; taken.has(name); number += 1) name = `${base}-${number}`;
    taken.add(name);
    return { name, ...backend };
  });
}

function word<P extends keyof typeof words>(
  parameter: P,
  parameters: Readonly<Record<string, string>>,
): (typeof words)[P][number] | undefined {
  const value = parameters[parameter];
  if (value === undefined) return undefined;
  const found = words[parameter].find((allowed) => allowed === value);
  if (found === undefined)
    throw new StorageClassError(parameter, `is "${value}"; it must be one of ${words[parameter].join(", ")}`);
  return found;
}

function quantity(parameter: string, value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  try {
    quantityToBytes(value);
  } catch (cause) {
    throw new StorageClassError(parameter, (cause as Error).message);
  }
  return value;
}

function count(parameter: string, value: string | undefined, most: number): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!Number.isInteger(number) || number < 1 || number > most)
    throw new StorageClassError(
      parameter,
      `is "${value}"; it must be a number from 1 to ${most}, as many as there are replicas`,
    );
  return number;
}
