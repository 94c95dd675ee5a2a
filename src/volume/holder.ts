/**
 * The holder of one mount: small and long-lived. It holds the FUSE device, mounts it, keeps a volume process serving it,
 * and answers the control socket. Everything else is the volume process's, which may die at any time.
 *
 * - One process serves at a time: a successor is started only when its predecessor can run no more (it has exited, or
 *   SIGKILL was delivered to it), with the replicas named on which a predecessor still has a call.
 * - Until it is told to unmount, or somebody else has unmounted, nothing makes it give up: a process that cannot be
 *   started leaves requests waiting, not failing.
 * - It never touches the mounted tree.
 */
import { MNT_DETACH, UMOUNT_NOFOLLOW } from "../posix/constants.ts";
import type { Logger } from "../util/logger.ts";
import type { CallContext } from "./control-server.ts";
import { FailureError } from "./failure.ts";
import { HolderCalls } from "./holder-calls.ts";
import { type ProgramOptions, VolumeProcess } from "./holder-child.ts";
import type { MountOperations } from "./holder-mount.ts";
import { planRestart } from "./holder-restart.ts";
import { Spare } from "./holder-spare.ts";
import { type MountInUse, type UnmountForm, umountWithin, unmountInOrder } from "./holder-unmount.ts";
import { decideWatch, readProcessState, type Watch } from "./holder-watch.ts";
import type { CallParams, FromVolume, Method, VolumeEvent } from "./protocol.ts";
import type { HolderConfig } from "./registry.ts";
import { monotonicMs, replicasInCall } from "./state-page.ts";
import { StatePageReader } from "./state-page-reader.ts";

const QUIESCE_TIMEOUT_MS = 10_000;
const EXIT_TIMEOUT_MS = 2000;
const SPARE_DELAY_MS = 1000;

export interface HolderDeps {
  readonly logger: Logger;
  readonly mounts: MountOperations;
  /** How a volume process is started on a descriptor. */
  readonly program: Omit<ProgramOptions, "fuseFd">;
  /** The kernel can send requests again (FUSE_NOTIFY_RESEND, Linux 6.9). */
  readonly canResend: boolean;
  /** The volume process itself has mounted, and nothing can go on without it (fuse-native). */
  readonly endsWithProcess?: boolean;
  /** Told of everything that an administrator may want to hear. */
  readonly onEvent: (event: VolumeEvent) => void;
  /** The mount's state on record changes. */
  readonly onState: (state: "mounted" | "detached", volumeId: string | null, config: HolderConfig) => void;
}

export interface HolderOptions {
  /** Keep a second process loaded, to take over at once. */
  readonly spare: boolean;
  /** How long an unmounted volume may take to settle before it is left unclean. */
  readonly settleTimeoutMs: number;
  /** How long the kernel may take to unmount (it writes its cache back first). */
  readonly unmountTimeoutMs: number;
  /** How long a call waits for a process that is being started again. */
  readonly callTimeoutMs: number;
}

const defaults: HolderOptions = {
  spare: true,
  settleTimeoutMs: 60_000,
  unmountTimeoutMs: 60_000,
  callTimeoutMs: 30_000,
};

/** What holds now, changed only by `#enter`. */
type Phase =
  | "starting"
  | "mounted"
  /** Taken out of the tree, or being so; served until the last file is closed. */
  | "unmounting"
  /** Handed over to another holder, or about to be. */
  | "handing-over"
  | "ended";

export class Holder {
  readonly #deps: HolderDeps;
  readonly #options: HolderOptions;
  readonly #log: Logger;
  readonly #ended = Promise.withResolvers<void>();
  readonly #ready = Promise.withResolvers<string>();
  /** Processes that were replaced but are still in the kernel, with the replicas on which they have a call. */
  readonly #lingering = new Map<VolumeProcess, readonly number[]>();
  #config: HolderConfig;
  #phase: Phase = "starting";
  /** `start` has answered. */
  #started = false;
  /** The volume process has said "ended". */
  #settled = false;
  #fuseFd = -1;
  readonly #page = new StatePageReader();
  #volumeId: string | null = null;
  #current: VolumeProcess | null = null;
  #deathsMs: readonly number[] = [];
  #diedAtMs: number | null = null;
  #restarts = 0;
  /** Dead mounts of ours below the one that serves. */
  #covered = 0;
  #watch: Watch | null = null;
  #watchTimer: NodeJS.Timeout | null = null;
  #restartTimer: NodeJS.Timeout | null = null;
  readonly #calls: HolderCalls;
  readonly #spare: Spare | null;

  constructor(config: HolderConfig, deps: HolderDeps, options: Partial<HolderOptions> = {}) {
    this.#config = config;
    this.#deps = deps;
    this.#options = { ...defaults, ...options };
    this.#log = deps.logger;
    this.#calls = new HolderCalls(this.#options.callTimeoutMs);
    const spareDeps = { start: () => this.#newProcess(), isWanted: () => this.#phase === "mounted", log: this.#log };
    this.#spare = this.#options.spare ? new Spare(spareDeps) : null;
    this.#ready.promise.catch(() => {}); // told by `start`; a later failure is logged
  }

  /** Resolves when the mount is over and all is released, or was handed over. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  get config(): HolderConfig {
    return this.#config;
  }

  get fuseFd(): number {
    return this.#fuseFd;
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** Starts the volume process, and mounts once it is ready. Rejects with a `FailureError`; nothing is left then. */
  async start(): Promise<void> {
    if (!this.#deps.canResend && !this.#deps.endsWithProcess) {
      this.#log.warn(
        "This kernel cannot send requests again (that takes Linux 6.9): if the volume process dies, requests in flight fail",
      );
    }
    try {
      this.#fuseFd = this.#deps.mounts.open();
      this.#page.open(this.#config.volume.stateDirectory, { fresh: true });
      this.#launch([]);
      this.#watchTimer = setInterval(() => this.#look(), this.#watchPeriodMs());
      await this.#ready.promise;
      this.#started = true;
    } catch (error) {
      this.#finish();
      throw error;
    }
  }

  /** Goes on with a mount whose earlier holder and volume process can run no more; `prepared` is loaded already. */
  adopt(fuseFd: number, volumeId: string | null, prepared: VolumeProcess | null = null): void {
    this.#fuseFd = fuseFd;
    this.#volumeId = volumeId;
    this.#phase = "mounted";
    this.#started = true;
    this.#page.open(this.#config.volume.stateDirectory, { fresh: false });
    this.#restarts++;
    this.#diedAtMs = performance.now();
    this.#launch(replicasInCall(this.#page.read()), prepared);
    this.#watchTimer = setInterval(() => this.#look(), this.#watchPeriodMs());
  }

  /** A call of the control socket that is the volume process's to answer. */
  call(method: Method, params: CallParams, context: Pick<CallContext, "progress" | "signal">): Promise<unknown> {
    return this.#calls.call(method, params, context);
  }

  /** As `unmountInOrder` has it. */
  async unmount(how: UnmountForm, settleTimeoutMs = this.#options.settleTimeoutMs): Promise<"ended" | "detached"> {
    if (this.#phase !== "mounted" && this.#phase !== "unmounting")
      throw new FailureError("busy", "The mount is about to change hands: try again");
    const mount: MountInUse = {
      mountpoint: this.#config.volume.mountpoint,
      mounts: this.#deps.mounts,
      log: this.#log,
      umount2: (flags) => this.#umount2(flags),
      isOver: () => this.#phase === "ended",
      canSettle: () => !this.#calls.isFailing,
      outOfTree: () => {
        this.#enter("unmounting");
        this.#deps.onState("detached", this.#volumeId, this.#config);
        this.#startNow();
      },
      endsWithin: (timeoutMs) => this.#endsWithin(timeoutMs),
      endNow: () => this.#endNow(),
    };
    return await unmountInOrder(mount, how, settleTimeoutMs);
  }

  /**
   * For a service manager: unmounts in order; if files are still open, takes the mount out of the tree, gives their
   * users `graceMs`, puts everything in order on the replicas, and ends all the same.
   */
  async stop(graceMs: number): Promise<void> {
    if (this.#phase === "ended") return;
    try {
      if (this.#phase === "starting") {
        this.#ready.reject(new FailureError("internal", "Stopped before the volume was mounted"));
        this.#finish();
        return;
      }
      await this.unmount({ lazy: false, force: false }, graceMs);
    } catch (error) {
      this.#log.warn("Stopping while the mount is in use: taken out of the tree", { error });
      await this.#umount2(UMOUNT_NOFOLLOW | MNT_DETACH);
      this.#enter("unmounting");
      if (!(await this.#endsWithin(graceMs))) await this.#endNow();
    }
  }

  /** First half of a handover: no process serves any more; the caller passes the mount on, or calls `resume`. */
  async suspend(): Promise<readonly number[]> {
    if (this.#phase !== "mounted")
      throw new FailureError("busy", "The mount is not in a state to be handed over: try again");
    this.#enter("handing-over");
    this.#clearTimers();
    this.#calls.serveBy(null);
    this.#spare?.drop();
    const current = this.#current;
    current?.kill();
    if (current !== null) await this.#gone(current);
    return replicasInCall(this.#page.read());
  }

  /** The handover did not come about: serve again. */
  resume(): void {
    if (this.#phase !== "handing-over") return;
    this.#enter("mounted");
    this.#launch([...this.#avoided()]);
    this.#watchTimer = setInterval(() => this.#look(), this.#watchPeriodMs());
  }

  /** The mount has another holder now: end without touching it. */
  passOn(): void {
    if (this.#phase === "handing-over") this.#finish();
  }

  emit(event: VolumeEvent["event"], message: string, replica: string | null = null): void {
    this.#deps.onEvent({ time: new Date().toISOString(), volume: this.#config.volume.volume, event, replica, message });
  }

  // — The volume process —

  #newProcess(): VolumeProcess {
    return new VolumeProcess({ ...this.#deps.program, fuseFd: this.#fuseFd });
  }

  #launch(avoid: readonly number[], prepared: VolumeProcess | null = null): void {
    const process = prepared ?? this.#spare?.take() ?? this.#newProcess();
    this.#current = process;
    this.#calls.serveBy(null);
    this.#watch = null;
    process.handle({
      message: (message) => this.#heard(process, message),
      exit: (code, signal) => this.#exited(process, code, signal),
    });
    if (process.exited) {
      queueMicrotask(() => this.#exited(process, null, null));
      return;
    }
    const names = [...new Set([...avoid, ...this.#avoided()])].flatMap((index) => {
      const replica = this.#config.volume.replicas[index];
      return replica === undefined ? [] : [replica.name];
    });
    process.send({ type: "start", config: this.#config.volume, resumed: this.#isMounted(), avoid: names });
  }

  /** Without waiting for the end of a back-off. */
  #startNow(): void {
    if (this.#restartTimer === null) return;
    clearTimeout(this.#restartTimer);
    this.#restartTimer = null;
    this.#launch([]);
  }

  #avoided(): Set<number> {
    return new Set([...this.#lingering.values()].flat());
  }

  #isMounted(): boolean {
    return this.#phase !== "starting";
  }

  #heard(process: VolumeProcess, message: Parameters<Parameters<VolumeProcess["handle"]>[0]["message"]>[0]): void {
    if (process !== this.#current) return;
    switch (message.type) {
      case "ready":
        this.#becameReady(process, message.volumeId);
        break;
      case "failed":
        this.#failed(process, message);
        break;
      case "event":
        this.#deps.onEvent(message.event);
        break;
      case "reconfigured":
        {
          const { replicas, capacityBytes } = message;
          this.#config = { ...this.#config, volume: { ...this.#config.volume, replicas, capacityBytes } };
        }
        this.#deps.onState(this.#phase === "unmounting" ? "detached" : "mounted", this.#volumeId, this.#config);
        break;
      case "ended":
        // Its descriptors on the replicas are closed when it has exited, so that they can be unmounted in their turn.
        this.#log.info("Unmounted");
        this.#settled = true;
        setTimeout(() => this.#finish(), EXIT_TIMEOUT_MS).unref();
        break;
    }
  }

  #becameReady(process: VolumeProcess, volumeId: string): void {
    this.#volumeId = volumeId;
    if (this.#phase === "starting") {
      try {
        this.#deps.mounts.mount(this.#fuseFd, {
          source: this.#config.source,
          mountpoint: this.#config.volume.mountpoint,
          options: this.#config.volume.options,
        });
      } catch (error) {
        this.#ready.reject(error);
        if (this.#started) this.#log.error("Cannot mount again", { error });
        process.kill();
        return;
      }
      process.send({ type: "mounted" });
      this.#enter("mounted");
      this.#deps.onState("mounted", volumeId, this.#config);
      this.emit("mounted", `${this.#config.volume.volume} is mounted on ${this.#config.volume.mountpoint}`);
      this.#ready.resolve(volumeId);
    } else {
      const pauseMs = this.#diedAtMs === null ? null : Math.round(performance.now() - this.#diedAtMs);
      this.#log.info("Volume process serves again", { pid: process.pid, pauseMs });
    }
    this.#diedAtMs = null;
    this.#calls.serveBy(process);
    this.#spare?.prepareIn(SPARE_DELAY_MS);
  }

  #failed(process: VolumeProcess, { failure }: Extract<FromVolume, { readonly type: "failed" }>): void {
    if (!this.#started) {
      this.#ready.reject(FailureError.from(failure));
      return;
    }
    if (failure.code === "lost") {
      this.#lost(failure.message);
      return;
    }
    // It could not go on from its predecessor. Its exit, if not already under way, counts as a death.
    this.#log.error("Volume process could not go on", { failure });
    this.#calls.failing(failure);
    process.kill();
  }

  /** Another node has the volume. Who uses this mount gets errors instead of waiting for ever; nothing serves it again. */
  #lost(message: string): void {
    this.#log.error("The mount is dead: another node has taken the volume over", { message });
    this.emit("volume-lost", message);
    this.#spare?.drop();
    try {
      this.#deps.mounts.abort(this.#config.volume.mountpoint);
    } catch (error) {
      this.#log.error("The mount cannot be ended", { error });
    }
    this.#finish();
  }

  #exited(process: VolumeProcess, code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#lingering.delete(process)) {
      this.#log.info("An earlier volume process has ended at last", { pid: process.pid });
      return;
    }
    if (process !== this.#current || this.#phase === "ended" || this.#phase === "handing-over") return;
    if (this.#settled) {
      this.#finish();
      return;
    }
    if (!this.#started && signal !== "SIGKILL") {
      this.#ready.reject(
        new FailureError(
          "internal",
          `The volume process ended at its start (${signal ?? `code ${code}`}): see the log`,
        ),
      );
      return;
    }
    // What it was in the middle of when it was killed has ended: it exits only when its last thread has left the kernel.
    this.#replace({ reason: "died", code, signal, pid: process.pid }, []);
  }

  /** The current process can run no more: the next one. */
  #replace(facts: { readonly reason: string; readonly [fact: string]: unknown }, avoid: readonly number[]): void {
    this.#current = null;
    this.#calls.serveBy(null);
    this.#diedAtMs ??= performance.now();
    this.#restarts++;
    const plan = planRestart(this.#deathsMs, performance.now());
    this.#deathsMs = plan.deathsMs;
    const { reason, ...fields } = facts;
    if (this.#deps.endsWithProcess) {
      this.#log.error("The volume process has ended, and the mount with it", { reason, ...fields });
      this.emit("volume-process-failing", `The volume process ${reason}, and the mount with it: mount it again`);
      void this.#umount2(MNT_DETACH | UMOUNT_NOFOLLOW).finally(() => this.#finish());
      return;
    }
    this.#log.warn("Volume process is started again", { reason, ...fields, avoid, delayMs: plan.delayMs });
    this.emit("volume-process-restarted", `The volume process ${reason} and is started again`);
    if (plan.report) {
      this.#log.error("Volume process died five times in a minute: started again ever more slowly, requests wait");
      this.emit("volume-process-failing", "The volume process died five times in a minute; requests wait. See the log");
    }
    if (!this.#deps.canResend && this.#isMounted()) {
      this.#mountAfresh();
    } else if (plan.delayMs === 0) this.#launch(avoid);
    else {
      this.#restartTimer = setTimeout(() => {
        this.#restartTimer = null;
        this.#launch(avoid);
      }, plan.delayMs);
    }
  }

  /**
   * Without resend nobody will ever answer the requests that the dead process had read. The connection is ended, which
   * gives them an error, and the volume mounted afresh, on top of the dead mount: taking that away first would let
   * applications write to what lies below. Files that were open are lost to their applications.
   */
  #mountAfresh(): void {
    this.#log.error("Requests in flight fail: this kernel cannot send them again");
    this.#spare?.drop();
    try {
      this.#deps.mounts.abort(this.#config.volume.mountpoint);
      this.#deps.mounts.close(this.#fuseFd);
      this.#fuseFd = -1;
      if (this.#phase === "unmounting") {
        this.#finish();
        return;
      }
      this.#enter("starting");
      this.#covered++;
      this.#fuseFd = this.#deps.mounts.open();
      this.#launch([]);
    } catch (error) {
      this.#log.error("Cannot mount again", { error });
      this.#finish();
    }
  }

  // — Watching it —

  #watchPeriodMs(): number {
    return Math.max(20, Math.min(1000, this.#config.volume.deadlineMs / 10));
  }

  #look(): void {
    const process = this.#current;
    if (process === null || process.exited || process.pid === 0) return;
    const page = this.#page.read();
    const own = page?.pid === process.pid ? page : null; // a process that has just started has not attached yet
    const until = own?.runUntilMs ?? 0;
    if (until > 0 && monotonicMs() > until && process.kill()) {
      this.#lingering.set(process, []);
      this.#replace({ reason: "had no lease", pid: process.pid }, []);
      return;
    }
    const now = performance.now();
    // The application is to wait for one deadline at most, so the last look comes before it is over.
    const deadlineMs = this.#config.volume.deadlineMs - 2 * this.#watchPeriodMs();
    const verdict = decideWatch(this.#watch, readProcessState(process.pid), own, now, deadlineMs);
    if (verdict.kind === "well") {
      this.#watch = verdict.watch;
      return;
    }
    if (!process.kill()) return; // has just ended: its exit event follows
    this.#lingering.set(process, verdict.avoid);
    this.#replace(
      { reason: verdict.reason, pid: process.pid, opcode: own?.opcode, unique: own?.unique },
      verdict.avoid,
    );
  }

  // — Ends —

  #umount2(flags: number): Promise<number> {
    const { mountpoint } = this.#config.volume;
    return umountWithin(this.#deps.mounts, mountpoint, flags, this.#options.unmountTimeoutMs);
  }

  /** Whether the volume process has said "ended" (unmounted, settled, released) by then. */
  #endsWithin(timeoutMs: number): Promise<boolean> {
    return Promise.race([this.#ended.promise.then(() => true), sleep(timeoutMs).then(() => false)]);
  }

  /** Puts everything in order on the replicas as far as that works quickly, and ends; open files get errors. */
  async #endNow(): Promise<void> {
    const quiet = this.#current?.call("quiesce", {}).catch(() => {});
    await Promise.race([quiet, sleep(QUIESCE_TIMEOUT_MS)]);
    const current = this.#current;
    this.#settled = true; // its exit is not a death any more
    current?.kill();
    if (current !== null) await this.#gone(current);
    this.#finish();
  }

  #kill(): void {
    this.#current?.kill();
    this.#spare?.drop();
  }

  async #gone(process: VolumeProcess): Promise<void> {
    const end = performance.now() + EXIT_TIMEOUT_MS;
    while (!process.exited && performance.now() < end) await sleep(1);
    if (!process.exited) this.#lingering.set(process, replicasInCall(this.#page.read()));
  }

  #enter(phase: Phase): void {
    this.#phase = phase;
  }

  #clearTimers(): void {
    if (this.#watchTimer !== null) clearInterval(this.#watchTimer);
    if (this.#restartTimer !== null) clearTimeout(this.#restartTimer);
    this.#watchTimer = null;
    this.#restartTimer = null;
  }

  #finish(): void {
    if (this.#phase === "ended") return;
    const handedOver = this.#phase === "handing-over";
    const wasMounted = this.#isMounted() && !handedOver;
    this.#enter("ended");
    this.#clearTimers();
    this.#kill();
    this.#page.close();
    if (this.#fuseFd >= 0) this.#deps.mounts.close(this.#fuseFd);
    this.#fuseFd = -1;
    for (; this.#covered > 0 && !handedOver; this.#covered--) {
      void this.#deps.mounts.unmount(this.#config.volume.mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    if (wasMounted) this.emit("unmounted", `${this.#config.volume.volume} is no longer mounted`);
    this.#calls.end();
    this.#ended.resolve();
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
