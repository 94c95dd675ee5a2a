/**
 * Makes and removes snapshots: through the volume's own process where it is mounted for writing on this node, through a
 * mount of our own where no node has it. Whoever claims the volume first does it; every step may be repeated.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { quantityToBytes } from "../api/quantity.ts";
import type { ReplicatedVolumeSnapshot, SnapshotStatus } from "../api/replicated-volume-snapshot.ts";
import { replicatedVolumes, typeOfSnapshot, typeOfVolume, volumeSnapshots } from "../api/resource.ts";
import type { Operations } from "../csi/operations.ts";
import { CsiError } from "../csi/status.ts";
import { isNotFound, type KubeClient, type KubeObject } from "../kube/client.ts";
import type { EventRecorder } from "../kube/events.ts";
import { Informer } from "../kube/informer.ts";
import { WorkQueue } from "../kube/work-queue.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { ControlClient } from "../volume/control-client.ts";
import type { CallParams, Method, SnapshotReport } from "../volume/protocol.ts";
import { controlSocket, mountDirectory, runDirectory } from "../volume/registry.ts";
import type { NodeService } from "./csi-node.ts";
import { VolumeRefusal } from "./volume-config.ts";
import type { VolumeObject } from "./volume-holder.ts";
import type { VolumeWatch } from "./volume-watch.ts";
import { decideWorker } from "./volume-worker.ts";

export type SnapshotObject = ReplicatedVolumeSnapshot & KubeObject;

export interface SnapshotWorkDeps {
  readonly client: KubeClient;
  readonly aside: NodeService["aside"];
  readonly operations: Operations;
  readonly watch: VolumeWatch;
  readonly events: EventRecorder;
  readonly logger: Logger;
}

export interface SnapshotWorkOptions {
  readonly node: string;
  /** Where our own mounts are; below the kubelet's directory. */
  readonly directory: string;
}

const lookAgainMs = 3_000;
const oldMountsMs = 20_000;
const mountTimeoutMs = 90_000;

export class SnapshotWork {
  readonly #deps: SnapshotWorkDeps;
  readonly #options: SnapshotWorkOptions;
  readonly #queue: WorkQueue;
  readonly #snapshots: Informer<SnapshotObject>;
  #cleaning: NodeJS.Timeout | null = null;

  constructor(deps: SnapshotWorkDeps, options: SnapshotWorkOptions) {
    this.#deps = deps;
    this.#options = options;
    const { client, logger } = deps;
    this.#queue = new WorkQueue((name, signal) => this.#work(name, signal), { workers: 4, logger, firstRetryMs: 500 });
    this.#snapshots = new Informer<SnapshotObject>(
      client,
      volumeSnapshots,
      (now) => {
        if (now && isWaiting(now)) this.#queue.add(now.metadata.name);
      },
      { logger },
    );
  }

  start(): void {
    this.#snapshots.start();
    this.#queue.start();
    this.#cleaning = setInterval(() => void this.#unmountOld(), oldMountsMs).unref();
  }

  async stop(): Promise<void> {
    if (this.#cleaning) clearInterval(this.#cleaning);
    await this.#queue.stop();
    await this.#snapshots.stop();
  }

  /**
   * What an earlier process was at when it ended, and nobody has gone on with. Not at once: the mount daemon may still be
   * at a mount that it was asked for, and whoever goes on with the work uses and unmounts it; and again and again, for
   * such a mount may come late.
   */
  async #unmountOld(): Promise<void> {
    const { directory } = this.#options;
    const { aside, operations, logger } = this.#deps;
    for (const volume of existsSync(directory) ? readdirSync(directory) : []) {
      try {
        using _lock = operations.acquire(volume, "unmount");
        await aside.unmount(volume, join(directory, volume));
      } catch (error) {
        if (!(error instanceof CsiError && error.status === "ABORTED"))
          logger.warn("an old mount is left", { volume, error });
      }
    }
  }

  async #work(name: string, signal: AbortSignal): Promise<number | undefined> {
    const snapshot = this.#snapshots.get(name);
    if (!snapshot || !isWaiting(snapshot)) return undefined;
    const { client, logger } = this.#deps;
    const { volume: volumeName } = snapshot.spec;
    const volume = await client.find<VolumeObject>(replicatedVolumes, volumeName, undefined, { signal });
    if (volume === null) return undefined; // its snapshots went or stayed with its trees
    const { node } = this.#options;
    const decision = decideWorker(volume, node, staggerMs(node, name), Date.now());
    if (decision.kind !== "do") return decision.kind === "wait" ? decision.ms : lookAgainMs;
    try {
      if (volume.metadata.deletionTimestamp !== undefined && snapshot.metadata.deletionTimestamp === undefined)
        throw new Error(`volume "${volumeName}" is being deleted`);
      // Told when our own mount is gone as well: whoever hears of it may go on with the volume at once.
      if (snapshot.metadata.deletionTimestamp !== undefined) {
        await this.#on(volume, signal, (call) => call("snapshot.remove", { snapshot: name }));
        await this.#report(name, { removed: true });
      } else await this.#make(snapshot, volume, signal);
    } catch (error) {
      // Somebody else is at it, or about to be.
      const isBusy = error instanceof VolumeRefusal || (error instanceof CsiError && error.status === "ABORTED");
      if (!isBusy) {
        logger.warn("snapshot", { snapshot: name, volume: volumeName, error });
        const message = errorText(error).slice(0, 1024);
        await this.#report(name, { phase: "Failed", message });
        await this.#tell(volume, "Warning", "SnapshotFailed", `snapshot "${name}": ${message}`);
      }
      throw error;
    }
    return undefined;
  }

  async #make(snapshot: SnapshotObject, volume: VolumeObject, signal: AbortSignal): Promise<void> {
    const { name } = snapshot.metadata;
    const { maxPauseSeconds } = snapshot.spec;
    const params = { snapshot: name, ...(maxPauseSeconds === undefined ? {} : { maxPauseMs: maxPauseSeconds * 1000 }) };
    const report = (await this.#on(volume, signal, (call) => call("snapshot.create", params))) as SnapshotReport;
    await this.#report(name, {
      phase: "Ready",
      creationTime: report.createdAt,
      capacityBytes: Number(quantityToBytes(volume.spec.capacity)),
      files: report.files,
      bytes: report.bytes,
      pauseMilliseconds: report.pauseMs,
      replicas: report.replicas.map(({ name: replica, state, method, message }) => ({
        name: replica,
        state,
        ...(method === null ? {} : { method: method === "reflink" ? ("Reflink" as const) : ("Copy" as const) }),
        ...(message === null ? {} : { message: message.slice(0, 1024) }),
      })),
    });
    const how = report.replicas
      .map(
        ({ name: replica, state, method }) => `${replica} ${state === "Missing" ? "lacks it" : (method ?? "has it")}`,
      )
      .join(", ");
    const message = `snapshot "${name}" of ${report.files} files: ${how}; changes waited ${report.pauseMs} ms`;
    await this.#tell(volume, "Normal", "SnapshotMade", message);
  }

  /** Runs `act` with the volume's process, which is that of a mount here or of one that is made for this. */
  async #on(volume: VolumeObject, signal: AbortSignal, act: (call: VolumeCall) => Promise<unknown>): Promise<unknown> {
    const { watch, aside, operations, logger } = this.#deps;
    const { name } = volume.metadata;
    const own = `${this.#options.directory}/`;
    const mounted = watch
      .mounts()
      .map((entry) => ({ ...entry, volume: entry.record.config.volume }))
      .find(
        (entry) =>
          entry.record.state === "mounted" &&
          entry.volume.volume === name &&
          !entry.volume.options.includes("ro") &&
          !entry.volume.mountpoint.startsWith(own),
      );
    if (mounted) return await withCall(controlSocket(mounted.directory), act);
    using _lock = operations.acquire(name, "snapshot");
    const path = join(this.#options.directory, name);
    await aside.mount(name, path, { signal: AbortSignal.any([signal, AbortSignal.timeout(mountTimeoutMs)]), logger });
    try {
      return await withCall(controlSocket(mountDirectory(path, runDirectory())), act);
    } finally {
      await aside.unmount(name, path);
    }
  }

  async #report(name: string, status: SnapshotStatus): Promise<void> {
    const object = { ...typeOfSnapshot, metadata: { name }, status } as unknown as SnapshotObject;
    try {
      await this.#deps.client.apply(volumeSnapshots, object, "chiron-snapshots", "status");
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  async #tell(volume: VolumeObject, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    await this.#deps.events.record({ ...volume, ...typeOfVolume }, type, reason, message);
  }
}

type VolumeCall = (method: Method, params: CallParams) => Promise<unknown>;

async function withCall(socket: string, act: (call: VolumeCall) => Promise<unknown>): Promise<unknown> {
  const control = await ControlClient.connect(socket);
  try {
    return await act((method, params) => control.call(method, { params }));
  } finally {
    control.close();
  }
}

const isWaiting = ({ metadata, status }: SnapshotObject): boolean =>
  metadata.deletionTimestamp === undefined ? status?.phase !== "Ready" : status?.removed !== true;

/** Of many nodes that could do it, each waits for a while of its own. */
function staggerMs(node: string, name: string): number {
  return createHash("sha256").update(`${node}\0${name}`).digest().readUInt16BE(0) % 2_000;
}
