/**
 * The volume process at work: the volume, its session with the kernel, the caretaker of its replicas, and what the holder
 * asks of it. Built in this order: status page, state log, replicas, volume; served once it is mounted.
 */
import { openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FuseMountError } from "../fuse/device.ts";
import type { FileSystem } from "../fuse/filesystem.ts";
import { NativeSession } from "../fuse/native-session.ts";
import { FuseSession } from "../fuse/session.ts";
import { VolumeMetrics } from "../metrics/volume-metrics.ts";
import { mapShared } from "../posix/memory.ts";
import { exitNow } from "../posix/processes.ts";
import { Caretaker } from "../replication/caretaker.ts";
import { ClaimLostError } from "../replication/errors.ts";
import type { HostClaim } from "../replication/host-claim.ts";
import type { MembershipEvent } from "../replication/membership.ts";
import type { ReplicaStatus, VolumeSpace, VolumeState, VolumeStatus } from "../replication/model.ts";
import { holdsMissed, reconcile } from "../replication/reconcile.ts";
import { errnoName } from "../util/errno.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { ArbiterClient } from "./arbiter-client.ts";
import { keepDiverged } from "./diverged.ts";
import { FailureError } from "./failure.ts";
import type { StartMessage } from "./holder-link.ts";
import { measured } from "./measured.ts";
import { hostTimes, openVolume, shutsOut } from "./open-volume.ts";
import type { CallParams, FromVolume, Method, ReplicaConfig, VolumeConfig, VolumeEvent } from "./protocol.ts";
import { ReplicaCare } from "./replica-care.ts";
import { isRemoteUrl } from "./replica-kinds.ts";
import { ReplicaLocks } from "./replica-locks.ts";
import { ResentOrder } from "./resent-order.ts";
import { Snapshots } from "./snapshots.ts";
import {
  loadCertain,
  loadNegotiated,
  loadOffered,
  loadTerm,
  saveCertain,
  saveOffered,
  saveTerm,
} from "./state-facts.ts";
import { StateLog } from "./state-log.ts";
import { monotonicMs, STATE_PAGE_BYTES, STATE_PAGE_NAME, StatePageWriter } from "./state-page.ts";
import { Verification } from "./verification.ts";
import { MAX_REPLICAS, Volume } from "./volume.ts";
import { VolumeLease } from "./volume-lease.ts";

const STATE_LOG_NAME = "state-log";
const PULSE_MS = 200;
const FREE_SPACE_TIMEOUT_MS = 500;
const LEASE_OVER_EXIT = 75;
const SESSION_ENDED_EXIT = 76;
const LEASE_RETRY_MS = 1_000;

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
  /** By index, as they are now; null where one was removed. */
  readonly #replicas: (ReplicaConfig | null)[];
  readonly #volume: Volume;
  /** null where fuse-native is used in its place. */
  readonly #session: FuseSession | null;
  readonly #nativeEnded = Promise.withResolvers<void>();
  readonly #stateLog: StateLog;
  readonly #caretaker: Caretaker;
  readonly #page: StatePageWriter;
  readonly #metrics: VolumeMetrics | null;
  readonly #care: ReplicaCare;
  readonly #resent: ResentOrder;
  #leader: number | null = null;
  readonly verification: Verification;
  #lease: VolumeLease | null = null;
  readonly #snapshots: Snapshots;
  #released = false;

  static async open({ config, resumed, avoid }: StartMessage, deps: ServiceDeps): Promise<VolumeService> {
    const beganMs = Date.now();
    const page = attachPage(config);
    // Until the session's loop tells, this does: opening may take long, but not in one call.
    const pulse = setInterval(() => page.wake(), PULSE_MS);
    let service: VolumeService | null = null;
    try {
      const stateLog = openStateLog(config, resumed);
      const locks = new ReplicaLocks();
      const term = resumed ? loadTerm(stateLog) : 0;
      const metrics = config.metricsAddress === null ? null : new VolumeMetrics();
      const certain = resumed ? loadCertain(stateLog) : null;
      const onCertain = (replicas: readonly number[], newest: number) => {
        saveCertain(stateLog, replicas);
        saveTerm(stateLog, newest);
      };
      const store = config.arbiter === undefined ? null : new ArbiterClient(config.arbiter, config.volume);
      let leasedMs = monotonicMs();
      const onClaimed = async () => {
        if (store !== null) leasedMs = await firstLease(store, resumed);
      };
      const found = await openVolume(
        { config, resumed, avoid, term, certain },
        {
          page,
          log: deps.log,
          locks,
          metrics,
          onCertain,
          store,
          onClaimed,
          onFenced: () => service?.askWhoHasIt("session"),
        },
      );
      const offered = resumed ? loadOffered(stateLog) : null;
      const capabilities = offered === null ? found.capabilities : [...found.capabilities, offered];
      saveOffered(stateLog, capabilities);
      const opened = { ...found, capabilities };
      const volume = new Volume(opened, {
        stateLog,
        log: deps.log,
        onMembership: (event) => service?.onMembership(event),
        onSuspect: () => service?.verification.suspect(),
        isSuspect: () => service?.verification.isSuspect ?? false,
        onFull: (full) => service?.onFull(full),
      });
      service = new VolumeService(config, deps, volume, stateLog, page, locks, metrics);
      if (store !== null && config.arbiter?.observes === false) service.#keepLease(store, leasedMs);
      if (opened.host !== null) service.#keepHost(opened.host);
      await service.#prepare(resumed, beganMs);
      if (resumed) service.#resume();
      if (config.binding === "fuse-native") await service.#mountNative();
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
    this.#replicas = [...config.replicas];
    this.#deps = deps;
    this.#volume = volume;
    this.#stateLog = stateLog;
    this.#page = page;
    this.volumeId = volume.opened.volumeId;
    this.#care = new ReplicaCare({ volume, locks, page, requests: () => this.#session?.taken ?? 0, log: deps.log });
    this.#snapshots = new Snapshots({ volume, throttle: this.#care.throttle, log: deps.log });
    this.verification = new Verification({
      volume,
      throttle: this.#care.throttle,
      linksVary: () => this.#snapshots.isBusy,
      log: deps.log,
    });
    this.#caretaker = new Caretaker(
      {
        replicas: volume.opened.replicas,
        membership: volume.membership,
        dropHandles: (index) => volume.files.dropHandles(index),
        onDisconnected: (index) => this.#care.disconnected(index),
        reach: (index) => this.#care.reach(index),
        inspect: (index) => this.#inspect(index),
        resync: (index, options) => this.#resyncAndTell(index, options),
        log: deps.log,
      },
      { automatic: config.resyncMode === "Automatic" },
    );
    const served = metrics === null ? volume.fileSystem : measuredFileSystem(volume.fileSystem, metrics);
    this.#resent = new ResentOrder(served, (parent, name) => volume.table.directoryDepth(parent, name));
    const kernelSession = (): FuseSession =>
      new FuseSession(
        {
          fd: deps.fuseFd,
          fileSystem: this.#resent.fileSystem,
          logger: deps.log,
          onAwake: () => page.wake(),
          onIdle: () => {
            this.#resent.arrived();
            page.rest();
            return false;
          },
        },
        { posixAcl: volume.abilities.acls, writebackCache: config.writeCache === "WriteBack" },
      );
    this.#session = config.binding === "fuse-native" ? null : kernelSession();
    this.ended = (this.#session?.ended ?? this.#nativeEnded.promise).then(() => this.#release());
  }

  /** `sinceMs`: it was asked for then. */
  #keepLease(store: ArbiterClient, sinceMs: number): void {
    const { arbiter } = this.#config;
    if (arbiter === undefined) return;
    const { membership, opened } = this.#volume;
    this.#lease = new VolumeLease(
      {
        renew: () => store.renew(),
        onTaken: () => this.askWhoHasIt("lease"),
        onHold: () => membership.hold(arbiter.waitMs),
        onLetGo: () => membership.letGo(),
        onEnd: () => {
          this.#deps.log.error("The lease is over, and only the end of this process shuts it out");
          exitNow(LEASE_OVER_EXIT);
        },
        onUntil: (untilMs) => this.#page.runUntil(untilMs ?? 0),
        mustEnd: () =>
          [...membership.inSync, ...membership.syncing].some((index) => {
            const replica = opened.replicas[index];
            return replica !== null && replica !== undefined && !shutsOut(replica);
          }),
        nowMs: monotonicMs,
        log: this.#deps.log,
      },
      arbiter,
    );
    this.#lease.start(sinceMs);
  }

  /** Says on the replicas that this host has the volume, for as long as it does. */
  #keepHost(host: HostClaim): void {
    const { membership, opened } = this.#volume;
    host.voters = () =>
      membership.inSync.flatMap((index) => {
        const replica = opened.replicas[index];
        return replica !== null && replica !== undefined && isRemoteUrl(replica.url)
          ? [{ name: replica.name, files: opened.files(replica.name) }]
          : [];
      });
    this.#lease = new VolumeLease(
      {
        renew: () => host.beat(),
        onTaken: () => this.askWhoHasIt("lease"),
        onHold: () => membership.hold(this.#config.deadlineMs),
        onLetGo: () => membership.letGo(),
        onEnd: () => {},
        onUntil: () => {},
        mustEnd: () => false,
        nowMs: monotonicMs,
        log: this.#deps.log,
      },
      hostTimes(this.#config.deadlineMs),
    );
    this.#lease.start(monotonicMs());
  }

  /** Connected: is it ours? If the volume is somebody else's by now, this mount is over. */
  async #inspect(index: number): Promise<void> {
    try {
      await this.#care.inspect(index);
    } catch (error) {
      if (error instanceof ClaimLostError) this.#lose(error);
      throw error;
    }
  }

  /**
   * Somebody else has the lease, or has ended our sessions: if that is a take-over, this mount is over. If it is not, a
   * session was ended by one who had lost the volume without knowing: the next process makes its sessions anew.
   */
  askWhoHasIt(lost: "lease" | "session"): void {
    const { arbiter, host } = this.#volume.opened;
    const isElsewhere = this.#config.arbiter !== undefined;
    if (!isElsewhere && host === null) return;
    void arbiter.confirm().then(
      () => {
        // Where the record is on the replicas, it may be out of reach for this very reason: the next process sees it.
        const isLast = this.#volume.membership.inSync.length < 2;
        if (lost === "session" && (isElsewhere || isLast)) exitNow(SESSION_ENDED_EXIT);
      },
      (error: unknown) => {
        if (error instanceof ClaimLostError) this.#lose(error);
        else setTimeout(() => this.askWhoHasIt(lost), LEASE_RETRY_MS).unref();
      },
    );
  }

  /** Nothing is acknowledged any more, and everybody who uses the mount gets an error. */
  #lose(error: ClaimLostError): void {
    this.#volume.membership.lose(error);
    this.#deps.log.error("Another node has taken the volume over: this mount ends", { error: error.message });
    this.#deps.send({ type: "failed", failure: { code: "lost", message: error.message } });
  }

  /** Members are alike, intents are open, what an earlier process had is found again. */
  async #prepare(resumed: boolean, beganMs: number): Promise<void> {
    const observes = this.#config.arbiter?.observes === true;
    // Links of a snapshot that was interrupted would be differences between the replicas.
    if (!resumed && !observes) await this.#snapshots.tidied();
    if (!resumed && !observes) await this.#makeAlike();
    if (this.#volume.opened.isNew) await this.#volume.alignNew();
    if (!observes) {
      await this.#volume.prepareOrphans();
      await this.#volume.intents.open();
      if (!resumed) await this.#keepDiverged();
      this.#volume.start();
    }
    this.#leader = this.#volume.membership.inSync[0] ?? null;
    if (resumed) {
      this.#volume.restore();
      await this.#volume.leaderChanged();
    }
    for (const [index, replica] of this.#config.replicas.entries()) {
      if (!this.#volume.membership.inSync.includes(index)) {
        const records = this.#volume.intents.uncleared;
        // Who was a member until this very mount lacks nothing but what intents name, and says itself what it was told.
        const absent = this.#volume.opened.recorded.absent.find(({ name }) => name === replica.name);
        const { forced } = this.#volume.opened.arbiter.claimed; // then it may have gone on without those who are here
        const untilNow = !forced && absent?.reason === "NotAtMount" && Date.parse(absent.since) >= beganMs;
        if (untilNow) await this.#volume.intents.recordOut(replica.name);
        const known = untilNow || holdsMissed(records, replica.name);
        this.#deps.log.warn("Replica is not in sync", { replica: replica.name, missedIsKnown: known });
        this.#volume.missed.begin(index, known ? { kind: "intents", records } : { kind: "everything" });
      }
    }
  }

  async #keepDiverged(): Promise<void> {
    const tell = (replica: string, message: string): void => this.#tell("conflict", replica, message);
    await keepDiverged({ volume: this.#volume, throttle: this.#care.throttle, log: this.#deps.log, tell });
  }

  /** After an unclean stop members may differ in what was in flight. */
  async #makeAlike(): Promise<void> {
    const { membership, opened, fanOut } = this.#volume;
    if (opened.arbiter.claimed.clean) return;
    const { log } = this.#deps;
    log.info("The volume was not unmounted in order: its replicas are made alike");
    const result = await reconcile({
      replica: (index) => fanOut.replica(index),
      members: membership.inSync,
      isDegraded: membership.inSync.length < this.#replicas.length,
      log,
      signal: new AbortController().signal,
    });
    const { entries, bytesWritten, everything } = result;
    log.info("Replicas are alike", { entries, bytesWritten, everything });
  }

  async #mountNative(): Promise<void> {
    const { mountpoint, volume } = this.#config;
    const { fileSystem } = this.#volume;
    const deps = { mountpoint, source: `chiron:${volume}`, subtype: "chiron", fileSystem, logger: this.#deps.log };
    // What may be refused was refused before anything was started.
    const wishes = { posixAcl: false, writebackCache: false, locks: false, restart: false, acceptWrongResults: true };
    try {
      const session = await NativeSession.start(deps, wishes);
      this.#page.rest();
      void session.ended.then(() => this.#nativeEnded.resolve());
    } catch (error) {
      await this.#release();
      throw error instanceof FuseMountError ? new FailureError("no-fuse", error.message, { cause: error }) : error;
    }
  }

  /** After mount(2). */
  serve(): void {
    this.#session?.start();
    this.#startCare();
  }

  #startCare(): void {
    if (this.#config.arbiter?.observes === true) return; // repairs are the writer's
    for (const index of this.#config.replicas.keys()) {
      if (this.#volume.membership.standing(index).reason === "Disabled") void this.#caretaker.disable(index);
    }
    this.#caretaker.start();
    this.#snapshots.tidy();
  }

  #resume(): void {
    this.#resent.hold();
    if (this.#session?.resume(loadNegotiated(this.#stateLog)) === "unsupported") {
      this.#resent.arrived();
      this.#deps.log.warn("This kernel cannot send requests again: those that were in flight get an error");
    }
    this.#startCare();
  }

  async call(method: Method, params: CallParams, onProgress: (progress: unknown) => void): Promise<unknown> {
    switch (method) {
      case "status":
        return await this.#status();
      case "metrics":
        return this.#metrics === null
          ? ""
          : await this.#metrics.text({ ...(await this.#status()), dirty: this.#dirty() });
      case "quiesce":
        await this.#release();
        return null;
      case "replica.disable":
        await this.#takeOut(this.#indexOf(params), params.replica ?? "");
        return null;
      case "verify":
        return await this.verification.verify(params.repair ?? false, onProgress);
      case "resize":
        if (params.capacityBytes === undefined) throw new FailureError("usage", "The capacity is missing");
        this.#volume.resize(params.capacityBytes);
        this.#reconfigured();
        return null;
      case "snapshot.create":
        this.#mustWrite();
        return await this.#snapshots.create(params.snapshot ?? "", params.maxPauseMs ?? null);
      case "snapshot.remove":
        this.#mustWrite();
        await this.#snapshots.remove(params.snapshot ?? "");
        return null;
      case "snapshot.list":
        return await this.#snapshots.list();
      case "resync":
        return await this.#resync(params);
      case "replica.enable":
        await this.#volume.membership.enable(this.#indexOf(params));
        this.#caretaker.enable(this.#indexOf(params));
        return null;
      case "replica.add":
        return await this.#add(params);
      case "replica.remove":
        return await this.#remove(params);
      case "replica.replace":
        return await this.#replace(params);
      default:
        throw new FailureError("internal", `"${method}" is not known to this version`);
    }
  }

  #mustWrite(): void {
    if (this.#config.arbiter?.observes === true)
      throw new FailureError("busy", "This mount only reads, and changes nothing: ask the one that may write");
  }

  onMembership(event: MembershipEvent): void {
    const replica = "replica" in event ? (this.#replicas[event.replica]?.name ?? null) : null;
    this.#deps.log.warn(event.message, { event: event.kind, replica });
    if (event.kind === "left" || event.kind === "joined") this.#volume.renumber(event.replica);
    const leader = this.#volume.membership.inSync[0] ?? null;
    if (leader !== this.#leader) {
      this.#leader = leader;
      void this.#volume.leaderChanged();
    }
    switch (event.kind) {
      case "left":
        this.#metrics?.expelled(replica ?? "", event.reason);
        this.#volume.missed.begin(event.replica, { kind: "intents", records: this.#volume.intents.uncleared });
        if (replica !== null) void this.#volume.intents.recordOut(replica);
        this.#caretaker.left(event.replica);
        this.#tell("replica-lost", replica, event.message);
        break;
      case "joined":
        this.#snapshots.joined(event.replica);
        this.#tell("replica-back", replica, event.message);
        break;
      case "sync-started":
        this.#tell("resync-started", replica, event.message);
        break;
      case "sync-stopped":
        this.#tell("resync-failed", replica, event.message);
        break;
      case "quorum-lost":
        if (this.#config.arbiter !== undefined) this.#endIfLost();
        this.#tell(event.kind, null, event.message);
        break;
      case "quorum-restored":
        this.#tell(event.kind, null, event.message);
        break;
    }
  }

  onFull(full: { readonly replica: number | null } | null): void {
    if (full === null) {
      this.#tell("volume-has-room", null, "There is room again: changes are accepted");
      return;
    }
    const name = full.replica === null ? null : (this.#replicas[full.replica]?.name ?? "");
    const what = name === null ? "The volume's capacity is used up" : `Replica "${name}" is full`;
    const how = name === null ? "remove something, or expand the volume" : "make room there, or replace it";
    this.#tell("volume-full", name, `${what}: changes answer ENOSPC, so that all replicas stay alike; ${how}`);
  }

  #endIfLost(): void {
    const { quorumLoss } = this.#volume.membership;
    if (quorumLoss instanceof ClaimLostError) this.#lose(quorumLoss);
  }

  /** A new replica, filled by a resync. */
  async #add(params: CallParams): Promise<null> {
    const { membership, opened, missed, intents } = this.#volume;
    const { replica: name = "", path: url = "", slow = false, run = "auto" } = params;
    if (this.#replicas.some((other) => other?.name === name)) {
      throw new FailureError("usage", `There is a replica "${name}" already: use another name, or \`replica replace\``);
    }
    const used = this.#replicas.filter((other) => other !== null).length;
    if (used >= MAX_REPLICAS || this.#replicas.length >= MAX_REPLICAS) {
      throw new FailureError(
        "usage",
        `A volume has at most ${MAX_REPLICAS} replicas, those removed since the mount included`,
      );
    }
    await intents.recordUnknown(name); // whatever an earlier replica of this name had missed says nothing about this one
    const index = membership.add(name);
    const config: ReplicaConfig = { name, url, slow, run };
    this.#replicas[index] = config;
    opened.place(config, index);
    missed.begin(index, { kind: "everything" });
    this.#reconfigured();
    this.#caretaker.enable(index);
    return null;
  }

  /** Its directory is left as it is. */
  async #remove(params: CallParams): Promise<null> {
    const index = this.#indexOf(params);
    await this.#takeOut(index, params.replica ?? "");
    await this.#volume.opened.arbiter.withdraw(params.replica ?? "");
    this.#volume.membership.remove(index);
    this.#volume.missed.end(index);
    this.#volume.opened.replicas[index] = null;
    this.#replicas[index] = null;
    this.#reconfigured();
    return null;
  }

  /** The same name, another place: filled by a resync. */
  async #replace(params: CallParams): Promise<null> {
    const { membership, opened, missed, intents } = this.#volume;
    const index = this.#indexOf(params);
    const before = this.#replicas[index] as ReplicaConfig;
    await this.#takeOut(index, before.name);
    await intents.recordUnknown(before.name);
    membership.remove(index);
    membership.replaced(index);
    const config: ReplicaConfig = { ...before, url: params.path ?? before.url, run: params.run ?? "auto" };
    this.#replicas[index] = config;
    opened.place(config, index);
    missed.begin(index, { kind: "everything" });
    missed.forgetAll(index);
    this.#reconfigured();
    this.#caretaker.enable(index);
    return null;
  }

  /** Out of the membership, and left alone. Never the last copy, nor below the minimum. */
  async #takeOut(index: number, name: string): Promise<void> {
    const { membership } = this.#volume;
    if (membership.inSync.includes(index) && membership.inSync.length <= membership.minInSync) {
      throw new FailureError(
        "quorum",
        `Without "${name}" fewer than ${membership.minInSync} replicas would be in sync: bring another one up to date first`,
      );
    }
    await this.#caretaker.disable(index);
    membership.expel([index], "Disabled", 0);
    await membership.settled;
  }

  #reconfigured(): void {
    const replicas = this.#replicas.filter((replica) => replica !== null);
    this.#deps.send({ type: "reconfigured", replicas, capacityBytes: this.#volume.capacityBytes });
  }

  async #resync(params: CallParams): Promise<null> {
    const { membership } = this.#volume;
    const index = this.#indexOf(params);
    if (membership.inSync.includes(index)) throw new FailureError("usage", `Replica "${params.replica}" is in sync`);
    this.#caretaker.resync(index, params.full ?? false);
    return null;
  }

  async #resyncAndTell(index: number, options: Parameters<ReplicaCare["resync"]>[1]): Promise<void> {
    const { entries, bytesWritten } = await this.#care.resync(index, options);
    const name = this.#replicas[index]?.name ?? "";
    this.#tell(
      "resync-done",
      name,
      `Replica "${name}" is up to date: ${entries} ${entries === 1 ? "entry" : "entries"} and ${bytesWritten} bytes written`,
    );
  }

  #tell(event: VolumeEvent["event"], replica: string | null, message: string): void {
    this.#deps.send({
      type: "event",
      event: { time: new Date().toISOString(), volume: this.#config.volume, event, replica, message },
    });
  }

  #indexOf(params: CallParams): number {
    const index = this.#replicas.findIndex((replica) => replica !== null && replica.name === params.replica);
    if (index >= 0) return index;
    const names = this.#replicas.flatMap((replica) => replica?.name ?? []).join(", ");
    throw new FailureError("usage", `There is no replica "${params.replica}": the volume has ${names}`);
  }

  async #replicaStatus({ name, url }: ReplicaConfig, index: number): Promise<ReplicaStatus> {
    const { state, reason, since, lastError } = this.#volume.membership.standing(index);
    const progress = this.#care.progress(index);
    const readable = state === "InSync";
    return { name, url, state, reason, since, readable, progress, lastError, freeBytes: await this.#freeBytes(index) };
  }

  async #status(): Promise<VolumeStatus> {
    const { membership } = this.#volume;
    const statuses = this.#replicas.flatMap((replica, index) =>
      replica === null ? [] : [this.#replicaStatus(replica, index)],
    );
    const replicas = await Promise.all(statuses);
    return {
      volume: this.#config.volume,
      mountpoint: this.#config.mountpoint,
      state: stateOf(membership.quorumLost, replicas),
      epoch: membership.epoch,
      pid: process.pid,
      minInSyncReplicas: membership.minInSync,
      capacityBytes: this.#volume.capacityBytes,
      space: await this.#space(),
      replicas,
    };
  }

  #dirty(): { readonly name: string; readonly files: number; readonly bytes: number }[] {
    return this.#replicas.flatMap((replica, index) => {
      const missed = this.#volume.missed.of(index);
      return replica === null || missed === null ? [] : [{ name: replica.name, ...missed.counts() }];
    });
  }

  /** null where the replicas do not answer quickly. */
  async #space(): Promise<VolumeSpace | null> {
    const late = sleep(FREE_SPACE_TIMEOUT_MS, null, { ref: false });
    return await Promise.race([this.#volume.space(), late]);
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
      this.verification.stop();
      await this.#snapshots.stop();
      await this.#caretaker.stop();
      this.#care.stop();
      await this.#volume.settle();
      const observes = this.#config.arbiter?.observes === true;
      if (!observes && (await this.#volume.persist())) await this.#volume.membership.release();
      const { host } = this.#volume.opened;
      if (host !== null) {
        this.#lease?.stop();
        await host.release();
      }
    } catch (error) {
      this.#deps.log.error("The volume was not left in order: the next mount makes the replicas alike", {
        error: errorText(error),
      });
    } finally {
      this.#lease?.stop();
      clearInterval(pulse);
    }
  }
}

/** Answers when the lease was asked for that we have. Who goes on for an earlier process waits for it. */
async function firstLease(store: ArbiterClient, resumed: boolean): Promise<number> {
  for (;;) {
    const askedMs = monotonicMs();
    try {
      if (await store.renew()) return askedMs;
    } catch (error) {
      if (!resumed) throw error;
    }
    // Another node has it: whether it has the volume as well, is found out by whoever asks for that.
    if (!resumed) throw new FailureError("busy", "Another node has the volume's lease: try again");
    await sleep(LEASE_RETRY_MS);
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
    const what = `${errorText(error)}: what is open cannot be found again; \`chiron unmount --force\`, then mount again`;
    throw new FailureError("state", what, { cause: error });
  }
}

function measuredFileSystem(fileSystem: FileSystem, metrics: VolumeMetrics): FileSystem {
  return measured(fileSystem, metrics.operations, {
    except: ["init", "destroy", "forget"],
    withBytes: ["read", "write", "copyFileRange"],
  });
}
