/**
 * The volume process at work: the volume, its session with the kernel, the caretaker of its replicas, and what the holder
 * asks of it. Built in this order: status page, state log, replicas, volume; served once it is mounted.
 */
import { openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { FileSystem } from "../fuse/filesystem.ts";
import { FuseSession } from "../fuse/session.ts";
import { VolumeMetrics } from "../metrics/volume-metrics.ts";
import { mapShared } from "../posix/memory.ts";
import { Caretaker } from "../replication/caretaker.ts";
import type { MembershipEvent } from "../replication/membership.ts";
import type { ReplicaStatus, VolumeState, VolumeStatus } from "../replication/model.ts";
import { errnoName } from "../util/errno.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { FailureError } from "./failure.ts";
import type { StartMessage } from "./holder-link.ts";
import { measured } from "./measured.ts";
import { openVolume } from "./open-volume.ts";
import type { CallParams, FromVolume, Method, VolumeConfig, VolumeEvent } from "./protocol.ts";
import { ReplicaCare } from "./replica-care.ts";
import { ReplicaLocks } from "./replica-locks.ts";
import { loadCertain, loadNegotiated, loadTerm, saveCertain, saveTerm } from "./state-facts.ts";
import { StateLog } from "./state-log.ts";
import { STATE_PAGE_BYTES, STATE_PAGE_NAME, StatePageWriter } from "./state-page.ts";
import { Volume } from "./volume.ts";

const STATE_LOG_NAME = "state-log";
const PULSE_MS = 200;
const FREE_SPACE_TIMEOUT_MS = 500;

export interface ServiceDeps {
  readonly fuseFd: number;
  readonly log: Logger;
  readonly send: (message: FromVolume) => void;
}

export class VolumeService {
  readonly volumeId: string;
  /** Resolves when the kernel has unmounted, and everything is settled and released. */
  readonly ended: Promise<void>;
  readonly #deps: ServiceDeps;
  readonly #config: VolumeConfig;
  readonly #volume: Volume;
  readonly #session: FuseSession;
  readonly #stateLog: StateLog;
  readonly #caretaker: Caretaker;
  readonly #page: StatePageWriter;
  readonly #metrics: VolumeMetrics | null;
  readonly #care: ReplicaCare;
  #released = false;

  static async open({ config, resumed, avoid }: StartMessage, deps: ServiceDeps): Promise<VolumeService> {
    const page = attachPage(config);
    // Until the session's loop tells, this does: opening may take long, but not in one call.
    const pulse = setInterval(() => page.wake(), PULSE_MS);
    try {
      const stateLog = openStateLog(config, resumed);
      const locks = new ReplicaLocks();
      const term = resumed ? loadTerm(stateLog) : 0;
      const metrics = config.metricsAddress === null ? null : new VolumeMetrics();
      const certain = resumed ? loadCertain(stateLog) : null;
      const onCertain = (replicas: readonly number[]) => saveCertain(stateLog, replicas);
      const opened = await openVolume(
        { config, resumed, avoid, term, certain },
        { page, log: deps.log, locks, metrics, onCertain },
      );
      saveTerm(stateLog, opened.recorded.term);
      let service: VolumeService | null = null;
      const volume = new Volume(opened, {
        stateLog,
        log: deps.log,
        onMembership: (event) => service?.onMembership(event),
      });
      service = new VolumeService(config, deps, volume, stateLog, page, locks, metrics);
      await service.#prepare(resumed);
      if (resumed) service.#resume();
      return service;
    } finally {
      clearInterval(pulse);
    }
  }

  private constructor(
    config: VolumeConfig,
    deps: ServiceDeps,
    volume: Volume,
    stateLog: StateLog,
    page: StatePageWriter,
    locks: ReplicaLocks,
    metrics: VolumeMetrics | null,
  ) {
    this.#metrics = metrics;
    this.#config = config;
    this.#deps = deps;
    this.#volume = volume;
    this.#stateLog = stateLog;
    this.#page = page;
    this.volumeId = volume.opened.volumeId;
    this.#care = new ReplicaCare({ volume, locks, log: deps.log });
    this.#caretaker = new Caretaker(
      {
        replicas: volume.opened.replicas,
        membership: volume.membership,
        dropHandles: (index) => volume.files.dropHandles(index),
        inspect: (index) => this.#care.inspect(index),
        resync: async (index, options) => void (await this.#care.resync(index, options)),
        log: deps.log,
      },
      { automatic: config.resyncMode === "Automatic" },
    );
    this.#session = new FuseSession(
      {
        fd: deps.fuseFd,
        fileSystem: metrics === null ? volume.fileSystem : measuredFileSystem(volume.fileSystem, metrics),
        logger: deps.log,
        onAwake: () => page.wake(),
        onIdle: () => {
          page.rest();
          return false;
        },
      },
      { posixAcl: volume.abilities.acls, writebackCache: config.writeCache === "WriteBack" },
    );
    this.ended = this.#session.ended.then(() => this.#release());
  }

  /** Members are alike, intents are open, what an earlier process had is found again. */
  async #prepare(resumed: boolean): Promise<void> {
    await this.#volume.prepareOrphans();
    await this.#volume.intents.open();
    this.#volume.start();
    if (resumed) this.#volume.restore();
    for (const [index, replica] of this.#config.replicas.entries()) {
      if (!this.#volume.membership.inSync.includes(index)) {
        this.#deps.log.warn("Replica is not in sync", { replica: replica.name });
        this.#volume.missed.begin(index, { kind: "everything" });
      }
    }
  }

  /** After mount(2). */
  serve(): void {
    this.#session.start();
    this.#startCare();
  }

  #startCare(): void {
    for (const index of this.#config.replicas.keys()) {
      if (this.#volume.membership.standing(index).reason === "Disabled") void this.#caretaker.disable(index);
    }
    this.#caretaker.start();
  }

  #resume(): void {
    if (this.#session.resume(loadNegotiated(this.#stateLog)) === "unsupported") {
      this.#deps.log.warn("This kernel cannot send requests again: those that were in flight get an error");
    }
    this.#startCare();
  }

  async call(method: Method, params: CallParams, _onProgress: (progress: unknown) => void): Promise<unknown> {
    switch (method) {
      case "status":
        return await this.#status();
      case "metrics":
        return this.#metrics === null
          ? ""
          : await this.#metrics.text({ ...(await this.#status()), dirtyObjects: null });
      case "quiesce":
        await this.#release();
        return null;
      case "replica.disable": {
        const index = this.#indexOf(params);
        await this.#caretaker.disable(index);
        this.#volume.membership.expel([index], "Disabled", 0);
        await this.#volume.membership.settled;
        return null;
      }
      case "resync":
        return await this.#resync(params);
      case "replica.enable":
        this.#caretaker.enable(this.#indexOf(params));
        return null;
      default:
        throw new FailureError("internal", `"${method}" is not known to this version`);
    }
  }

  onMembership(event: MembershipEvent): void {
    const replica = "replica" in event ? (this.#config.replicas[event.replica]?.name ?? null) : null;
    this.#deps.log.warn(event.message, { event: event.kind, replica });
    switch (event.kind) {
      case "left":
        this.#metrics?.expelled(replica ?? "", event.reason);
        this.#volume.missed.begin(event.replica, { kind: "intents", records: this.#volume.intents.uncleared });
        this.#caretaker.left(event.replica);
        this.#tell("replica-lost", replica, event.message);
        break;
      case "joined":
        this.#tell("replica-back", replica, event.message);
        break;
      case "sync-started":
        this.#tell("resync-started", replica, event.message);
        break;
      case "sync-stopped":
        this.#tell("resync-failed", replica, event.message);
        break;
      case "quorum-lost":
      case "quorum-restored":
        this.#tell(event.kind, null, event.message);
        break;
    }
  }

  async #resync(params: CallParams): Promise<null> {
    const { membership } = this.#volume;
    const index = this.#indexOf(params);
    if (membership.inSync.includes(index)) throw new FailureError("usage", `Replica "${params.replica}" is in sync`);
    this.#caretaker.resync(index, params.full ?? false);
    return null;
  }

  #tell(event: VolumeEvent["event"], replica: string | null, message: string): void {
    this.#deps.send({
      type: "event",
      event: { time: new Date().toISOString(), volume: this.#config.volume, event, replica, message },
    });
  }

  #indexOf(params: CallParams): number {
    const index = this.#config.replicas.findIndex((replica) => replica.name === params.replica);
    if (index >= 0) return index;
    const names = this.#config.replicas.map((replica) => replica.name).join(", ");
    throw new FailureError("usage", `There is no replica "${params.replica}": the volume has ${names}`);
  }

  async #status(): Promise<VolumeStatus> {
    const { membership } = this.#volume;
    const freeBytes = await Promise.all(this.#config.replicas.map((_, index) => this.#freeBytes(index)));
    const replicas = this.#config.replicas.map(({ name, url }, index): ReplicaStatus => {
      const { state, reason, since, lastError } = membership.standing(index);
      return {
        name,
        url,
        state,
        reason,
        since,
        readable: state === "InSync",
        progress: this.#care.progress(index),
        lastError,
        freeBytes: freeBytes[index] ?? null,
      };
    });
    return {
      volume: this.#config.volume,
      mountpoint: this.#config.mountpoint,
      state: stateOf(membership.quorumLost, replicas),
      epoch: membership.epoch,
      pid: process.pid,
      minInSyncReplicas: membership.minInSync,
      replicas,
    };
  }

  /** null if it is not in sync, or does not answer quickly. */
  async #freeBytes(index: number): Promise<number | null> {
    const replica = this.#volume.opened.replicas[index];
    if (!replica || !this.#volume.membership.inSync.includes(index)) return null;
    const stats = {
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    };
    const late = sleep(FREE_SPACE_TIMEOUT_MS, -1, { ref: false });
    return (await Promise.race([replica.statfs(stats), late])) < 0
      ? null
      : stats.availableBlocks * stats.blockSizeBytes;
  }

  /** Everything is on the replicas, alike, and on record as such. */
  async #release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    const pulse = setInterval(() => this.#page.wake(), PULSE_MS);
    try {
      await this.#caretaker.stop();
      await this.#volume.settle();
      if (await this.#volume.intents.checkpoint()) await this.#volume.opened.arbiter.release();
    } catch (error) {
      this.#deps.log.error("The volume was not left in order: the next mount makes the replicas alike", {
        error: errorText(error),
      });
    } finally {
      clearInterval(pulse);
    }
  }
}

function stateOf(quorumLost: boolean, replicas: readonly ReplicaStatus[]): VolumeState {
  if (quorumLost) return "QuorumLost";
  if (replicas.every(({ state }) => state === "InSync")) return "Healthy";
  return replicas.some(({ state }) => state === "Syncing") ? "Syncing" : "Degraded";
}

function attachPage(config: VolumeConfig): StatePageWriter {
  const fd = openSync(join(config.stateDirectory, STATE_PAGE_NAME), "r+");
  const memory = mapShared(fd, STATE_PAGE_BYTES, "read-write");
  if (typeof memory === "number") {
    throw new FailureError("state", `Cannot map the status page in ${config.stateDirectory}: ${errnoName(memory)}`);
  }
  const page = new StatePageWriter(memory);
  page.attach(process.pid);
  return page;
}

function openStateLog(config: VolumeConfig, resumed: boolean): StateLog {
  const path = join(config.stateDirectory, STATE_LOG_NAME);
  try {
    return resumed ? StateLog.open(path) : StateLog.create(path);
  } catch (error) {
    throw new FailureError("state", errorText(error), { cause: error });
  }
}

function measuredFileSystem(fileSystem: FileSystem, metrics: VolumeMetrics): FileSystem {
  return measured(fileSystem, metrics.operations, {
    except: ["init", "destroy", "forget"],
    withBytes: ["read", "write", "copyFileRange"],
  });
}
