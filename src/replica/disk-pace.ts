/**
 * Is it worth asking first whether a name is in memory, before a call on it that waits for the disk if it is not? Asking
 * costs two system calls, and leaving it to the kernel's own threads a hop. So only while something else could go on
 * meanwhile (calls are under way on the disk), and for a while after the disk was slow. Pure: the caller tells the time.
 */
const slowMs = 0.5;
/** So many quick calls in a row make a slow disk a quick one again. */
const quickCalls = 64;

export class DiskPace {
  #doubts = 0;

  get slow(): boolean {
    return this.#doubts > 0;
  }

  /** A call on a name that may have waited for the disk has ended. */
  took(milliseconds: number): void {
    if (milliseconds > slowMs) this.#doubts = quickCalls;
    else if (this.#doubts > 0) this.#doubts--;
  }
}
