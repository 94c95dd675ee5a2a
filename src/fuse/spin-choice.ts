/**
 * Whether to look for the next request in a loop or to sleep at once, decided by what each has brought lately.
 *
 * What counts is the gap between the last request of one batch and the first of the next: on an idle machine of several
 * processors a wake-up takes tens of µs and spinning saves it; where server and client share a processor, spinning only
 * keeps the client from asking. So now and then both ways are tried on a few gaps and their medians compared. Trials get
 * rarer while they confirm each other. Pure: the caller tells the time.
 */
const samples = 16;
/** The first gaps after a change of ways are not counted: the scheduler has yet to follow. */
const settling = 8;
const firstInterval = 256;
const lastInterval = 16_384;
/** Spinning costs processor time, so it has to be clearly better. */
const worthIt = 0.8;

type Phase = "steady" | "measuring" | "settling" | "trying";

export class SpinChoice {
  /** What to do at the end of a batch. */
  spins = false;
  #phase: Phase = "measuring";
  #left = samples;
  #interval = firstInterval;
  #drainedAt = -1;
  #usualGap = 0;
  readonly #gaps = new Float64Array(samples);

  /** A batch of requests has ended. */
  drained(nowMs: number): void {
    this.#drainedAt = nowMs;
  }

  /** The first request of the next batch was taken. */
  taken(nowMs: number): void {
    if (this.#drainedAt < 0) return;
    const gap = nowMs - this.#drainedAt;
    this.#drainedAt = -1;
    this.#left--;
    if (this.#phase === "measuring" || this.#phase === "trying") this.#gaps[this.#left] = gap;
    if (this.#left > 0) return;
    switch (this.#phase) {
      case "steady":
        this.#begin("measuring", samples);
        return;
      case "measuring":
        this.#usualGap = this.#median();
        this.spins = !this.spins;
        this.#begin("settling", settling);
        return;
      case "settling":
        this.#begin("trying", samples);
        return;
      case "trying":
        this.#decide(this.#median());
        this.#begin("steady", this.#interval);
    }
  }

  #begin(phase: Phase, gaps: number): void {
    this.#phase = phase;
    this.#left = gaps;
  }

  #decide(triedGap: number): void {
    const spinGap = this.spins ? triedGap : this.#usualGap;
    const sleepGap = this.spins ? this.#usualGap : triedGap;
    const better = spinGap < sleepGap * worthIt;
    const changed = better === this.spins;
    this.spins = better;
    this.#interval = changed ? firstInterval : Math.min(this.#interval * 2, lastInterval);
  }

  #median(): number {
    this.#gaps.sort();
    return this.#gaps[samples / 2] as number;
  }
}
