/**
 * From which in-sync replica a file's data are read.
 *
 * - Sticky: a file keeps its reader while that is in sync and works, so that caches stay warm.
 * - `RoundRobin` hands readers out in turn as files are first read. `Nearest` does so among the nearest replicas.
 *   `LowestLatency` takes the one that has answered fastest of late, changes only where another is faster by half, and
 *   now and then lets another file read elsewhere, so that what it knows of the others does not grow old.
 * - Slow replicas (`readPriority`, `--replica-slow`) are read only when all others are out.
 */
import type { ReadPolicy } from "./model.ts";

export interface ReadChoiceOptions {
  readonly policy: ReadPolicy;
  /** By index; grows with the configuration. */
  readonly replicas: readonly {
    readonly slow: boolean /** 0: this machine; the greater, the farther. */;
    readonly distance: number;
  }[];
}

/** What has a reader: an open file. */
export interface Reading {
  /** -1 until chosen. */
  reader: number;
}

const SMOOTHING = 1 / 16;
const FASTER_BY = 0.5;
const EXPLORE_ONE_IN = 64;

export class ReadChoice {
  readonly #options: ReadChoiceOptions;
  #inSync: readonly number[] | null = null;
  /** Whom the policy may choose while nobody has failed, and the same as bits. */
  #candidates: readonly number[] = [];
  #candidateBits = 0;
  #turn = 0;
  /** Smoothed, in µs; NaN until measured. */
  readonly #latency: number[] = [];

  constructor(options: ReadChoiceOptions) {
    this.#options = options;
  }

  /** `failed`: bits of replicas that have just failed at this read. -1 if nobody is left. Sets `file.reader`. */
  choose(file: Reading, inSync: readonly number[], failed: number): number {
    if (inSync !== this.#inSync) this.#learn(inSync);
    const { reader } = file;
    if (failed === 0) {
      if (reader >= 0 && (this.#candidateBits & (1 << reader)) !== 0) {
        if (this.#options.policy !== "LowestLatency") return reader;
        const best = this.#fastest(this.#candidates);
        if (best === reader || !this.#isFaster(best, reader)) return reader;
        file.reader = best;
        return best;
      }
      file.reader = this.#pick(this.#candidates);
      return file.reader;
    }
    const left = inSync.filter((replica) => (failed & (1 << replica)) === 0);
    file.reader = this.#pick(this.#eligible(left));
    return file.reader;
  }

  /** A read took so long. Only `LowestLatency` needs to be told. */
  observe(replica: number, microseconds: number): void {
    const before = this.#latency[replica] ?? Number.NaN;
    this.#latency[replica] = Number.isNaN(before) ? microseconds : before + (microseconds - before) * SMOOTHING;
  }

  #learn(inSync: readonly number[]): void {
    this.#inSync = inSync;
    this.#candidates = this.#eligible(inSync);
    this.#candidateBits = this.#candidates.reduce((bits, replica) => bits | (1 << replica), 0);
  }

  #eligible(from: readonly number[]): readonly number[] {
    const { policy, replicas } = this.#options;
    const fast = from.filter((replica) => replicas[replica]?.slow !== true);
    const among = fast.length > 0 ? fast : from;
    if (policy !== "Nearest") return among;
    const distanceOf = (replica: number): number => replicas[replica]?.distance ?? 0;
    const nearest = Math.min(...among.map(distanceOf));
    return among.filter((replica) => distanceOf(replica) === nearest);
  }

  #pick(among: readonly number[]): number {
    if (among.length === 0) return -1;
    const turn = this.#turn++;
    const next = among[turn % among.length] as number;
    if (this.#options.policy !== "LowestLatency" || turn % EXPLORE_ONE_IN === 0) return next;
    return among.find((replica) => this.#latency[replica] === undefined) ?? this.#fastest(among);
  }

  #fastest(among: readonly number[]): number {
    let best = among[0] as number;
    for (const replica of among) {
      if ((this.#latency[replica] ?? Number.POSITIVE_INFINITY) < (this.#latency[best] ?? Number.POSITIVE_INFINITY)) {
        best = replica;
      }
    }
    return best;
  }

  #isFaster(replica: number, than: number): boolean {
    const one = this.#latency[replica];
    const other = this.#latency[than];
    return one !== undefined && other !== undefined && one < other * FASTER_BY;
  }
}
