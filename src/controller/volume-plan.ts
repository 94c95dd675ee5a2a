/**
 * What to do next about a volume, decided from what is there: pure. Each step is safe to do twice, so a controller that
 * dies between any two leaves nothing that the next one cannot carry on with.
 */
import { isDeepStrictEqual } from "node:util";
import { apiGroup, csiDriverName, provisionedLabel, removalLabel, topologyKey, volumeFinalizer } from "../api/names.ts";
import { quantityToBytes } from "../api/quantity.ts";
import type { Place, ReplicatedVolume } from "../api/replicated-volume.ts";
import { nodesOf, type Resolved } from "./backends.ts";
import type { PersistentVolume } from "./objects.ts";
import { freshReports } from "./volume-status.ts";

export type Step =
  | { readonly kind: "add-finalizer" }
  | { readonly kind: "create-pv"; readonly pv: PersistentVolume }
  | { readonly kind: "patch-pv"; readonly patch: unknown }
  | { readonly kind: "delete-pv" }
  /** Nodes watch only volumes with this label, not all. */
  | { readonly kind: "label-removal" }
  | { readonly kind: "remove-finalizer" };

export interface PlanInput {
  readonly volume: ReplicatedVolume;
  readonly backends: ReadonlyMap<string, Resolved>;
  /** The PersistentVolume of the volume's name, whoever made it. */
  readonly pv: PersistentVolume | null;
  /** Names of the volume's snapshots, which lie in its own directories. */
  readonly snapshots?: readonly string[];
  readonly nowMs: number;
  readonly staleAfterMs: number;
}

export interface Plan {
  readonly steps: readonly Step[];
  /** Why the volume cannot have its PersistentVolume. */
  readonly problem: string | null;
  /** What deletion waits for. */
  readonly waiting: string | null;
  /** Nothing uses the deleted volume any more: its trees may go. */
  readonly removeTrees: boolean;
}

const volumeLabel = `${apiGroup}/volume`;

export function planVolume(input: PlanInput): Plan {
  return input.volume.metadata.deletionTimestamp === undefined ? planLive(input) : planDeleted(input);
}

function planLive({ volume, backends, pv }: PlanInput): Plan {
  const steps: Step[] = [];
  if (!volume.metadata.finalizers?.includes(volumeFinalizer)) steps.push({ kind: "add-finalizer" });
  const done = (problem: string | null = null): Plan => ({ steps, problem, waiting: null, removeTrees: false });
  if (volume.metadata.labels?.[provisionedLabel] !== undefined) return done();
  if (pv && pv.metadata.deletionTimestamp === undefined && !isOurs(pv, volume))
    return done(`there is a PersistentVolume "${volume.metadata.name}" that is not this volume's; rename one of them`);
  const places = [...backends.values()].flatMap((backend) => (backend.kind === "place" ? [backend.place] : []));
  if (pv === null) {
    // A volume that cannot be reached must not be bound to anybody.
    if (places.length === volume.spec.replicas.length && nodesOf(places).length <= 1)
      steps.push({ kind: "create-pv", pv: persistentVolumeFor(volume, places) });
    return done();
  }
  const spec: Record<string, unknown> = {};
  const capacity = String(volume.spec.capacity);
  if (quantityToBytes(capacity) > quantityToBytes(pv.spec.capacity?.storage ?? "0"))
    spec["capacity"] = { storage: capacity };
  if (!isDeepStrictEqual(pv.spec.accessModes, volume.spec.accessModes)) spec["accessModes"] = volume.spec.accessModes;
  const { claimRef } = volume.spec;
  const bound = pv.spec.claimRef;
  // A claim that is bound has its uid in there: who uses the volume is not taken off it.
  if (claimRef && bound?.uid === undefined && (bound?.namespace !== claimRef.namespace || bound.name !== claimRef.name))
    spec["claimRef"] = claimReference(claimRef);
  if (Object.keys(spec).length > 0) steps.push({ kind: "patch-pv", patch: { spec } });
  return done();
}

function planDeleted({ volume, backends, pv, snapshots = [], nowMs, staleAfterMs }: PlanInput): Plan {
  const steps: Step[] = [];
  const provisioned = volume.metadata.labels?.[provisionedLabel] !== undefined;
  const ours = pv !== null && (provisioned || isOurs(pv, volume));
  const wait = (waiting: string): Plan => ({ steps, problem: null, waiting, removeTrees: false });
  if (!volume.metadata.finalizers?.includes(volumeFinalizer))
    return { steps, problem: null, waiting: null, removeTrees: false };
  if (ours && pv?.status?.phase === "Bound" && pv.metadata.deletionTimestamp === undefined && !provisioned)
    steps.push({ kind: "delete-pv" });
  if (ours && pv?.status?.phase === "Bound") {
    const claim = pv.spec.claimRef;
    return wait(`claim ${claim?.namespace}/${claim?.name} is bound to it; delete that first`);
  }
  const users = freshReports(volume.status?.nodes ?? [], nowMs, staleAfterMs).map(({ name }) => name);
  const holder = volume.status?.holder;
  if (users.length > 0) return wait(`node ${users.join(", ")} still uses it`);
  if (holder !== undefined && holder !== "") return wait(`node ${holder} holds it`);
  if (volume.spec.reclaimPolicy === "Delete" && volume.spec.subdirectory !== undefined && volume.status?.treesMade) {
    const removed = new Set((volume.status?.removedTrees ?? []).map(({ replica }) => replica));
    const left = volume.spec.replicas.filter(({ name }) => !removed.has(name));
    if (left.length > 0 && removed.size === 0 && snapshots.length > 0)
      return wait(`its snapshots lie in its directories (${snapshots.join(", ")}); delete them first`);
    if (left.length > 0) {
      if (volume.metadata.labels?.[removalLabel] === undefined) steps.push({ kind: "label-removal" });
      const where = left.map(({ name }) => `${name}${placeText(backends.get(name))}`).join(", ");
      return { steps, problem: null, waiting: `the trees of ${where} are being removed`, removeTrees: true };
    }
  }
  if (ours && !provisioned && pv?.metadata.deletionTimestamp === undefined) steps.push({ kind: "delete-pv" });
  steps.push({ kind: "remove-finalizer" });
  return { steps, problem: null, waiting: null, removeTrees: false };
}

function isOurs(pv: PersistentVolume, volume: ReplicatedVolume): boolean {
  return pv.spec.csi?.driver === csiDriverName && pv.spec.csi.volumeHandle === volume.metadata.name;
}

const claimReference = ({ namespace, name }: { readonly namespace: string; readonly name: string }) => ({
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  namespace,
  name,
});

export function persistentVolumeFor(volume: ReplicatedVolume, places: readonly Place[]): PersistentVolume {
  const { name } = volume.metadata;
  const { capacity, accessModes, claimRef } = volume.spec;
  const [node] = nodesOf(places);
  return {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name, labels: { [volumeLabel]: name } },
    spec: {
      capacity: { storage: String(capacity) },
      accessModes,
      // What becomes of the trees is decided when the ReplicatedVolume is deleted, never when a claim is.
      persistentVolumeReclaimPolicy: "Retain",
      storageClassName: "",
      volumeMode: "Filesystem",
      csi: { driver: csiDriverName, volumeHandle: name },
      ...(claimRef ? { claimRef: claimReference(claimRef) } : {}),
      ...(node === undefined
        ? {}
        : {
            nodeAffinity: {
              required: {
                nodeSelectorTerms: [{ matchExpressions: [{ key: topologyKey, operator: "In", values: [node] }] }],
              },
            },
          }),
    },
  };
}

function placeText(backend: Resolved | undefined): string {
  if (backend?.kind !== "place") return "";
  const { nfs, hostPath } = backend.place;
  if (nfs) return ` (${nfs.server}:${nfs.path})`;
  return hostPath ? ` (${hostPath.path} on node ${hostPath.node})` : "";
}
