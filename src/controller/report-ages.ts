/**
 * How old the nodes' reports are, by a clock that never jumps: what counts is for how long a report has not changed under
 * our eyes, not what a node's clock said, or ours says now. Only what is found at the start is taken by its date.
 */
import type { NodeReport } from "../api/replicated-volume.ts";

interface Seen {
  readonly reportedAt: string;
  /** On the monotonic clock; before the process began, for what was old already. */
  readonly atMs: number;
}

export interface AgeClocks {
  /** Wall clock. */
  readonly nowMs: () => number;
  readonly monotonicMs: () => number;
}

export class ReportAges {
  readonly #clocks: AgeClocks;
  readonly #seen = new Map<string, Map<string, Seen>>();

  constructor(clocks: AgeClocks) {
    this.#clocks = clocks;
  }

  /** The reports as if each had been dated by our clock when it came. `atStart`: nobody has watched until now. */
  dated(volume: string, reports: readonly NodeReport[], atStart: boolean): NodeReport[] {
    const nowMs = this.#clocks.nowMs();
    const monotonicMs = this.#clocks.monotonicMs();
    const before = this.#seen.get(volume);
    const seen = new Map<string, Seen>();
    const dated = reports.map((report) => {
      const { name, reportedAt } = report;
      const earlier = before?.get(name);
      const ageMs = atStart && before === undefined ? Math.max(0, nowMs - Date.parse(reportedAt)) : 0;
      const now = earlier?.reportedAt === reportedAt ? earlier : { reportedAt, atMs: monotonicMs - ageMs };
      seen.set(name, now);
      return { ...report, reportedAt: new Date(nowMs - (monotonicMs - now.atMs)).toISOString() };
    });
    this.#seen.set(volume, seen);
    return dated;
  }

  forget(volume: string): void {
    this.#seen.delete(volume);
  }
}
