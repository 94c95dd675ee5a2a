/**
 * The rules by which a standalone volume keeps its membership on its voters, pure: what a mount may go on with, and how
 * one record is brought to the voters. `test/exploration` walks through every interleaving of small worlds over this
 * very code.
 *
 * - Two voters or one: a mount needs everyone whom the best record names. More: a majority of the voters, and a member.
 * - A mount claims a term, greater than any that it sees, on everyone who is here, before it records its members.
 * - A record goes to the members who stay, then, as far as they are needed for a majority, to the witness and to replicas
 *   that are no members, and to a newcomer last. It is in force when all its members hold it and a majority does: of the
 *   voters that it names, and of those that the record before it named.
 * - A member who cannot take the record leaves as well; if anyone fails while a newcomer joins, the newcomer is left out
 *   again. Either way the record is made anew, with the next number, for everyone.
 * - Replicas on which calls of an earlier process may still take effect are not here (`VoterView.quiet`), and neither is a
 *   voter that carries no record: what has forgotten, or is only the place where a witness should be mounted, has no vote.
 * - The successor of a process on the same machine knows who is a member by every record that may be in force
 *   (`certain`). Of two voters, one of these is enough for it: the other one, alone, would ask for it.
 */
import { bestRecord, hasDiverged, type VoterRecord, type Voters, votersOf } from "./arbiter-record.ts";
import type { QuorumLossCause } from "./errors.ts";

/** What one voter shows at a mount. */
export interface VoterView {
  readonly voter: string;
  readonly record: VoterRecord | null;
  /** The highest term claimed here, 0 if none. */
  readonly term: number;
  /** No call of an earlier process can still take effect here. */
  readonly quiet: boolean;
}

export interface MountChoice {
  readonly kind: "mount";
  /** The record that the decision rests on. */
  readonly best: VoterRecord;
  /** To be claimed on all of `here` before anything is recorded. */
  readonly term: number;
  readonly here: readonly string[];
  /** Of the best record, those who are here. */
  readonly members: readonly string[];
  readonly voters: Voters;
  /** The volume was unmounted in order: the members are alike. */
  readonly clean: boolean;
  /** Went on without the voters that the rules ask for: a new lineage begins. */
  readonly forced: boolean;
  /** Here, and not a member: they hold changes that the members never had. Keep what would be overwritten. */
  readonly diverged: readonly string[];
}

export type MountDecision =
  | MountChoice
  /** No voter carries a record: no volume yet. */
  | { readonly kind: "no-record" }
  | {
      readonly kind: "refuse";
      readonly reason: QuorumLossCause;
      readonly best: VoterRecord;
      readonly missing: readonly string[];
      /** Missing, or here but not quiet. */
      readonly busy: readonly string[];
    };

export function majorityOf(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

export interface MountOptions {
  readonly forceDegraded: boolean;
  /** The one that was given for this mount, which may be new, or null. */
  readonly witness: string | null;
  /** For the successor of a process that was just serving: what that was certain of. */
  readonly certain: readonly string[] | null;
}

export function decideMount(views: readonly VoterView[], options: MountOptions): MountDecision {
  const best = bestRecord(views.flatMap((view) => view.record ?? []));
  if (best === null) return { kind: "no-record" };
  const quiet = views.filter((view) => view.quiet);
  const all = votersOf(best.voters);
  const here = all.filter((voter) => quiet.some((view) => view.voter === voter && view.record !== null));
  const members = best.members.filter((member) => here.includes(member));
  const term = Math.max(...views.map((view) => Math.max(view.term, view.record?.term ?? 0))) + 1;
  const { clean } = best;
  const diverged = (among: readonly string[]): string[] =>
    views
      .filter(({ voter, record }) => !among.includes(voter) && record !== null && hasDiverged(record, best))
      .map((view) => view.voter);

  const reason = refusal(best, all.length, here.length, members.length);
  const certain = members.filter((member) => options.certain?.includes(member));
  const goesOn = reason === "member-missing" ? certain : reason === null ? members : [];
  if (goesOn.length > 0) {
    const reachable = quiet.map((view) => view.voter);
    const voters = withWitness(best.voters, options.witness, reachable);
    const added = votersOf(voters).filter((voter) => !here.includes(voter) && reachable.includes(voter));
    const claimed = [...here, ...added];
    const ends = { forced: false, diverged: diverged(goesOn) };
    return { kind: "mount", best, term, here: claimed, members: goesOn, voters, clean, ...ends };
  }
  const survivors = members.length > 0 ? members : newestCopy(views, best, here);
  if (options.forceDegraded && survivors.length > 0) {
    const replicas = best.voters.replicas.filter((name) => here.includes(name));
    const witness = best.voters.witness !== null && here.includes(best.voters.witness) ? best.voters.witness : null;
    const voters = { replicas, witness };
    const ends = { forced: true, diverged: diverged(survivors) };
    return { kind: "mount", best, term, here, members: survivors, voters, clean, ...ends };
  }
  const missing = all.filter((voter) => !here.includes(voter));
  const busy = views.filter((view) => !view.quiet).map((view) => view.voter);
  return { kind: "refuse", reason: reason ?? "no-member", best, missing, busy };
}

/** The witness that was given for this mount becomes a voter once it is here, and is none without being given. */
function withWitness(voters: Voters, given: string | null, quiet: readonly string[]): Voters {
  if (given === voters.witness || (given !== null && !quiet.includes(given))) return voters;
  return { replicas: voters.replicas, witness: given };
}

function refusal(best: VoterRecord, voters: number, here: number, members: number): QuorumLossCause | null {
  if (members === 0) return "no-member";
  if (voters <= 2) return members < best.members.length ? "member-missing" : null;
  return here < majorityOf(voters) ? "no-majority" : null;
}

/** Nobody here is a member: the replica that was one for longest, as far as anyone here knows. */
function newestCopy(views: readonly VoterView[], best: VoterRecord, here: readonly string[]): readonly string[] {
  const copies = views.filter(({ voter }) => here.includes(voter) && best.voters.replicas.includes(voter));
  const own = copies.filter(({ voter, record }) => record?.members.includes(voter));
  const newest = bestRecord((own.length > 0 ? own : copies).flatMap((view) => view.record ?? []));
  const copy = (own.length > 0 ? own : copies).find((view) => view.record === newest);
  return copy === undefined ? [] : [copy.voter];
}

/** A record on its way to the voters. */
export interface Recording {
  readonly record: VoterRecord;
  /** Whose record was in force before: a majority of its voters has to hold the new one as well. */
  readonly before: Voters;
  readonly newcomer: string | null;
  /** Still to be asked, in this order. */
  readonly todo: readonly string[];
  readonly holders: readonly string[];
  /** At a mount a member who fails ends it, and the mount is decided anew without that member. */
  readonly atMount: boolean;
  /** With fewer members there is no record. */
  readonly minMembers: number;
}

export type RecordStep =
  | { readonly kind: "write"; readonly voter: string }
  | { readonly kind: "in-force" }
  | { readonly kind: "failed"; readonly reason: QuorumLossCause };

export function beginRecording(
  record: VoterRecord,
  before: Voters,
  newcomer: string | null,
  options: { readonly atMount: boolean; readonly minMembers: number },
): Recording {
  const { members, voters } = record;
  const staying = members.filter((member) => member !== newcomer);
  const others = voters.replicas.filter((name) => !members.includes(name));
  const leaving = votersOf(before).filter((name) => !votersOf(voters).includes(name));
  const witness = voters.witness === null ? [] : [voters.witness];
  const last = newcomer === null ? [] : [newcomer];
  const todo = [...staying, ...witness, ...others, ...leaving, ...last];
  return { record, before, newcomer, todo, holders: [], ...options };
}

export function nextRecordStep(recording: Recording): RecordStep {
  const { record } = recording;
  if (record.members.length < recording.minMembers) return { kind: "failed", reason: "below-minimum" };
  const voter = firstNeeded(recording);
  if (voter !== undefined) return { kind: "write", voter };
  if (isInForce(recording)) return { kind: "in-force" };
  return { kind: "failed", reason: "no-majority" };
}

/** The voter whom `nextRecordStep` named holds the record now. */
export function recordTaken(recording: Recording, voter: string): Recording {
  const todo = recording.todo.filter((other) => other !== voter);
  return { ...recording, todo, holders: [...recording.holders, voter] };
}

/** The voter did not take it, or nobody knows whether it did. */
export function recordRefused(recording: Recording, voter: string): Recording {
  const { record, before, newcomer, atMount, minMembers } = recording;
  if (!record.members.includes(voter)) return { ...recording, todo: recording.todo.filter((other) => other !== voter) };
  const members = atMount ? [] : record.members.filter((member) => member !== voter && member !== newcomer);
  return beginRecording({ ...record, seq: record.seq + 1, members }, before, null, { atMount, minMembers });
}

/** Members must all hold it, and new voters should; of the others only as many are asked as a majority needs. */
function firstNeeded(recording: Recording): string | undefined {
  const { record, before, todo } = recording;
  const enough = hasMajorities(recording);
  const known = votersOf(before);
  return todo.find((voter) => !enough || record.members.includes(voter) || !known.includes(voter));
}

function isInForce(recording: Recording): boolean {
  const { record, holders } = recording;
  return record.members.every((member) => holders.includes(member)) && hasMajorities(recording);
}

function hasMajorities({ record, before, holders }: Recording): boolean {
  return [record.voters, before].every((voters) => {
    const all = votersOf(voters);
    return all.length <= 2 || all.filter((voter) => holders.includes(voter)).length >= majorityOf(all.length);
  });
}
