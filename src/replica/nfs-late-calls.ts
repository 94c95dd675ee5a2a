/**
 * Changes that were sent to a server without a fence and had no answer. Each may have happened, may still happen, and
 * may do so at any later time, however long the replica has been in sync again. So whoever brings the replica up to date
 *
 * - replaces a file with unanswered writes by a new one (`data`): the late write then meets a stale handle;
 * - compares names (`entry`) and attributes again after a later call on the same server was answered, and once more
 *   some time after that.
 */
import type { LateCall } from "./replica.ts";

export class LateCalls {
  #calls: LateCall[] = [];

  get list(): readonly LateCall[] {
    return this.#calls;
  }

  note(call: LateCall): void {
    if (!this.#calls.some((other) => isSame(other, call))) this.#calls.push(call);
  }

  settle(calls: readonly LateCall[]): void {
    const settled = new Set(calls);
    this.#calls = this.#calls.filter((call) => !settled.has(call));
  }

  clear(): void {
    this.#calls = [];
  }
}

function isSame(a: LateCall, b: LateCall): boolean {
  if (a.kind === "entry") return b.kind === "entry" && a.directory === b.directory && a.name === b.name;
  if (a.kind === "data") return b.kind === "data" && a.object === b.object && a.handle.equals(b.handle);
  return b.kind === "attributes" && a.object === b.object;
}
