/**
 * Who may write: the ReplicatedVolume's status names one node, and is changed only by compare-and-swap. A node that
 * finds another name there does not mount. The name is taken off when that node has unmounted, or a person has
 * confirmed that it is down: by deleting the Node, or by the taint `node.kubernetes.io/out-of-service`.
 */

import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { replicatedVolumes } from "../api/resource.ts";
import type { KubeObject } from "../kube/client.ts";
import { isConflict, isNotFound, type KubeClient } from "../kube/client.ts";
import { nodes } from "../kube/resources.ts";
import { VolumeRefusal } from "./volume-config.ts";

export type VolumeObject = ReplicatedVolume & KubeObject;

interface NodeObject extends KubeObject {
  readonly spec?: { readonly taints?: readonly { readonly key: string }[] };
}

const attempts = 10;
const outOfService = "node.kubernetes.io/out-of-service";

/** Resolves with the volume as it is then; throws a `VolumeRefusal` where another node holds it. */
export async function claimVolume(
  client: KubeClient,
  name: string,
  node: string,
  options: { readonly signal: AbortSignal },
): Promise<VolumeObject> {
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const volume = await client.get<VolumeObject>(replicatedVolumes, name, undefined, options);
    const holder = volume.status?.holder ?? "";
    if (holder === node) return volume;
    if (holder !== "" && !(await isDown(client, holder, options)))
      throw new VolumeRefusal(
        `volume "${name}" is in use on node ${holder}, and one node at a time may write; if that node is down for good, delete it or taint it ${outOfService}=nodeshutdown:NoExecute`,
        true,
      );
    try {
      const { resourceVersion } = volume.metadata;
      return await client.mergePatch<VolumeObject>(
        replicatedVolumes,
        name,
        { metadata: { resourceVersion }, status: { holder: node } },
        undefined,
        "status",
        options,
      );
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
  }
  throw new VolumeRefusal(`volume "${name}" changes too often to be claimed; try again`, true);
}

/** Fine if it is gone, or somebody else's by now. */
export async function releaseVolume(client: KubeClient, name: string, node: string): Promise<void> {
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const volume = await client.find<VolumeObject>(replicatedVolumes, name);
    if (volume?.status?.holder !== node) return;
    try {
      const { resourceVersion } = volume.metadata;
      const patch = { metadata: { resourceVersion }, status: { holder: null } };
      await client.mergePatch(replicatedVolumes, name, patch, undefined, "status");
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
