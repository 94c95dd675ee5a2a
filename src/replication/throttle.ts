/**
 * Keeps background work in its place: no more bytes a second than allowed, and never long on the loop at a stretch,
 * since the volume's requests wait meanwhile. While requests keep coming, each short stretch is followed by a pause of
 * several times its length: a request meets one seldom, and waits for one at most, since what an application does is
 * several requests one after the other, each of which would else wait for a stretch.
 */
import { setTimeout as sleep } from "node:timers/promises";

export interface ThrottleOptions {
  /** null: as fast as it goes. */
  readonly bytesPerSecond?: number | null;
  /** How long work may hold the loop before others get a turn. */
  readonly sliceMs?: number;
  /** Counts up with each request of an application. */
  readonly requests?: () => number;
  /** A monotonic clock in milliseconds, and a sleep; for tests. */
  readonly nowMs?: () => number;
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** As short as a timer can be. */
const busyPauseMs = 1;

export class Throttle {
  bytesPerSecond: number | null;
  readonly #sliceMs: number;
  readonly #nowMs: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #requests: () => number;
  #seenRequests = 0;
  #sliceBegan: number;
  /** When what was taken so far is paid for. */
  #paidAt: number;

  constructor(options: ThrottleOptions = {}) {
    this.bytesPerSecond = options.bytesPerSecond ?? null;
    this.#sliceMs = options.sliceMs ?? 0.2;
    this.#requests = options.requests ?? (() => 0);
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#sleep = options.sleep ?? (async (ms, signal) => await sleep(ms, undefined, { signal }));
    this.#sliceBegan = this.#paidAt = this.#nowMs();
  }

  /** Called between steps, with the bytes that were moved. Throws when the signal says so. */
  async pace(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const now = this.#nowMs();
    if (this.bytesPerSecond !== null && bytes > 0) {
      // A tenth of a second may be saved up.
      this.#paidAt = Math.max(this.#paidAt, now - 100) + (bytes * 1000) / this.bytesPerSecond;
      if (this.#paidAt > now) {
        await this.#sleep(this.#paidAt - now, signal);
        this.#sliceBegan = this.#nowMs();
        return;
      }
    }
    if (now - this.#sliceBegan < this.#sliceMs) return;
    await new Promise((resolve) => setImmediate(resolve));
    const requests = this.#requests();
    if (requests !== this.#seenRequests) await this.#sleep(busyPauseMs, signal);
    this.#seenRequests = requests;
    this.#sliceBegan = this.#nowMs();
    signal.throwIfAborted();
  }
}
