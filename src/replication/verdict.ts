/**
 * What becomes of a change, from what each replica answered. Pure; the engine looks first whether all went well and
 * equally (`sent === membership.inSync`, nothing to settle) and asks here only otherwise.
 *
 * - Only replicas that are in sync *now* count: one that was expelled while the change was under way has no say, and a
 *   change that succeeded only on such replicas has failed.
 * - Those that stay have all done the same: all of them have the change, or none. Who did otherwise is expelled.
 * - Replicas that answered on purpose outvote each other by number; between equal numbers "done" wins, then the leader.
 *   So one replica that was altered behind the back does not drive out the two that agree.
 * - Faults have no vote. If there is nothing else, nobody is expelled: EIO, and the object is suspect.
 * - Different answers of which none is "done" changed nothing, and file systems may differ in them (ENOTEMPTY, EEXIST):
 *   nobody is expelled, the most frequent is given, and the object is suspect.
 * - Never fewer than `minInSync` remain: then the change has failed with EIO, and the volume turns read-only.
 * - No space on some: with `DropReplica` they are expelled. With `FailWrites` the change is refused although some have it,
 *   so it is undone there by making the object like it is on a replica that refused, before the reply; that needs no space
 *   on the full one. (Refusing early, `full-policy.ts`, makes this rare.) No space on all: that errno, and the object
 *   is suspect, because a write may have got further on one than on another.
 * - After a lost quorum nothing is acknowledged; who missed what others did leaves all the same (on record only once
 *   that is possible again), and nobody is blamed for what all failed at.
 */
import {
  E2BIG,
  EACCES,
  EBUSY,
  EDQUOT,
  EEXIST,
  EFBIG,
  EINVAL,
  EIO,
  EISDIR,
  ELOOP,
  EMLINK,
  ENAMETOOLONG,
  ENODATA,
  ENOENT,
  ENOSPC,
  ENOSYS,
  ENOTDIR,
  ENOTEMPTY,
  ENOTTY,
  ENXIO,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
  ERANGE,
  ESPIPE,
  ETXTBSY,
  EXDEV,
} from "../util/errno.ts";
import type { FullPolicy, LeaveReason } from "./model.ts";

/** `answer`: the file system gave it on purpose. `fault`: it could not do its work; every errno that is not known here. */
export type OutcomeClass = "ok" | "answer" | "fault" | "full";

const answers: ReadonlySet<number> = new Set(
  [EPERM, ENOENT, ENXIO, E2BIG, EACCES, EBUSY, EEXIST, EXDEV, ENOTDIR, EISDIR, EINVAL, ENOTTY, ETXTBSY, EFBIG, ESPIPE]
    .concat([EMLINK, ERANGE, ENAMETOOLONG, ENOSYS, ENOTEMPTY, ELOOP, ENODATA, EOVERFLOW, EOPNOTSUPP])
    .map((errno) => -errno),
);

/** Of a result >= 0 or a negative errno. */
export function classify(result: number): OutcomeClass {
  if (result >= 0) return "ok";
  if (answers.has(result)) return "answer";
  return result === -ENOSPC || result === -EDQUOT ? "full" : "fault";
}

/** What the verdict has to know of the membership. */
export interface ChangeView {
  readonly inSync: readonly number[];
  readonly minInSync: number;
  readonly quorumLost: boolean;
}

export interface Expulsion {
  readonly replica: number;
  readonly reason: LeaveReason;
  /** What it answered: a negative errno, or the result that differed. */
  readonly errno: number;
}

interface Outcome {
  /** What to answer once the expulsions are on record. */
  readonly result: number;
  readonly expel: readonly Expulsion[];
  /** The object may differ between replicas that stay: compare it, and make it alike, later. */
  readonly suspect: boolean;
}

export type Verdict = Outcome &
  (
    | { readonly kind: "acknowledge" }
    | { readonly kind: "answer" }
    /** `targets` have done what `source` refused: make the object there like it is on `source`, then answer. If that
     *  cannot be done, expel `targets` as `Diverged`. */
    | { readonly kind: "undo"; readonly source: number; readonly targets: readonly number[] }
    /** Only faults. */
    | { readonly kind: "suspect" }
    /** `expel` leaves fewer than `minInSync`, or the quorum was lost before: the change has failed. The membership
     *  turns the volume read-only, and keeps on record whom it cannot do without. */
    | { readonly kind: "quorum-lost" }
  );

/** A result that was given `count` times, first by the replica at `first`. */
interface Vote {
  readonly result: number;
  readonly first: number;
  count: number;
}

const nobody: readonly Expulsion[] = [];

/**
 * `results[i]` is what replica `sent[i]` answered. With `sameResult` the results >= 0 have to be equal (bytes written);
 * without, they mean nothing to each other (handles).
 */
export function decideChange(
  sent: readonly number[],
  results: readonly number[],
  view: ChangeView,
  fullPolicy: FullPolicy,
  sameResult: boolean,
): Verdict {
  const votes: Vote[] = [];
  let full = -1;
  const counted: number[] = [];
  for (let i = 0; i < sent.length; i++) {
    if (!view.inSync.includes(sent[i] as number)) continue;
    counted.push(i);
    const result = results[i] as number;
    const kind = classify(result);
    if (kind === "full" && full < 0) full = i;
    if (kind === "fault" || kind === "full") continue;
    const vote = votes.find((v) => v.result === result || (!sameResult && result >= 0 && v.result >= 0));
    if (vote === undefined) votes.push({ result, first: i, count: 1 });
    else vote.count++;
  }
  const winner = votes.reduce<Vote | null>((best, vote) => (best === null || beats(vote, best) ? vote : best), null);
  const resultOf = (i: number): number => results[i] as number;
  const agrees = (i: number): boolean =>
    winner !== null && (resultOf(i) === winner.result || (!sameResult && winner.result >= 0 && resultOf(i) >= 0));
  const expelIf = (leaves: (i: number) => boolean): Expulsion[] =>
    counted
      .filter(leaves)
      .map((i) => ({ replica: sent[i] as number, reason: reasonOf(resultOf(i)), errno: resultOf(i) }));
  const enough = (expel: readonly Expulsion[]): boolean => view.inSync.length - expel.length >= view.minInSync;

  if (winner === null) {
    if (full < 0) return { kind: "suspect", result: -EIO, expel: nobody, suspect: true };
    // No space wherever the file system answered at all. The faulty ones leave if they can: they may hang.
    const faulty = expelIf((i) => classify(resultOf(i)) === "fault");
    return { kind: "answer", result: resultOf(full), expel: enough(faulty) ? faulty : nobody, suspect: true };
  }

  const done = votes.some((vote) => vote.result >= 0);
  if (!done) {
    const faulty = expelIf((i) => classify(resultOf(i)) === "fault");
    const expel = enough(faulty) ? faulty : nobody;
    const suspect = counted.some((i) => !agrees(i)) && (votes.length > 1 || full >= 0 || expel !== faulty);
    return { kind: "answer", result: winner.result, expel, suspect };
  }

  if (full >= 0 && winner.result >= 0 && fullPolicy === "FailWrites") {
    const expel = expelIf((i) => !agrees(i) && classify(resultOf(i)) !== "full");
    if (!enough(expel)) return { kind: "quorum-lost", result: -EIO, expel: expelIf((i) => !agrees(i)), suspect: false };
    const targets = counted.filter(agrees).map((i) => sent[i] as number);
    const source = sent[full] as number;
    return { kind: "undo", result: resultOf(full), source, targets, expel, suspect: true };
  }

  const expel = expelIf((i) => !agrees(i));
  if (!enough(expel) || (view.quorumLost && winner.result >= 0)) {
    return { kind: "quorum-lost", result: -EIO, expel, suspect: false };
  }
  const kind = winner.result >= 0 ? "acknowledge" : "answer";
  return { kind, result: winner.result, expel, suspect: false };
}

/** Votes come in the order of the replicas, so between equals the earlier one stays. */
function beats(vote: Vote, best: Vote): boolean {
  return vote.count > best.count || (vote.count === best.count && vote.result >= 0 && best.result < 0);
}

function reasonOf(result: number): LeaveReason {
  const kind = classify(result);
  return kind === "fault" ? "Fault" : kind === "full" ? "Full" : "Diverged";
}
