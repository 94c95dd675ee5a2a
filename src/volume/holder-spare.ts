/**
 * A second volume process, loaded and waiting, that takes over at once when the first one dies: what it saves is the
 * time that a process takes to start, which is most of the pause that applications see. It costs its memory.
 */
import type { Logger } from "../util/logger.ts";
import type { VolumeProcess } from "./holder-child.ts";

const PAUSE_AFTER_DEATH_MS = 30_000;

export interface SpareDeps {
  readonly start: () => VolumeProcess;
  /** Asked when it is time to start one. */
  readonly isWanted: () => boolean;
  readonly log: Logger;
}

export class Spare {
  readonly #deps: SpareDeps;
  #process: VolumeProcess | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(deps: SpareDeps) {
    this.#deps = deps;
  }

  /** Starts one in a while, so that it does not compete with what has just been started. */
  prepareIn(delayMs: number): void {
    this.#stop();
    if (this.#process !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#process === null && this.#deps.isWanted()) this.keep(this.#deps.start());
    }, delayMs);
  }

  keep(process: VolumeProcess): void {
    this.#process = process;
    process.handle({
      message: () => {},
      exit: (code, signal) => {
        if (this.#process !== process) return;
        this.#process = null;
        this.#deps.log.warn("The spare process ended", { code, signal });
        this.prepareIn(PAUSE_AFTER_DEATH_MS);
      },
    });
  }

  /** It is the caller's now; null if there is none. */
  take(): VolumeProcess | null {
    const process = this.#process;
    this.#process = null;
    return process?.exited === false ? process : null;
  }

  /** Ends it, and starts none. */
  drop(): void {
    this.#stop();
    const process = this.#process;
    this.#process = null;
    process?.kill();
  }

  #stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
