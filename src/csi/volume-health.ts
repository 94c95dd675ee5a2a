/** A volume's health in CSI's words: out of sync → DEGRADED, diverged → DATA_LOSS, nothing reachable → INACCESSIBLE. */
import { type VolumeHealth, VolumeHealthErrorType } from "./generated/csi.ts";

export interface ReplicaHealth {
  readonly name: string;
  readonly state: "InSync" | "OutOfSync" | "Syncing" | "Unreachable" | "Unknown";
  readonly reason?: string | undefined;
  readonly message?: string | undefined;
}

export function volumeHealth(
  volumeId: string,
  phase: string | undefined,
  replicas: readonly ReplicaHealth[],
): VolumeHealth {
  const healthStatuses: VolumeHealth["healthStatuses"] = [];
  if (phase === "Failed" || phase === "QuorumLost")
    healthStatuses.push({
      status: VolumeHealthErrorType.INACCESSIBLE,
      reason: phase,
      message: phase === "Failed" ? "no replica answers" : "too few replicas are in sync: writes are refused",
    });
  for (const { name, state, reason, message } of replicas) {
    if (state === "InSync" || state === "Unknown") continue;
    healthStatuses.push({
      status: reason === "Diverged" ? VolumeHealthErrorType.DATA_LOSS : VolumeHealthErrorType.DEGRADED,
      reason: reason ?? state,
      message: `replica "${name}" is ${state}${message ? `: ${message}` : ""}`,
    });
  }
  return { volumeId, healthStatuses };
}
