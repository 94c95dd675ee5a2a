/**
 * Names and defaults of the API that processes need at run time; apart from the schema, so that they do not load zod,
 * which costs 15 MiB.
 */
import type { ReplicatedVolumeSpec } from "./replicated-volume.ts";

export const apiGroup = "chiron.storage";
export const apiVersion = "v1alpha1";
export const resourcePlural = "replicatedvolumes";
export const resourceKind = "ReplicatedVolume";
export const snapshotPlural = "replicatedvolumesnapshots";
export const snapshotKind = "ReplicatedVolumeSnapshot";
export const csiDriverName = "csi.chiron.storage";
/** On volumes that CreateVolume made: csi-provisioner makes their PersistentVolumes. */
export const provisionedLabel = `${apiGroup}/provisioned`;
/** On deleted volumes whose directories the nodes are to remove. */
export const removalLabel = `${apiGroup}/removal`;
/** On new volumes that a node is to fill from `spec.source`. */
export const fillLabel = `${apiGroup}/fill`;
/** On snapshots that are only made to fill this volume. */
export const cloneLabel = `${apiGroup}/clone-for`;
/** Keeps a snapshot's object until its trees are gone. */
export const snapshotFinalizer = `${apiGroup}/snapshot`;
/** Which node a volume of directories can be used on. */
export const topologyKey = `${csiDriverName}/node`;
/** Keeps the object until what it stands for is gone: its PV, and with `Delete` its trees. */
export const volumeFinalizer = `${apiGroup}/volume`;

/** Below so many in-sync replicas writes are refused: 1 for one or two replicas, a majority from three on. */
export function minInSyncReplicas(wanted: Pick<ReplicatedVolumeSpec, "minInSyncReplicas" | "replicas">): number {
  if (wanted.minInSyncReplicas !== undefined) return wanted.minInSyncReplicas;
  const count = wanted.replicas.length;
  return count < 3 ? 1 : Math.floor(count / 2) + 1;
}
