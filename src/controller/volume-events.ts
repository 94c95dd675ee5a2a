/** What a person is told when a volume's status changes: pure. */
import type { ReplicatedVolumeStatus } from "../api/replicated-volume.ts";

export interface VolumeNews {
  readonly type: "Normal" | "Warning";
  readonly reason: string;
  readonly message: string;
}

type Seen = Pick<ReplicatedVolumeStatus, "phase" | "replicas" | "conditions">;

export function newsBetween(before: Seen | undefined, after: Seen): readonly VolumeNews[] {
  const news: VolumeNews[] = [];
  for (const replica of after.replicas ?? []) {
    const earlier = before?.replicas?.find(({ name }) => name === replica.name)?.state ?? "Unknown";
    if (earlier === replica.state) continue;
    const why = [replica.reason, replica.message].filter(Boolean).join(": ");
    if (replica.state === "OutOfSync" || replica.state === "Unreachable")
      news.push({
        type: "Warning",
        reason: "ReplicaLost",
        message: `replica "${replica.name}" is ${replica.state}${why && ` (${why})`}`,
      });
    else if (replica.state === "Syncing")
      news.push({
        type: "Normal",
        reason: "ResyncStarted",
        message: `replica "${replica.name}" is being brought up to date`,
      });
    else if (replica.state === "InSync" && earlier !== "Unknown")
      news.push({ type: "Normal", reason: "ReplicaBack", message: `replica "${replica.name}" is in sync again` });
  }
  if (after.phase === "QuorumLost" && before?.phase !== "QuorumLost")
    news.push({ type: "Warning", reason: "QuorumLost", message: "too few replicas are in sync: writes are refused" });
  if (
    before?.phase === "QuorumLost" &&
    (after.phase === "Ready" || after.phase === "Degraded" || after.phase === "Syncing")
  )
    news.push({ type: "Normal", reason: "QuorumRestored", message: "writes are accepted again" });
  const accepted = after.conditions?.find(({ type }) => type === "Accepted");
  const acceptedBefore = before?.conditions?.find(({ type }) => type === "Accepted");
  if (accepted?.status === "False" && acceptedBefore?.message !== accepted.message)
    news.push({ type: "Warning", reason: accepted.reason, message: accepted.message });
  return news;
}
