/**
 * Keys to be worked on, after client-go's workqueue: a key is in the queue once however often it is added, is never
 * worked on by two workers at once, and is worked on again if it was added meanwhile. A key whose work failed comes
 * back after a delay that doubles with each failure, until it succeeds.
 */
import type { Logger } from "../util/logger.ts";

export interface WorkQueueOptions {
  readonly workers: number;
  readonly logger: Logger;
  readonly firstRetryMs?: number;
  readonly longestRetryMs?: number;
}
/** Answers after how many milliseconds to work on the key again, or nothing. */
export type Work = (key: string, signal: AbortSignal) => Promise<number | undefined>;

export class WorkQueue {
  readonly #work: Work;
  readonly #options: Required<WorkQueueOptions>;
  readonly #queued = new Set<string>();
  readonly #running = new Set<string>();
  /** Added while it was worked on. */
  readonly #again = new Set<string>();
  readonly #failures = new Map<string, number>();
  readonly #timers = new Map<string, { readonly timer: NodeJS.Timeout; readonly dueMs: number }>();
  readonly #abort = new AbortController();
  /** How often work has failed. */
  failed = 0;
  #active = 0;
  #idle: (() => void) | null = null;
  #started = false;

  constructor(work: Work, options: WorkQueueOptions) {
    this.#work = work;
    this.#options = { firstRetryMs: 50, longestRetryMs: 60_000, ...options };
  }

  add(key: string): void {
    if (this.#abort.signal.aborted) return;
    const waiting = this.#timers.get(key);
    if (waiting) {
      clearTimeout(waiting.timer);
      this.#timers.delete(key);
    }
    if (this.#running.has(key)) this.#again.add(key);
    else this.#queued.add(key);
    this.#pump();
  }

  /** The earlier of two times wins. */
  addAfter(key: string, delayMs: number): void {
    if (this.#abort.signal.aborted) return;
    const dueMs = performance.now() + delayMs;
    const waiting = this.#timers.get(key);
    if (waiting && waiting.dueMs <= dueMs) return;
    if (waiting) clearTimeout(waiting.timer);
    const timer = setTimeout(() => {
      this.#timers.delete(key);
      this.add(key);
    }, delayMs);
    this.#timers.set(key, { timer, dueMs });
  }

  get length(): number {
    return this.#queued.size + this.#running.size;
  }

  start(): void {
    this.#started = true;
    this.#pump();
  }

  /** Begins nothing more, and resolves when what runs has ended. */
  async stop(): Promise<void> {
    this.#abort.abort(new Error("stopping"));
    for (const { timer } of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#queued.clear();
    if (this.#active > 0)
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
  }

  #pump(): void {
    if (!this.#started) return;
    for (const key of this.#queued) {
      if (this.#active >= this.#options.workers || this.#abort.signal.aborted) return;
      this.#queued.delete(key);
      this.#active += 1;
      this.#running.add(key);
      void this.#run(key);
    }
  }

  async #run(key: string): Promise<void> {
    const { logger, firstRetryMs, longestRetryMs } = this.#options;
    let againMs: number | undefined;
    try {
      againMs = await this.#work(key, this.#abort.signal);
      this.#failures.delete(key);
    } catch (error) {
      this.failed += 1;
      const failures = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, failures);
      againMs = Math.min(longestRetryMs, firstRetryMs * 2 ** Math.min(failures - 1, 30));
      if (!this.#abort.signal.aborted) logger.warn("work failed, will try again", { key, error, retryMs: againMs });
    }
    this.#active -= 1;
    this.#running.delete(key);
    if (this.#again.delete(key)) this.add(key);
    else if (againMs !== undefined) this.addAfter(key, againMs);
    if (this.#active === 0) this.#idle?.();
    this.#pump();
  }
}
