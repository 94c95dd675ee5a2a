/**
 * When intents are cleared: a checkpoint while there are any, after a minute, when nothing changes for some seconds, or
 * when there are very many. An idle volume has none, and then nothing runs.
 *
 * Coverage rests on ctimes, which rest on the clock: when that is set back, a new generation begins at once.
 */
import type { Logger } from "../util/logger.ts";
import type { IntentLog } from "./intent-log.ts";

export interface PolicyClock {
  /** Never goes back. */
  readonly monotonicMs: () => number;
  /** What file systems stamp. */
  readonly wallMs: () => number;
  /** Calls once, after about this long; answers how to take that back. Must not keep a process alive. */
  readonly after: (ms: number, call: () => void) => () => void;
}

export const systemClock: PolicyClock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

export interface IntentPolicyOptions {
  readonly clock?: PolicyClock;
  readonly intervalMs?: number;
  readonly idleMs?: number;
  readonly maxRecords?: number;
  /** While a replica is out nothing is cleared; beyond this many records what it lacks is no longer kept on disk. */
  readonly maxRecordsDegraded?: number;
}

export interface IntentPolicyDeps {
  readonly intents: IntentLog;
  /** Grows with every change of the volume; tells an idle one. */
  readonly changes: () => number;
  readonly log: Logger;
}

const tickMs = 1_000;
const setBackMs = 500;

export class IntentPolicy {
  readonly #deps: IntentPolicyDeps;
  readonly #clock: PolicyClock;
  readonly #intervalMs: number;
  readonly #idleMs: number;
  readonly #maxRecords: number;
  readonly #maxRecordsDegraded: number;
  #cancel: (() => void) | null = null;
  #isRunning = false;
  #begunMs = 0;
  #changes = 0;
  #changedMs = 0;
  #skewMs = 0;

  constructor(deps: IntentPolicyDeps, options: IntentPolicyOptions = {}) {
    this.#deps = deps;
    this.#clock = options.clock ?? systemClock;
    this.#intervalMs = options.intervalMs ?? 60_000;
    this.#idleMs = options.idleMs ?? 5_000;
    this.#maxRecords = options.maxRecords ?? 20_000;
    this.#maxRecordsDegraded = options.maxRecordsDegraded ?? 200_000;
  }

  start(): void {
    this.#isRunning = true;
    this.#deps.intents.onBegun = () => this.#begin();
    if (this.#deps.intents.count > 0) this.#begin();
  }

  stop(): void {
    this.#isRunning = false;
    this.#deps.intents.onBegun = () => {};
    this.#cancel?.();
    this.#cancel = null;
  }

  #begin(): void {
    if (!this.#isRunning || this.#cancel !== null) return;
    const now = this.#clock.monotonicMs();
    this.#begunMs = this.#changedMs = now;
    this.#skewMs = this.#clock.wallMs() - now;
    this.#wait();
  }

  #wait(): void {
    this.#cancel = this.#clock.after(tickMs, () => void this.#tick());
  }

  async #tick(): Promise<void> {
    const { intents, log } = this.#deps;
    const now = this.#clock.monotonicMs();
    const skew = this.#clock.wallMs() - now;
    if (skew < this.#skewMs - setBackMs) {
      log.warn("The clock was set back: intents begin anew", { ms: Math.round(this.#skewMs - skew) });
      intents.renew();
    }
    this.#skewMs = skew;
    const changes = this.#deps.changes();
    if (changes !== this.#changes) {
      this.#changes = changes;
      this.#changedMs = now;
    }
    if (this.#isDue(now)) {
      try {
        const evenDegraded = intents.count > this.#maxRecordsDegraded;
        await intents.checkpoint({ evenDegraded });
      } catch (error) {
        log.error("Intents could not be cleared; that is tried again", { error });
      }
      this.#begunMs = this.#clock.monotonicMs(); // also where a replica is out: not at every tick
    }
    this.#cancel = null;
    if (this.#isRunning && intents.count > 0) this.#wait();
  }

  #isDue(nowMs: number): boolean {
    const { count } = this.#deps.intents;
    if (nowMs - this.#begunMs >= this.#intervalMs || count > this.#maxRecordsDegraded) return true;
    return nowMs - this.#changedMs >= this.#idleMs || count > this.#maxRecords;
  }
}
