/** Where each replica is: what a PersistentVolume or a claim stands for is looked up; pure. */
import type { Place, ReplicaSpec } from "../api/replicated-volume.ts";
import type { PersistentVolume, PersistentVolumeClaim } from "./objects.ts";

export type Resolved =
  | { readonly kind: "place"; readonly place: Place }
  /** `final` where waiting does not help: the spec must be changed. */
  | { readonly kind: "problem"; readonly message: string; readonly final: boolean };

export interface Lookup {
  readonly persistentVolume: (name: string) => PersistentVolume | null;
  readonly persistentVolumeClaim: (namespace: string, name: string) => PersistentVolumeClaim | null;
}

const problem = (message: string, final = false): Resolved => ({ kind: "problem", message, final });
const found = (place: Place): Resolved => ({ kind: "place", place });

export function resolveBackend(replica: ReplicaSpec, lookup: Lookup): Resolved {
  const name = `replica "${replica.name}"`;
  if (replica.nfs) return found({ nfs: replica.nfs });
  if (replica.hostPath) return found({ hostPath: replica.hostPath });
  if (replica.persistentVolume) return resolvePersistentVolume(name, replica.persistentVolume.name, lookup);
  if (replica.persistentVolumeClaim) {
    const { namespace, name: claimName } = replica.persistentVolumeClaim;
    const claim = lookup.persistentVolumeClaim(namespace, claimName);
    if (!claim) return problem(`${name}: there is no PersistentVolumeClaim ${namespace}/${claimName}`);
    if (!claim.spec.volumeName) return problem(`${name}: PersistentVolumeClaim ${namespace}/${claimName} is not bound`);
    return resolvePersistentVolume(name, claim.spec.volumeName, lookup);
  }
  return problem(`${name} has no backend`, true);
}

function resolvePersistentVolume(replica: string, pvName: string, lookup: Lookup): Resolved {
  const pv = lookup.persistentVolume(pvName);
  if (!pv) return problem(`${replica}: there is no PersistentVolume ${pvName}`);
  const { nfs, local, hostPath, mountOptions, csi } = pv.spec;
  if (nfs) return found({ nfs: { ...nfs, ...(mountOptions?.length ? { mountOptions: [...mountOptions] } : {}) } });
  const directory = local ?? hostPath;
  if (directory) {
    const node = onlyNodeOf(pv);
    if (node === null)
      return problem(
        `${replica}: PersistentVolume ${pvName} does not name its node; give it a nodeAffinity on kubernetes.io/hostname`,
      );
    return found({ hostPath: { path: directory.path, node } });
  }
  const kind = csi ? `volume of CSI driver ${csi.driver}` : "kind that Chiron does not know";
  return problem(
    `${replica}: PersistentVolume ${pvName} is a ${kind}; this release takes nfs, local and hostPath`,
    true,
  );
}

function onlyNodeOf(pv: PersistentVolume): string | null {
  const terms = pv.spec.nodeAffinity?.required?.nodeSelectorTerms ?? [];
  const [term] = terms;
  if (terms.length !== 1 || !term) return null;
  for (const { key, operator, values } of term.matchExpressions ?? [])
    if (key === "kubernetes.io/hostname" && operator === "In" && values?.length === 1) return values[0] ?? null;
  return null;
}

/** The nodes that have a replica as a directory: only one such node can reach all replicas. */
export function nodesOf(places: Iterable<Place>): readonly string[] {
  const nodes = new Set<string>();
  for (const { hostPath } of places) if (hostPath) nodes.add(hostPath.node);
  return [...nodes];
}
