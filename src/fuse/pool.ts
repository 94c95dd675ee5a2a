/**
 * Things that are made once and used again. What was not needed at any time during a second is let go, down to a few,
 * so a burst costs its buffers once and an idle session keeps almost none.
 */
const trimAfterMs = 1000;

export class Pool<T> {
  readonly #make: () => T;
  readonly #kept: number;
  readonly #free: T[] = [];
  /** The fewest that were free since the last trim: so many were not needed. */
  #fewest = 0;
  #timer: NodeJS.Timeout | null = null;

  /** `kept`: how many stay free for ever. */
  constructor(make: () => T, kept: number) {
    this.#make = make;
    this.#kept = kept;
  }

  get free(): number {
    return this.#free.length;
  }

  take(): T {
    const item = this.#free.pop();
    if (item === undefined) return this.#make();
    this.#fewest = Math.min(this.#fewest, this.#free.length);
    return item;
  }

  give(item: T): void {
    this.#free.push(item);
    if (this.#timer !== null || this.#free.length <= this.#kept) return;
    this.#fewest = this.#free.length;
    this.#timer = setTimeout(() => this.#trim(), trimAfterMs).unref();
  }

  #trim(): void {
    this.#free.length -= Math.max(0, Math.min(this.#fewest, this.#free.length - this.#kept));
    this.#fewest = this.#free.length;
    this.#timer = this.#free.length > this.#kept ? setTimeout(() => this.#trim(), trimAfterMs).unref() : null;
  }
}
