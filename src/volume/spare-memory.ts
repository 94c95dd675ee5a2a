/**
 * Gives memory back to the machine that this process has needed and needs no longer: what loading and starting took, and
 * what was known of many files that the kernel has forgotten. V8 by itself collects only when something is allocated, so an
 * idle process would keep it for ever. A collection stops everything for as long as what is alive takes: so not where
 * that is much.
 */
import { trimHeap } from "../posix/heap.ts";

/** How the volume process is started: with few and small parts of its own, since there is one for each volume. */
export const volumeProcessFlags: readonly string[] = [
  "--expose-gc",
  "--max-semi-space-size=1", // MiB; the default grows to 3 times 32, and is not given back
  "--v8-pool-size=1", // threads for V8's work in the background
];

/** Dropped nodes that are worth a collection, and how many may be alive then. */
const manyDropped = 50_000;
const fewAlive = 50_000;
const quietMs = 3000;

export class SpareMemory {
  readonly #giveBack: () => void;
  #dropped = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(giveBack: () => void = collectAndTrim) {
    this.#giveBack = giveBack;
  }

  /** A node was dropped, and so many are left. */
  dropped(alive: number): void {
    this.#dropped++;
    if (this.#dropped < manyDropped || alive > fewAlive) return;
    this.soon();
  }

  /** In a while, later if this is called again. */
  soon(): void {
    this.#dropped = 0;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#now(), quietMs).unref();
  }

  #now(): void {
    this.#timer = null;
    this.#giveBack();
  }
}

/** The last resort is the only collection that gives empty pages back at once, instead of keeping them in a pool. */
function collectAndTrim(): void {
  const { gc } = globalThis as { gc?: (options: object) => void };
  gc?.({ type: "major", flavor: "last-resort" });
  trimHeap();
}
