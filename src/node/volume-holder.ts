/**
 * Who may write: the ReplicatedVolume's status names one node, and is changed only by compare-and-swap. A node that
 * finds another name there does not mount, as long as that node renews the volume's Lease; then it takes the volume over
 * (`replication/takeover-rules.ts`). The name is taken off when that node has unmounted.
 *
 * - That a lease has run out only makes it polite to try. Where the replicas' servers shut the old holder out, that is
 *   all; where nothing does, its process ends with its lease, and the new holder waits for as long once more.
 * - A person's word that a node is down (the Node deleted, or tainted `node.kubernetes.io/out-of-service`) saves the wait.
 */

import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { replicatedVolumes } from "../api/resource.ts";
import type { KubeObject } from "../kube/client.ts";
import { isConflict, isNotFound, type KubeClient } from "../kube/client.ts";
import { nodes } from "../kube/resources.ts";
import { VolumeRefusal } from "./volume-config.ts";
import type { VolumeLeases } from "./volume-leases.ts";

export type VolumeObject = ReplicatedVolume & KubeObject;

interface NodeObject extends KubeObject {
  readonly spec?: { readonly taints?: readonly { readonly key: string }[] };
}

const attempts = 10;
const outOfService = "node.kubernetes.io/out-of-service";

export interface HolderView {
  readonly holder: string | null;
  readonly node: string;
  /** A person says so. */
  readonly holderIsDown: boolean;
  /** Its servers shut the holder out. */
  readonly fenced: boolean;
  /** For how long the holder's lease has not changed while we watched. */
  readonly unchangedMs: number;
  readonly leaseMs: number;
}

export type HolderDecision =
  | { readonly kind: "ours" }
  /** `waits`: not to be used before the last lease of the old holder is over. */
  | { readonly kind: "take"; readonly waits: boolean }
  | { readonly kind: "refuse"; readonly againMs: number };

/** Whether this node may make itself the holder. */
export function decideHolder(view: HolderView): HolderDecision {
  const { holder, node, holderIsDown, fenced, unchangedMs, leaseMs } = view;
  if (holder === node) return { kind: "ours" };
  if (holder === null || holderIsDown) return { kind: "take", waits: false };
  if (unchangedMs < leaseMs) return { kind: "refuse", againMs: leaseMs - unchangedMs };
  return { kind: "take", waits: !fenced };
}

export interface ClaimDeps {
  readonly client: KubeClient;
  readonly leases: VolumeLeases;
  readonly node: string;
  /** A volume was taken from a node that did not give it back. */
  readonly onTaken: (volume: VolumeObject, from: string, fenced: boolean) => void;
}

/** Resolves with the volume as it is then; throws a `VolumeRefusal` where another node holds it, or may still be writing. */
export async function claimVolume(
  { client, leases, node, onTaken }: ClaimDeps,
  name: string,
  options: { readonly signal: AbortSignal },
): Promise<VolumeObject> {
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const volume = await client.get<VolumeObject>(replicatedVolumes, name, undefined, options);
    const holder = volume.status?.holder ?? null;
    const other = holder !== null && holder !== node;
    const decision = decideHolder({
      holder,
      node,
      holderIsDown: other && (await isDown(client, holder, options)),
      fenced: volume.status?.membership?.fenced === true,
      unchangedMs: other ? await leases.unchangedMs(name, options) : 0,
      leaseMs: leases.times.leaseMs,
    });
    if (decision.kind === "refuse")
      throw new VolumeRefusal(
        `volume "${name}" is in use on node ${holder}, and one node at a time may write. If that node has failed, this one takes the volume over ${seconds(decision.againMs)} after its last sign of life; to save the wait, delete the node or taint it ${outOfService}=nodeshutdown:NoExecute`,
        true,
      );
    const waits = decision.kind === "take" && decision.waits;
    let ours = volume;
    if (decision.kind === "take") {
      const { resourceVersion } = volume.metadata;
      const patch = { metadata: { resourceVersion }, status: { holder: node } };
      try {
        ours = await client.mergePatch<VolumeObject>(replicatedVolumes, name, patch, undefined, "status", options);
      } catch (error) {
        if (isConflict(error)) continue;
        throw error;
      }
      if (other) onTaken(volume, holder, volume.status?.membership?.fenced === true);
    }
    const waitMs = await leases.take(ours, waits ? holder : decision.kind === "take" ? "" : null, options);
    if (waitMs > 0)
      throw new VolumeRefusal(
        `volume "${name}" was taken over from a node that nothing shuts out of its replicas (they are not NFS 4.1): waiting ${seconds(waitMs)} until that node's lease is over for certain`,
        true,
      );
    return ours;
  }
  throw new VolumeRefusal(`volume "${name}" changes too often to be claimed; try again`, true);
}

/** Fine if it is gone, or somebody else's by now. */
export async function releaseVolume(
  client: KubeClient,
  leases: VolumeLeases,
  name: string,
  node: string,
): Promise<void> {
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const volume = await client.find<VolumeObject>(replicatedVolumes, name);
    if (volume?.status?.holder !== node) return;
    try {
      const { resourceVersion } = volume.metadata;
      const patch = { metadata: { resourceVersion }, status: { holder: null } };
      await client.mergePatch(replicatedVolumes, name, patch, undefined, "status");
      await leases.release(name, { signal: AbortSignal.timeout(10_000) });
      return;
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isConflict(error)) throw error;
    }
  }
  throw new Error(`volume "${name}" changes too often to be released`);
}

async function isDown(client: KubeClient, name: string, options: { readonly signal: AbortSignal }): Promise<boolean> {
  const node = await client.find<NodeObject>(nodes, name, undefined, options);
  return node === null || (node.spec?.taints ?? []).some(({ key }) => key === outOfService);
}

const seconds = (ms: number): string => `${Math.ceil(ms / 1000)} s`;
