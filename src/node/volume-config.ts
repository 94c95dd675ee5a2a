/** From a ReplicatedVolume to what its holder is started with: pure, so that every refusal can be tried. */
import { minInSyncReplicas } from "../api/names.ts";
import { quantityToBytes } from "../api/quantity.ts";
import type { Place, ReplicatedVolume } from "../api/replicated-volume.ts";
import type { ArbiterConfig, ReplicaConfig } from "../volume/protocol.ts";
import type { HolderConfig } from "../volume/registry.ts";

export interface NodeFacts {
  readonly node: string;
  /** Where this process sees the node's root directory; "" if it is its own. */
  readonly hostRoot: string;
}

export interface VolumeMount {
  readonly mountpoint: string;
  readonly stateDirectory: string;
  readonly readOnly: boolean;
  readonly logFile: string | null;
  readonly logLevel: "debug" | "info" | "warn" | "error";
  readonly deadlineMs: number;
  readonly arbiter?: ArbiterConfig;
}

/** Why a volume cannot be mounted on this node. `retry`: it may become possible without a change of the volume. */
export class VolumeRefusal extends Error {
  override readonly name = "VolumeRefusal";
  readonly retry: boolean;
  constructor(message: string, retry: boolean) {
    super(message);
    this.retry = retry;
  }
}

/** Each replica's root for this volume, as the data path takes it. */
export function replicaConfigs(volume: ReplicatedVolume, facts: NodeFacts): ReplicaConfig[] {
  return volume.spec.replicas.map(({ name, readPriority }) => {
    const place = placeOf(volume, name);
    const url = backendUrl(volume, name, place, facts, volume.spec.subdirectory ?? null);
    return { name, url, slow: readPriority === "Slow", run: "auto" };
  });
}

/** The controller writes down where each replica is; until it has, a volume cannot be used. */
export function placeOf(volume: ReplicatedVolume, replica: string): Place {
  const place = volume.status?.replicas?.find(({ name }) => name === replica)?.place;
  if (place) return place;
  const accepted = volume.status?.conditions?.find(({ type }) => type === "Accepted");
  const why = accepted?.status === "False" ? accepted.message : "the controller has not said where it is yet";
  throw new VolumeRefusal(`replica "${replica}" of volume "${volume.metadata.name}": ${why}`, true);
}

export function backendUrl(
  volume: ReplicatedVolume,
  replica: string,
  { nfs, hostPath }: Place,
  { node, hostRoot }: NodeFacts,
  subdirectory: string | null,
): string {
  const below = subdirectory === null ? "" : `/${subdirectory}`;
  if (hostPath) {
    if (hostPath.node !== node)
      throw new VolumeRefusal(
        `replica "${replica}" of volume "${volume.metadata.name}" is a directory of node ${hostPath.node}, which node ${node} cannot reach; run the pod there, or use NFS exports`,
        false,
      );
    return `${hostRoot}${hostPath.path === "/" ? "" : hostPath.path}${below}` || "/";
  }
  if (nfs) return nfsUrl(replica, { ...nfs, path: `${nfs.path === "/" ? "" : nfs.path}${below}` || "/" });
  throw new VolumeRefusal(`replica "${replica}" of volume "${volume.metadata.name}" has no place`, true);
}

/** What people write for mount(8), in our client's words; what it does not have is refused, not ignored. */
function nfsUrl(replica: string, nfs: NonNullable<Place["nfs"]>): string {
  let port = "";
  const query = new URLSearchParams();
  for (const option of (nfs.mountOptions ?? []).flatMap((text) => text.split(","))) {
    const [key = "", value = ""] = option.trim().split("=");
    if (key === "vers" || key === "nfsvers") {
      if (value !== "3" && value !== "4.1" && value !== "4.2" && value !== "4")
        throw new VolumeRefusal(`replica "${replica}": mount option "${option}": version 3 or 4.1 is possible`, false);
      query.set("version", value === "3" ? "3" : "4.1");
    } else if (key === "port" && /^\d+$/.test(value)) port = `:${value}`;
    else if (key === "mountport" && /^\d+$/.test(value)) query.set("mountport", value);
    else if (
      !["hard", "soft", "rw", "noatime", "nodiratime", "relatime", "tcp", "proto", "noresvport", ""].includes(key)
    )
      throw new VolumeRefusal(
        `replica "${replica}": mount option "${option}" is not known; vers, port and mountport are`,
        false,
      );
  }
  const host = nfs.server.includes(":") ? `[${nfs.server}]` : nfs.server;
  const path = nfs.path.split("/").map(encodeURIComponent).join("/");
  const text = query.size > 0 ? `?${query.toString()}` : "";
  return `nfs://${host}${port}${path}${text}`;
}

export function holderConfig(volume: ReplicatedVolume, facts: NodeFacts, mount: VolumeMount): HolderConfig {
  const { spec, metadata } = volume;
  const replicas = replicaConfigs(volume, facts);
  const source =
    spec.adoptFrom !== undefined && replicas.some(({ name }) => name === spec.adoptFrom) ? spec.adoptFrom : null;
  return {
    source: metadata.name,
    onEvent: null,
    logFile: mount.logFile,
    volume: {
      volume: metadata.name,
      mountpoint: mount.mountpoint,
      replicas,
      witness: null,
      minInSyncReplicas: minInSyncReplicas(spec),
      readPolicy: spec.readPolicy,
      fullPolicy: spec.fullPolicy,
      writeCache: spec.writeCache,
      capacityBytes: Number(quantityToBytes(spec.capacity)),
      source,
      // Filled alike before it was ever mounted.
      ...(spec.source === undefined ? {} : { alike: true }),
      forceDegraded: false,
      deadlineMs: mount.deadlineMs,
      resyncBytesPerSecond:
        spec.resync?.bandwidth === undefined ? null : Number(quantityToBytes(spec.resync.bandwidth)),
      resyncMode: spec.resync?.mode ?? "Automatic",
      options: mount.readOnly ? ["ro"] : [],
      stateDirectory: mount.stateDirectory,
      metricsAddress: null,
      logLevel: mount.logLevel,
      ...(mount.arbiter === undefined ? {} : { arbiter: mount.arbiter }),
    },
  };
}
