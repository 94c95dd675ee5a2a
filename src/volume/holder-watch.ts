/**
 * Is the volume process still able to answer? The holder looks once in a while at the status page and at what /proc
 * says, and `decideWatch` (pure) tells whether the process has to be replaced.
 *
 * A process is stuck when one of these lasts as long as the deadline: it is at work, and its loop has not
 * moved; or it was stopped (SIGSTOP). And it is gone, though its parent has not been told, when
 * SIGKILL is pending or its main thread is a zombie: a thread of it hangs in the kernel. (A process to which SIGKILL was
 * delivered never sees user mode again.)
 */
import { readFileSync } from "node:fs";
import { replicasInCall, type StatePage } from "./state-page.ts";

export interface ProcessState {
  /** As in /proc: R, S, D, T (stopped), t (traced), Z, X. */
  readonly state: string;
  readonly killPending: boolean;
}

/** null if there is no such process. */
export function readProcessState(pid: number): ProcessState | null {
  try {
    return parseProcessState(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return null;
  }
}

export function parseProcessState(status: string): ProcessState {
  const pending = [...status.matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)].map((match) => BigInt(`0x${match[1]}`));
  return {
    state: /^State:\s*(\S)/m.exec(status)?.[1] ?? "?",
    killPending: pending.some((signals) => (signals & 0x100n) !== 0n), // bit 8: SIGKILL (9)
  };
}

/** What was seen last, and since when it has not moved. */
export interface Watch {
  readonly turns: number;
  readonly stopped: boolean;
  readonly sinceMs: number;
}

export type WatchVerdict =
  | { readonly kind: "well"; readonly watch: Watch | null }
  | { readonly kind: "replace"; readonly reason: string; readonly avoid: readonly number[] };

export function decideWatch(
  before: Watch | null,
  process: ProcessState | null,
  page: StatePage | null,
  nowMs: number,
  deadlineMs: number,
): WatchVerdict {
  if (process === null) return { kind: "well", watch: null }; // has ended: the exit event says so
  if (process.state === "Z" || process.killPending) {
    const avoid = replicasInCall(page);
    // Without a call in flight it ends by itself right away.
    return avoid.length === 0
      ? { kind: "well", watch: null }
      : { kind: "replace", reason: "was killed and a call of it hangs in the kernel", avoid };
  }
  const stopped = process.state === "T";
  if (!stopped && page?.working !== true) return { kind: "well", watch: null };
  const turns = page?.turns ?? 0;
  if (before === null || before.turns !== turns || before.stopped !== stopped) {
    return { kind: "well", watch: { turns, stopped, sinceMs: nowMs } };
  }
  if (nowMs - before.sinceMs < deadlineMs) return { kind: "well", watch: before };
  const avoid = replicasInCall(page);
  if (stopped) return { kind: "replace", reason: "was stopped by a signal", avoid };
  return {
    kind: "replace",
    reason: page?.callReplica === null ? "makes no progress" : "hangs in a replica's call",
    avoid,
  };
}
