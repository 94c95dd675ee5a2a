/**
 * Everything of one mount that lives in the holder's process, put together: the claim in the registry, the holder, its
 * control socket, the event hook and the metrics' address. `runHolder` mounts; `adoptMount` goes on with a mount whose
 * holder died; `takeOver` gets one from a living holder. Each returns when the mount serves.
 */
import { closeSync } from "node:fs";
import { LOCK_EX, LOCK_NB } from "../posix/constants.ts";
import { flock } from "../posix/files.ts";
import type { Logger } from "../util/logger.ts";
import { type CallContext, ControlServer } from "./control-server.ts";
import { EventHook } from "./events.ts";
import { FailureError } from "./failure.ts";
import { Holder, type HolderOptions } from "./holder.ts";
import { type ProgramOptions, VolumeProcess } from "./holder-child.ts";
import { offerMount, receiveMount } from "./holder-handover.ts";
import { MetricsEndpoint } from "./holder-metrics.ts";
import type { MountOperations } from "./holder-mount.ts";
import { readProcessState } from "./holder-watch.ts";
import type { Call, VolumeEvent } from "./protocol.ts";
import {
  claimDirectory,
  controlSocket,
  type HolderConfig,
  type MountRecord,
  readRecord,
  releaseDirectory,
  writeRecord,
} from "./registry.ts";

const STOP_GRACE_MS = 5000;

export interface HolderEnvironment {
  readonly logger: Logger;
  readonly mounts: MountOperations;
  /** How volume processes are started. */
  readonly program: Omit<ProgramOptions, "fuseFd">;
  /** For `mount.json`. */
  readonly version: string;
  readonly canResend: boolean;
  /** As in `HolderDeps`. */
  readonly endsWithProcess?: boolean;
  readonly options?: Partial<HolderOptions>;
}

export interface RunningMount {
  readonly holder: Holder;
  /** Resolves when the mount is over, or another holder has it, and this process has nothing left to do. */
  readonly done: Promise<void>;
}

/** Mounts. Rejects with a `FailureError`, and has then left nothing behind. */
export async function runHolder(config: HolderConfig, environment: HolderEnvironment): Promise<RunningMount> {
  const directory = config.volume.stateDirectory;
  const lockFd = claimDirectory(directory, tryLock, { keep: false });
  if (lockFd === null) {
    throw new FailureError(
      "busy",
      `${config.volume.mountpoint} is already mounted by Chiron: \`chiron status\` shows it`,
    );
  }
  const mount = new Mount(config, environment, lockFd);
  try {
    mount.record("starting", null, config);
    await mount.holder.start();
    await mount.listen();
    return mount;
  } catch (error) {
    await mount.holder.stop(STOP_GRACE_MS);
    await mount.done;
    throw error;
  }
}

/** Goes on with a mount whose holder died; its volume process, `predecessorPid`, still serves it and started us. */
export async function adoptMount(
  directory: string,
  fuseFd: number,
  predecessorPid: number,
  environment: HolderEnvironment,
): Promise<RunningMount> {
  const record = readRecord(directory);
  if (record === null) throw new FailureError("state", `There is no record of a mount in ${directory}`);
  const lockFd = await claimWithin(directory, 10_000);
  await endPredecessor(predecessorPid);
  const mount = new Mount(record.config, environment, lockFd);
  mount.holder.adopt(fuseFd, record.volumeId);
  mount.record("mounted", record.volumeId, record.config);
  await mount.listen();
  mount.holder.emit("volume-process-restarted", "The holder of the mount died; another one goes on");
  return mount;
}

/** Takes a mount over from its living holder, which is mostly an older version of the program. */
export async function takeOver(directory: string, environment: HolderEnvironment): Promise<RunningMount> {
  const received = await receiveMount(controlSocket(directory));
  const prepared = new VolumeProcess({ ...environment.program, fuseFd: received.fuseFd });
  try {
    await received.commit();
  } catch (error) {
    prepared.kill();
    throw error;
  }
  const { record } = received;
  const mount = new Mount(record.config, environment, received.lockFd);
  mount.holder.adopt(received.fuseFd, record.volumeId, prepared);
  mount.record("mounted", record.volumeId, record.config);
  await mount.listen();
  received.done();
  return mount;
}

class Mount implements RunningMount {
  readonly holder: Holder;
  readonly done: Promise<void>;
  readonly #environment: HolderEnvironment;
  readonly #directory: string;
  readonly #lockFd: number;
  readonly #log: Logger;
  readonly #hook: EventHook | null;
  readonly #metrics: MetricsEndpoint | null;
  readonly #startedAt = new Date().toISOString();
  #control: ControlServer;
  #record: MountRecord | null = null;
  #handedOver = false;

  constructor(config: HolderConfig, environment: HolderEnvironment, lockFd: number) {
    const { volume } = config;
    this.#environment = environment;
    this.#directory = volume.stateDirectory;
    this.#lockFd = lockFd;
    this.#log = environment.logger;
    this.#hook = config.onEvent === null ? null : new EventHook(config.onEvent, this.#log, volume);
    this.#control = this.#newControl();
    this.holder = new Holder(
      config,
      {
        logger: this.#log,
        mounts: environment.mounts,
        program: environment.program,
        canResend: environment.canResend,
        endsWithProcess: environment.endsWithProcess ?? false,
        onEvent: (event) => this.#heard(event),
        onState: (state, volumeId, changed) => this.record(state, volumeId, changed),
      },
      environment.options,
    );
    this.#metrics =
      volume.metricsAddress === null ? null : new MetricsEndpoint(volume.metricsAddress, this.holder, this.#log);
    this.done = this.#end();
  }

  record(state: MountRecord["state"], volumeId: string | null, config: HolderConfig): void {
    this.#record = {
      formatVersion: 1,
      holderPid: process.pid,
      volumeProgram: this.#environment.program.program,
      programVersion: this.#environment.version,
      startedAt: this.#startedAt,
      state,
      volumeId,
      config,
    };
    writeRecord(this.#directory, this.#record);
  }

  async listen(): Promise<void> {
    await this.#control.listen(controlSocket(this.#directory));
    await this.#metrics?.listen();
  }

  #newControl(): ControlServer {
    return new ControlServer((call, context) => this.#call(call, context), this.#log);
  }

  async #call(call: Call, context: CallContext): Promise<unknown> {
    switch (call.method) {
      case "ping":
        return { pid: process.pid, version: this.#environment.version, restarts: this.holder.restarts };
      case "unmount":
        return await this.holder.unmount({ lazy: call.params.lazy === true, force: call.params.force === true });
      case "handover":
        return await this.#handOver(call, context);
      case "quiesce":
        throw new FailureError("usage", "Only the holder itself quiesces a volume");
      default:
        return await this.holder.call(call.method, call.params, context);
    }
  }

  async #handOver({ id, params }: Call, context: CallContext): Promise<unknown> {
    if (this.#environment.endsWithProcess) {
      throw new FailureError("usage", "A mount through fuse-native cannot be handed over: unmount, and mount again");
    }
    if (params.step === "offer") {
      if (this.#record === null) throw new FailureError("busy", "Not mounted yet");
      return offerMount(id, context.socket, this.#record, [this.holder.fuseFd, this.#lockFd]);
    }
    if (params.step === "done") {
      this.#handedOver = true;
      this.holder.passOn();
      return null;
    }
    await this.holder.suspend();
    // The successor listens on the same path. This connection stays, and if it ends before "done", all is as before.
    this.#control.stopListening();
    context.signal.addEventListener("abort", () => void this.#takeBack());
    await this.#metrics?.close();
    return null;
  }

  async #takeBack(): Promise<void> {
    if (this.#handedOver) return;
    this.#log.warn("Handover not completed: this holder goes on");
    this.holder.resume();
    this.#control = this.#newControl();
    await this.listen();
  }

  #heard(event: VolumeEvent): void {
    this.#log.info("Event", { event: event.event, replica: event.replica, text: event.message });
    this.#hook?.emit(event);
  }

  async #end(): Promise<void> {
    await Promise.resolve(); // `holder` is set by now
    await this.holder.ended;
    if (!this.#handedOver) releaseDirectory(this.#directory);
    await this.#metrics?.close();
    await this.#control.close();
    await this.#hook?.settled(5000);
    closeSync(this.#lockFd);
  }
}

function tryLock(fd: number): boolean {
  return flock(fd, LOCK_EX | LOCK_NB) === 0;
}

/** The lock of a holder that was killed is free a moment later. */
async function claimWithin(directory: string, timeoutMs: number): Promise<number> {
  for (const end = performance.now() + timeoutMs; ; await sleep(10)) {
    const lockFd = claimDirectory(directory, tryLock, { keep: true });
    if (lockFd !== null) return lockFd;
    if (performance.now() > end) throw new FailureError("busy", `Another holder has ${directory}`);
  }
}

/** Returns when the process can run no more. It is our parent, so its number is still its own as long as we have it. */
async function endPredecessor(pid: number): Promise<void> {
  if (process.ppid === pid) process.kill(pid, "SIGKILL");
  for (;;) {
    const state = readProcessState(pid);
    if (process.ppid !== pid || state === null || state.state === "Z" || state.killPending) return;
    await sleep(1);
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
