/**
 * One volume process, as its holder sees it: started with the FUSE device as descriptor 3 and a message channel, warm
 * and idle until `start` (a spare), in a session of its own so that signals to the holder's terminal do not reach it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { FailureError } from "./failure.ts";
import type { CallParams, FromVolume, Method, ToVolume } from "./protocol.ts";
import { volumeProcessFlags } from "./spare-memory.ts";

export interface ProgramOptions {
  /** The program, run by this very Node. */
  readonly program: string;
  readonly fuseFd: number;
  /** Its standard output and error. */
  readonly logFd?: number;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface ChildHandlers {
  message(message: Exclude<FromVolume, { readonly type: "progress" | "result" | "error" }>): void;
  exit(code: number | null, signal: NodeJS.Signals | null): void;
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly onProgress: (progress: unknown) => void;
}

/** The process ended before it answered; another one may be asked. */
export class VolumeProcessGoneError extends Error {
  override readonly name = "VolumeProcessGoneError";
}

export class VolumeProcess {
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  #handlers: ChildHandlers | null = null;
  #nextId = 1;
  #exited = false;

  constructor(options: ProgramOptions) {
    this.#child = spawn(process.execPath, [...volumeProcessFlags, options.program], {
      cwd: "/",
      detached: true,
      stdio: ["ignore", options.logFd ?? 2, options.logFd ?? 2, options.fuseFd, "ipc"],
      env: options.env ?? process.env,
    });
    this.#child.on("error", () => this.#gone(null, null));
    this.#child.on("exit", (code, signal) => this.#gone(code, signal));
    this.#child.on("message", (message) => this.#receive(message as FromVolume));
  }

  /** 0 if it could not even be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get exited(): boolean {
    return this.#exited;
  }

  /** Who is told; a spare has other handlers than the process that serves. */
  handle(handlers: ChildHandlers): void {
    this.#handlers = handlers;
  }

  send(message: ToVolume): void {
    if (this.#child.connected) this.#child.send(message, () => {}); // a dying process is told by its exit
  }

  /** True once it can run no more: it has exited, or SIGKILL was delivered to it (it is our child and not reaped, so the
   *  signal cannot have reached another process). */
  kill(): boolean {
    return this.#exited || this.#child.kill("SIGKILL") || this.#exited;
  }

  /** Rejects with a `FailureError`, or `VolumeProcessGoneError` if the process ends first. */
  call(method: Method, params: CallParams, onProgress: (progress: unknown) => void = () => {}): Promise<unknown> {
    if (this.#exited) return Promise.reject(new VolumeProcessGoneError());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
      this.send({ type: "call", id, method, params });
    });
  }

  #receive(message: FromVolume): void {
    if (message.type !== "progress" && message.type !== "result" && message.type !== "error") {
      this.#handlers?.message(message);
      return;
    }
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    if (message.type === "progress") {
      pending.onProgress(message.progress);
      return;
    }
    this.#pending.delete(message.id);
    if (message.type === "result") pending.resolve(message.value);
    else pending.reject(FailureError.from(message.failure));
  }

  #gone(code: number | null, signal: NodeJS.Signals | null): void {
    if (this.#exited) return;
    this.#exited = true;
    for (const pending of this.#pending.values()) pending.reject(new VolumeProcessGoneError());
    this.#pending.clear();
    this.#handlers?.exit(code, signal);
  }
}
