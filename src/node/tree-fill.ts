/**
 * Fills new volumes from snapshots (`spec.source`), before they are mounted for the first time. The node that claims the
 * volume does it, and gives it back; what was copied by one that did not finish is kept.
 */
import { createHash } from "node:crypto";
import { fillLabel } from "../api/names.ts";
import { replicatedVolumes, typeOfVolume, volumeSnapshots } from "../api/resource.ts";
import type { KubeClient } from "../kube/client.ts";
import type { EventRecorder } from "../kube/events.ts";
import { Informer } from "../kube/informer.ts";
import { WorkQueue } from "../kube/work-queue.ts";
import { errorText, type Logger } from "../util/logger.ts";
import type { SnapshotObject } from "./snapshot-work.ts";
import type { Trees } from "./trees.ts";
import { VolumeRefusal } from "./volume-config.ts";
import { type ClaimDeps, claimVolume, releaseVolume, type VolumeObject } from "./volume-holder.ts";
import { decideWorker } from "./volume-worker.ts";

export interface TreeFillDeps {
  readonly claims: ClaimDeps;
  readonly trees: Trees;
  readonly events: EventRecorder;
  readonly logger: Logger;
}

const lookAgainMs = 3_000;

export class TreeFill {
  readonly #deps: TreeFillDeps;
  readonly #client: KubeClient;
  readonly #queue: WorkQueue;
  readonly #volumes: Informer<VolumeObject>;

  constructor(deps: TreeFillDeps) {
    this.#deps = deps;
    this.#client = deps.claims.client;
    const { logger } = deps;
    this.#queue = new WorkQueue((name, signal) => this.#fill(name, signal), { workers: 2, logger, firstRetryMs: 500 });
    this.#volumes = new Informer<VolumeObject>(
      this.#client,
      replicatedVolumes,
      (now) => {
        if (now && isWaiting(now)) this.#queue.add(now.metadata.name);
      },
      { logger, labelSelector: fillLabel },
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

  async #fill(name: string, signal: AbortSignal): Promise<number | undefined> {
    const volume = this.#volumes.get(name);
    if (!volume || !isWaiting(volume)) return undefined;
    const { claims, trees, logger, events } = this.#deps;
    const { node } = claims;
    const stagger = createHash("sha256").update(`${node}\0${name}`).digest().readUInt16BE(0) % 2_000;
    const decision = decideWorker(volume, node, stagger, Date.now());
    if (decision.kind !== "do") return decision.kind === "wait" ? decision.ms : lookAgainMs;
    const snapshotName = volume.spec.source?.snapshot ?? "";
    try {
      const snapshot = await this.#client.find<SnapshotObject>(volumeSnapshots, snapshotName, undefined, { signal });
      if (snapshot?.status?.phase !== "Ready") throw new Error(`snapshot "${snapshotName}" is not there`);
      const source = await this.#client.get<VolumeObject>(replicatedVolumes, snapshot.spec.volume, undefined, {
        signal,
      });
      const replicas = (snapshot.status.replicas ?? [])
        .filter(({ state }) => state === "Ready")
        .map((replica) => replica.name);
      await claimVolume(claims, name, { signal });
      try {
        await this.#patch(name, { treesMade: true }, signal);
        await trees.fill(volume, source, { name: snapshotName, replicas }, signal);
        await this.#patch(name, { filled: true, fillMessage: null }, signal);
      } finally {
        await releaseVolume(this.#client, claims.leases, name, node);
      }
      logger.info("filled", { volume: name, snapshot: snapshotName });
      const message = `filled from snapshot "${snapshotName}" of volume "${source.metadata.name}"`;
      await events.record({ ...volume, ...typeOfVolume }, "Normal", "Filled", message);
    } catch (error) {
      signal.throwIfAborted();
      logger.warn("cannot fill a volume", { volume: name, error });
      if (!(error instanceof VolumeRefusal) || !error.retry)
        await this.#patch(name, { fillMessage: errorText(error).slice(0, 1024) }, signal);
      throw error;
    }
    return undefined;
  }

  async #patch(name: string, status: object, signal: AbortSignal): Promise<void> {
    await this.#client.mergePatch(replicatedVolumes, name, { status }, undefined, "status", { signal });
  }
}

const isWaiting = ({ spec, status, metadata }: VolumeObject): boolean =>
  spec.source !== undefined && !status?.filled && metadata.deletionTimestamp === undefined;
