/** A volume's status as people see it. Pure, but for the colours. */
import type { ReplicaStatus, VolumeState, VolumeStatus } from "../replication/model.ts";
import { bar, paint, type Style, table } from "./terminal.ts";
import { formatAge, formatBytes } from "./units.ts";

export const statusExitCodes: Readonly<Record<VolumeState, number>> = {
  Healthy: 0,
  Degraded: 1,
  Syncing: 1,
  QuorumLost: 2,
};

const volumeStyle: Readonly<Record<VolumeState, Style>> = {
  Healthy: "green",
  Degraded: "yellow",
  Syncing: "cyan",
  QuorumLost: "red",
};
const volumeWords: Readonly<Record<VolumeState, string>> = {
  Healthy: "healthy",
  Degraded: "degraded",
  Syncing: "syncing",
  QuorumLost: "quorum lost, read-only",
};
const replicaStyle: Readonly<Record<ReplicaStatus["state"], Style>> = {
  InSync: "green",
  OutOfSync: "yellow",
  Syncing: "cyan",
  Unreachable: "red",
};
const replicaWords: Readonly<Record<ReplicaStatus["state"], string>> = {
  InSync: "in sync",
  OutOfSync: "out of sync",
  Syncing: "syncing",
  Unreachable: "unreachable",
};
const reasons: Readonly<Record<NonNullable<ReplicaStatus["reason"]>, string>> = {
  Fault: "a call failed",
  Diverged: "it answered differently",
  Full: "no space left",
  Vanished: "its file system is gone",
  RecordFailed: "it could not take the membership record",
  NotAtMount: "it was not there at mount",
  Disabled: "disabled",
  New: "new",
  ResyncFailed: "its resync failed",
};

export function statusText(status: VolumeStatus, nowMs: number): string {
  const inSync = status.replicas.filter((replica) => replica.state === "InSync").length;
  const head = [
    paint("bold", status.volume),
    paint(volumeStyle[status.state], `● ${volumeWords[status.state]}`),
    status.mountpoint,
    `${inSync} of ${status.replicas.length} in sync`,
    paint("dim", status.pid === 0 ? `epoch ${status.epoch}` : `epoch ${status.epoch}, pid ${status.pid}`),
  ].join("  ");
  const rows = status.replicas.map((replica) => [
    `  ${replica.name}`,
    paint(replicaStyle[replica.state], replicaWords[replica.state]),
    formatAge(replica.since, nowMs),
    replica.freeBytes === null ? "" : `${formatBytes(replica.freeBytes)} free`,
    replica.url,
    note(replica),
  ]);
  return `${head}\n${table(rows)}`;
}

function note(replica: ReplicaStatus): string {
  if (replica.progress !== null && replica.state === "Syncing") return progressText(replica.progress);
  const parts = [
    replica.state !== "InSync" && replica.reason !== null ? reasons[replica.reason] : null,
    replica.state === "InSync" ? null : replica.lastError,
  ];
  return parts.filter((part) => part !== null).join(": ");
}

export function progressText(progress: NonNullable<ReplicaStatus["progress"]>): string {
  const { percent, filesRemaining, bytesRemaining } = progress;
  return `${bar(percent, 20)} ${String(Math.floor(percent)).padStart(3)} %  ${filesRemaining} files, ${formatBytes(bytesRemaining)} left`;
}
