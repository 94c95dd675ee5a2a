/**
 * Lets a deleted snapshot's object go when its trees are gone, or its volume is, with which they went or stay. Everything
 * else about a snapshot is a node's to do.
 */
import { snapshotFinalizer } from "../api/names.ts";
import { replicatedVolumes, volumeSnapshots } from "../api/resource.ts";
import { isConflict, isNotFound, type KubeClient } from "../kube/client.ts";
import { Informer } from "../kube/informer.ts";
import { WorkQueue } from "../kube/work-queue.ts";
import type { Logger } from "../util/logger.ts";
import type { SnapshotObject } from "./csi-snapshots.ts";
import type { VolumeObject } from "./reconciler.ts";

const volumeGoneCheckMs = 15_000;

export class SnapshotReconciler {
  readonly #client: KubeClient;
  readonly #queue: WorkQueue;
  readonly #snapshots: Informer<SnapshotObject>;

  /** `onGone`: a snapshot of this volume is gone. */
  constructor(client: KubeClient, logger: Logger, onGone: (volume: string) => void) {
    this.#client = client;
    this.#queue = new WorkQueue((name) => this.#reconcile(name), { workers: 2, logger });
    this.#snapshots = new Informer<SnapshotObject>(
      client,
      volumeSnapshots,
      (now, before) => {
        if (now === null && before !== null) onGone(before.spec.volume);
        if (now?.metadata.deletionTimestamp !== undefined) this.#queue.add(now.metadata.name);
      },
      { logger },
    );
  }

  start(): void {
    this.#snapshots.start();
    this.#queue.start();
  }

  /** Names of a volume's snapshots; to be asked when the first list is complete. */
  of(volume: string): readonly string[] {
    return [...this.#snapshots.values()]
      .filter(({ spec }) => spec.volume === volume)
      .map(({ metadata }) => metadata.name);
  }

  synced(): Promise<void> {
    return this.#snapshots.synced();
  }

  async stop(): Promise<void> {
    await this.#queue.stop();
    await this.#snapshots.stop();
  }

  async #reconcile(name: string): Promise<number | undefined> {
    const snapshot = this.#snapshots.get(name);
    if (snapshot?.metadata.deletionTimestamp === undefined) return undefined;
    const { finalizers = [], resourceVersion } = snapshot.metadata;
    if (!finalizers.includes(snapshotFinalizer)) return undefined;
    if (!snapshot.status?.removed) {
      const volume = await this.#client.find<VolumeObject>(replicatedVolumes, snapshot.spec.volume);
      if (volume !== null) return volumeGoneCheckMs;
    }
    const left = finalizers.filter((finalizer) => finalizer !== snapshotFinalizer);
    try {
      await this.#client.mergePatch(volumeSnapshots, name, { metadata: { resourceVersion, finalizers: left } });
    } catch (error) {
      if (isConflict(error)) return 1_000;
      if (!isNotFound(error)) throw error;
    }
    return undefined;
  }
}
