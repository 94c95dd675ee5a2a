/**
 * Byte ranges of one file, sorted and disjoint, in bounded memory: beyond `maxRanges` the smallest gaps are swallowed,
 * so what is kept always includes what was added, and never is more than needed by much.
 */
const maxRanges = 2048;
const firstGapBytes = 64 * 1024;

export class DirtyRanges {
  /** start, end, start, end, …; the last end may be Infinity. */
  #bounds: number[] = [];
  #gapBytes = 0;

  get isEmpty(): boolean {
    return this.#bounds.length === 0;
  }

  get count(): number {
    return this.#bounds.length / 2;
  }

  /** Bytes in all ranges, of a file of this size. */
  bytes(sizeBytes = Number.POSITIVE_INFINITY): number {
    let total = 0;
    for (let i = 0; i < this.#bounds.length; i += 2) {
      const start = this.#bounds[i] as number;
      const end = Math.min(this.#bounds[i + 1] as number, sizeBytes);
      if (end > start) total += end - start;
    }
    return total;
  }

  add(start: number, end: number): void {
    if (end <= start) return;
    const bounds = this.#bounds;
    // Appending writes and repeated ones are the common cases.
    const last = bounds.length - 2;
    if (last >= 0 && start >= (bounds[last] as number) && start <= (bounds[last + 1] as number) + this.#gapBytes) {
      if (end > (bounds[last + 1] as number)) bounds[last + 1] = end;
      return;
    }
    const from = this.#firstEndingAtOrAfter(start - this.#gapBytes);
    let to = from;
    let low = start;
    let high = end;
    while (to < bounds.length && (bounds[to] as number) <= end + this.#gapBytes) {
      low = Math.min(low, bounds[to] as number);
      high = Math.max(high, bounds[to + 1] as number);
      to += 2;
    }
    bounds.splice(from, to - from, low, high);
    if (bounds.length > 2 * maxRanges) this.#coalesce();
  }

  addAll(other: DirtyRanges): void {
    for (const [start, end] of other.list()) this.add(start, end);
  }

  remove(start: number, end: number): void {
    if (end <= start) return;
    const bounds = this.#bounds;
    const from = this.#firstEndingAtOrAfter(start);
    const kept: number[] = [];
    let to = from;
    while (to < bounds.length && (bounds[to] as number) < end) {
      const low = bounds[to] as number;
      const high = bounds[to + 1] as number;
      if (low < start) kept.push(low, Math.min(high, start));
      if (high > end) kept.push(Math.max(low, end), high);
      to += 2;
    }
    if (to > from) bounds.splice(from, to - from, ...kept);
  }

  intersects(start: number, end: number): boolean {
    const i = this.#firstEndingAtOrAfter(start + 1);
    return i < this.#bounds.length && (this.#bounds[i] as number) < end;
  }

  first(): readonly [start: number, end: number] | null {
    return this.#bounds.length === 0 ? null : [this.#bounds[0] as number, this.#bounds[1] as number];
  }

  list(): [start: number, end: number][] {
    const list: [number, number][] = [];
    for (let i = 0; i < this.#bounds.length; i += 2)
      list.push([this.#bounds[i] as number, this.#bounds[i + 1] as number]);
    return list;
  }

  /** Index of the first range whose end is at or after `position`. */
  #firstEndingAtOrAfter(position: number): number {
    let low = 0;
    let high = this.#bounds.length / 2;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#bounds[2 * middle + 1] as number) < position) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }

  #coalesce(): void {
    const half = maxRanges; // bounds, so half of the ranges
    while (this.#bounds.length > half) {
      this.#gapBytes = Math.max(firstGapBytes, this.#gapBytes * 4);
      const old = this.#bounds;
      const merged: number[] = [];
      for (let i = 0; i < old.length; i += 2) {
        const start = old[i] as number;
        const end = old[i + 1] as number;
        const top = merged.length - 1;
        if (top > 0 && start <= (merged[top] as number) + this.#gapBytes)
          merged[top] = Math.max(merged[top] as number, end);
        else merged.push(start, end);
      }
      this.#bounds = merged;
    }
  }
}
