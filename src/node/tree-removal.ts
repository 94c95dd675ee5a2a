/**
 * Removes the directories of deleted volumes, where the controller has said that nothing uses them any more
 * (`status.removeTrees`). Directories of a node are that node's to remove; exports are removed by whichever node was
 * asked first, for doing it twice is no harm.
 */
import { removalLabel } from "../api/names.ts";
import { replicatedVolumes, typeOfVolume } from "../api/resource.ts";
import { isNotFound, type KubeClient } from "../kube/client.ts";
import { Informer } from "../kube/informer.ts";
import { WorkQueue } from "../kube/work-queue.ts";
import type { Logger } from "../util/logger.ts";
import type { Trees } from "./trees.ts";
import { placeOf } from "./volume-config.ts";
import type { VolumeObject } from "./volume-holder.ts";

const timeoutMs = 600_000;

export class TreeRemoval {
  readonly #client: KubeClient;
  readonly #trees: Trees;
  readonly #node: string;
  readonly #logger: Logger;
  readonly #queue: WorkQueue;
  readonly #volumes: Informer<VolumeObject>;

  constructor(client: KubeClient, trees: Trees, node: string, logger: Logger) {
    this.#client = client;
    this.#trees = trees;
    this.#node = node;
    this.#logger = logger;
    this.#queue = new WorkQueue((name, signal) => this.#remove(name, signal), {
      workers: 2,
      logger,
      firstRetryMs: 1_000,
    });
    this.#volumes = new Informer<VolumeObject>(
      client,
      replicatedVolumes,
      (now) => {
        if (now?.status?.removeTrees && now.metadata.deletionTimestamp !== undefined)
          this.#queue.add(now.metadata.name);
      },
      { logger, labelSelector: removalLabel },
    );
  }

  start(): void {
    this.#volumes.start();
    this.#queue.start();
  }
  async stop(): Promise<void> {
    await this.#queue.stop();
    await this.#volumes.stop();
  }

  async #remove(name: string, signal: AbortSignal): Promise<undefined> {
    const volume = this.#volumes.get(name);
    if (!volume?.status?.removeTrees || volume.spec.reclaimPolicy !== "Delete") return;
    const removed = new Set((volume.status.removedTrees ?? []).map(({ replica }) => replica));
    for (const { name: replica } of volume.spec.replicas) {
      const { hostPath } = placeOf(volume, replica);
      if (removed.has(replica) || (hostPath && hostPath.node !== this.#node)) continue;
      await this.#trees.remove(volume, replica, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
      this.#logger.info("tree removed", { volume: name, replica });
      await this.#report(name, replica);
    }
  }

  /** One field manager for each replica: what one has said, another does not take back. */
  async #report(name: string, replica: string): Promise<void> {
    const status = { removedTrees: [{ replica }] };
    const object = { ...typeOfVolume, metadata: { name }, status } as unknown as VolumeObject;
    try {
      await this.#client.apply(replicatedVolumes, object, `chiron-removal-${replica}`, "status");
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}
