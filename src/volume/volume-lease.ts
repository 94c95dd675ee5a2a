/**
 * The volume process's lease: renewed again and again; a process that cannot renew it stops changing the volume before
 * another node may think of taking it.
 *
 * - Counted from when the renewal was *asked for*, on a clock that never jumps.
 * - After `holdMs` changes wait. Where only time shuts this process out (`mustEnd`), it ends with the lease, and whatever
 *   it had under way with it; the holder sees to that as well (`onUntil`), should this process be stopped.
 * - Where another node has the lease, the arbiter is asked who has the volume.
 */
import { errorText, type Logger } from "../util/logger.ts";
import type { LeaseTimes } from "./protocol.ts";

export interface VolumeLeaseDeps {
  /** False if another node has the lease. */
  readonly renew: () => Promise<boolean>;
  /** Another node has it: finds out what that means. */
  readonly onTaken: () => void;
  readonly onHold: () => void;
  readonly onLetGo: () => void;
  /** The lease is over, and nothing else shuts this process out. */
  readonly onEnd: () => void;
  /** From now on the process may run until then (`nowMs`); null: for as long as it likes. */
  readonly onUntil: (untilMs: number | null) => void;
  readonly mustEnd: () => boolean;
  readonly nowMs: () => number;
  readonly log: Logger;
}

export class VolumeLease {
  readonly #deps: VolumeLeaseDeps;
  readonly #times: LeaseTimes;
  #renewedMs: number;
  #held = false;
  #asking = false;
  #askedMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | null = null;

  constructor(deps: VolumeLeaseDeps, times: LeaseTimes) {
    this.#deps = deps;
    this.#times = times;
    this.#renewedMs = deps.nowMs();
  }

  /** `renewedMs`: when it was last asked for with success. */
  start(renewedMs: number): void {
    this.#renewedMs = renewedMs;
    this.#tell();
    const everyMs = Math.max(20, Math.min(1_000, this.#times.renewMs / 5));
    this.#timer = setInterval(() => this.#turn(), everyMs);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#deps.onUntil(null);
  }

  #turn(): void {
    const { renewMs, holdMs, leaseMs } = this.#times;
    const now = this.#deps.nowMs();
    const ageMs = now - this.#renewedMs;
    if (ageMs >= leaseMs && this.#deps.mustEnd()) this.#deps.onEnd();
    if (ageMs >= holdMs && !this.#held) {
      this.#held = true;
      this.#deps.log.error("The lease cannot be renewed: changes wait", { ageMs: Math.round(ageMs) });
      this.#deps.onHold();
    }
    // A renewal that failed is tried again soon: the API server may just be restarting.
    const dueMs = ageMs >= renewMs ? renewMs / 5 : renewMs;
    if (!this.#asking && now - Math.max(this.#renewedMs, this.#askedMs) >= dueMs) void this.#ask();
  }

  async #ask(): Promise<void> {
    this.#asking = true;
    const askedMs = this.#deps.nowMs();
    this.#askedMs = askedMs;
    try {
      if (await this.#deps.renew()) this.#renewed(askedMs);
      else this.#deps.onTaken();
    } catch (error) {
      this.#deps.log.warn("The lease was not renewed", { error: errorText(error) });
    } finally {
      this.#asking = false;
    }
  }

  #renewed(askedMs: number): void {
    this.#renewedMs = askedMs;
    this.#tell();
    if (!this.#held || this.#deps.nowMs() - askedMs >= this.#times.holdMs) return;
    this.#held = false;
    this.#deps.log.info("The lease is renewed: changes go on");
    this.#deps.onLetGo();
  }

  #tell(): void {
    this.#deps.onUntil(this.#deps.mustEnd() ? this.#renewedMs + this.#times.leaseMs : null);
  }
}
