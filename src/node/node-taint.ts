/** The start-up taint: pods that need volumes come to a node only once its plugin has registered. */
import { csiDriverName } from "../api/names.ts";
import { isConflict, type KubeClient, type KubeObject } from "../kube/client.ts";
import { nodes } from "../kube/resources.ts";
import type { Logger } from "../util/logger.ts";

export const startupTaint = `${csiDriverName}/agent-not-ready`;

interface NodeObject extends KubeObject {
  readonly spec?: { readonly taints?: readonly { readonly key: string }[] };
}

/** A node that is not tainted is left alone. */
export async function removeStartupTaint(client: KubeClient, node: string, logger: Logger): Promise<void> {
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const found = await client.get<NodeObject>(nodes, node);
    const taints = found.spec?.taints ?? [];
    const left = taints.filter(({ key }) => key !== startupTaint);
    if (left.length === taints.length) return;
    try {
      const { resourceVersion } = found.metadata;
      await client.mergePatch(nodes, node, { metadata: { resourceVersion }, spec: { taints: left } });
      logger.info("start-up taint removed", { node });
      return;
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
  }
}
