/** What a node says of a volume, from what the volume process says: pure. */
import type { NodeReport, ReplicatedVolume } from "../api/replicated-volume.ts";
import type { VolumeStatus } from "../volume/protocol.ts";

/** `status` null: the volume process does not answer. */
export function reportOf(
  node: string,
  status: VolumeStatus | null,
  readOnly: boolean,
  /** What else a person should know. */
  problem: string | null,
  nowMs: number,
): NodeReport {
  const base = { name: node, reportedAt: new Date(nowMs).toISOString(), ...(readOnly ? { readOnly: true } : {}) };
  if (status === null)
    return { ...base, state: "Failed", message: "the volume process does not answer; it is started again by itself" };
  return {
    ...base,
    state: status.state,
    epoch: status.epoch,
    ...(problem === null ? {} : { message: problem.slice(0, 1024) }),
    replicas: status.replicas.map(({ name, state, reason, since, progress, lastError, freeBytes }) => ({
      name,
      state,
      since,
      ...(freeBytes === null ? {} : { freeBytes }),
      ...(reason === null ? {} : { reason }),
      ...(lastError === null ? {} : { message: lastError.slice(0, 1024) }),
      ...(progress === null
        ? {}
        : {
            progress: {
              percent: Math.floor(progress.percent),
              filesRemaining: progress.filesRemaining,
              bytesRemaining: progress.bytesRemaining,
            },
          }),
    })),
  };
}

/** Anything but the time is news, and progress only so often; without news it is said again before it is stale. */
export function isWorthReporting(
  last: NodeReport | null,
  now: NodeReport,
  { heartbeatMs, progressMs }: { readonly heartbeatMs: number; readonly progressMs: number },
): boolean {
  if (last === null) return true;
  const ageMs = Date.parse(now.reportedAt) - Date.parse(last.reportedAt);
  if (ageMs >= heartbeatMs) return true;
  if (JSON.stringify(essence(last)) !== JSON.stringify(essence(now))) return true;
  return ageMs >= progressMs && JSON.stringify(progressOf(last)) !== JSON.stringify(progressOf(now));
}

function essence({ reportedAt: _, replicas = [], ...rest }: NodeReport): unknown {
  return { ...rest, replicas: replicas.map(({ progress: __, freeBytes: ___, ...replica }) => replica) };
}

const progressOf = ({ replicas = [] }: NodeReport) => replicas.map(({ progress }) => progress ?? null);

export type ReplicaChange =
  | { readonly kind: "add"; readonly name: string; readonly url: string; readonly slow: boolean }
  | { readonly kind: "remove"; readonly name: string };

/**
 * What to tell the volume process when `spec.replicas` was edited. One step at a time, additions first: a replica is
 * removed only once as many in-sync ones as are needed remain, and never the last one.
 */
export function nextReplicaChange(
  volume: Pick<ReplicatedVolume, "spec">,
  wanted: readonly { readonly name: string; readonly url: string; readonly slow: boolean }[],
  status: VolumeStatus,
): ReplicaChange | null {
  const has = new Set(status.replicas.map(({ name }) => name));
  for (const { name, url, slow } of wanted) if (!has.has(name)) return { kind: "add", name, url, slow };
  const wants = new Set(volume.spec.replicas.map(({ name }) => name));
  const inSync = status.replicas.filter(({ state }) => state === "InSync").map(({ name }) => name);
  for (const { name } of status.replicas) {
    if (wants.has(name)) continue;
    const left = inSync.filter((other) => other !== name).length;
    if (left >= Math.max(1, status.minInSyncReplicas)) return { kind: "remove", name };
  }
  return null;
}
