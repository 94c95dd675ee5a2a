/**
 * The event hook: a command of the administrator that is run for each event (`--on-event`), with the event as JSON on
 * its standard input and as CHIRON_* variables. One at a time, in order, each bounded in time, the queue bounded in
 * length; whatever it does, the volume does not wait for it.
 */
import { spawn } from "node:child_process";
import type { Logger } from "../util/logger.ts";
import type { VolumeEvent } from "./protocol.ts";

const MAX_QUEUED = 100;
const TIMEOUT_MS = 60_000;

export interface EventHookOptions {
  readonly mountpoint: string;
  readonly timeoutMs?: number;
}

export class EventHook {
  readonly #command: string;
  readonly #logger: Logger;
  readonly #mountpoint: string;
  readonly #timeoutMs: number;
  readonly #queue: VolumeEvent[] = [];
  #running: Promise<void> | null = null;
  #dropped = 0;

  constructor(command: string, logger: Logger, options: EventHookOptions) {
    this.#command = command;
    this.#logger = logger;
    this.#mountpoint = options.mountpoint;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  }

  emit(event: VolumeEvent): void {
    if (this.#queue.length >= MAX_QUEUED) {
      this.#dropped++;
      return;
    }
    this.#queue.push(event);
    this.#running ??= this.#drain();
  }

  /** Resolves when everything emitted so far has run, at the latest after `timeoutMs`. */
  async settled(timeoutMs: number): Promise<void> {
    if (this.#running === null) return;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#running, timeout]);
    clearTimeout(timer);
  }

  async #drain(): Promise<void> {
    for (let event = this.#queue.shift(); event !== undefined; event = this.#queue.shift()) await this.#run(event);
    if (this.#dropped > 0) this.#logger.warn("Event hook is too slow: events dropped", { events: this.#dropped });
    this.#dropped = 0;
    this.#running = null;
  }

  #run(event: VolumeEvent): Promise<void> {
    return new Promise((resolve) => {
      const child = spawn("/bin/sh", ["-c", this.#command], {
        cwd: "/",
        detached: true, // a process group of its own, so that all of it can be ended
        stdio: ["pipe", "ignore", "pipe"],
        env: {
          ...process.env,
          NODE_COMPILE_CACHE: undefined, // ours
          CHIRON_EVENT: event.event,
          CHIRON_VOLUME: event.volume,
          CHIRON_MOUNTPOINT: this.#mountpoint,
          CHIRON_REPLICA: event.replica ?? "",
          CHIRON_MESSAGE: event.message,
          CHIRON_TIME: event.time,
        },
      });
      let stderr = "";
      const timer = setTimeout(() => {
        this.#logger.warn("Event hook takes too long: killed", { event: event.event, timeoutMs: this.#timeoutMs });
        if (child.pid !== undefined) killGroup(child.pid);
        child.stderr.destroy(); // a grandchild that left the group may keep it open
      }, this.#timeoutMs);
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      child.stderr.on("data", (chunk: Buffer) => {
        if (stderr.length < 2000) stderr += chunk.toString("utf8");
      });
      child.stdin.on("error", () => {}); // a command that does not read its input
      child.stdin.end(`${JSON.stringify(event)}\n`);
      child.on("error", (error) => {
        this.#logger.warn("Event hook cannot be run", { command: this.#command, error });
        done();
      });
      child.on("exit", (code, signal) => {
        if (code !== 0) this.#logger.warn("Event hook failed", { event: event.event, code, signal, stderr });
        done();
      });
    });
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // it has ended in the meantime
  }
}
