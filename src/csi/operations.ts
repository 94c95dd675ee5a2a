/**
 * One operation per volume at a time. A second one is told ABORTED at once, with what runs and since when, and its
 * caller tries again. A lock is released only when its operation has really ended: an operation that missed its
 * deadline may still have effects.
 */
import { CsiError } from "./status.ts";

interface Running {
  readonly operation: string;
  readonly startedMs: number;
}

export class Operations {
  readonly #running = new Map<string, Running>();
  readonly #nowMs: () => number;
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  /** Throws ABORTED while another operation on this volume runs. */
  acquire(volume: string, operation: string): Disposable {
    const other = this.#running.get(volume);
    if (other) {
      const seconds = Math.round((this.#nowMs() - other.startedMs) / 1000);
      throw new CsiError("ABORTED", `volume "${volume}": ${other.operation} is running since ${seconds} s; try again`);
    }
    this.#running.set(volume, { operation, startedMs: this.#nowMs() });
    return { [Symbol.dispose]: () => void this.#running.delete(volume) };
  }

  get count(): number {
    return this.#running.size;
  }
}
