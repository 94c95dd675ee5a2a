/**
 * How long something took, counted in a fixed set of buckets by plain additions: recording costs some tens of
 * nanoseconds and no memory, so that it may stand in the way of every request.
 */

/** Upper bounds in microseconds: powers of two from 16 µs to 16 s. */
export const bucketBoundsUs: readonly number[] = Array.from({ length: 21 }, (_, i) => 2 ** (i + 4));

export class LatencyHistogram {
  /** By bucket, not cumulative; the last is for what took longer. */
  readonly counts = new Float64Array(bucketBoundsUs.length + 1);
  sumUs = 0;

  record(microseconds: number): void {
    this.sumUs += microseconds;
    const bucket = microseconds <= 16 ? 0 : 28 - Math.clz32(Math.min(Math.ceil(microseconds) - 1, 0x7fffffff));
    const at = Math.min(bucket, bucketBoundsUs.length);
    this.counts[at] = (this.counts[at] as number) + 1;
  }

  get count(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }
}
