/**
 * How a volume goes from one process to the next where its membership is one record that is changed by compare-and-swap
 * (on Kubernetes the ReplicatedVolume's status), pure. `test/exploration` walks through every interleaving of two nodes
 * over this very code.
 *
 * - A node first becomes the holder on record, then a process of it claims the record: the next term, with the members
 *   that it reaches. Whoever is missing cannot be shut out of there, and leaves at once.
 * - Then it makes a session with every member, which ends everybody else's; who refuses leaves. Then it asks whether the
 *   record is still its own, and only then changes anything.
 * - A record is a process's own if node, mount and term are: nobody else writes into a term. Whoever finds another one
 *   has lost the volume, and stops without acknowledging anything.
 * - A session that the server ended is made anew only between two such questions.
 */
import type { AbsentReplica, MembershipRecord } from "./model.ts";

export interface StatusRecord extends MembershipRecord {
  readonly volumeId: string;
  /** The mount whose processes may change the record; another one takes a new term under its own name. */
  readonly mount: string;
  /** Unmounted in order since: the members are alike. */
  readonly clean: boolean;
  /** Every member shuts earlier processes out by itself, so that nobody has to rely on time. */
  readonly fenced: boolean;
}

/** What the arbiter says at one moment. */
export interface Held {
  /** The node that may write. */
  readonly holder: string | null;
  readonly record: StatusRecord | null;
}

export interface Claimant {
  readonly node: string;
  readonly mount: string;
}

export type ClaimDecision =
  | { readonly kind: "take"; readonly record: StatusRecord }
  /** The record is still to be made, from what the replicas themselves carry. */
  | { readonly kind: "no-record" }
  /** Another node, or a later mount, has the volume. */
  | { readonly kind: "lost"; readonly holder: string | null }
  /** None of the members is here. */
  | { readonly kind: "no-member"; readonly missing: readonly string[] };

/** `resumed`: goes on for an earlier process of the same mount. `here`: replicas that answer, and may be used. */
export function decideClaim(
  held: Held,
  claimant: Claimant,
  options: {
    readonly resumed: boolean;
    readonly here: readonly string[];
    readonly fences: (members: readonly string[]) => boolean;
    readonly now: string;
  },
): ClaimDecision {
  const { holder, record } = held;
  if (holder !== claimant.node) return { kind: "lost", holder };
  if (record === null) return { kind: "no-record" };
  if (options.resumed && record.mount !== claimant.mount) return { kind: "lost", holder };
  const members = record.members.filter((member) => options.here.includes(member));
  if (members.length === 0) return { kind: "no-member", missing: record.members };
  const claimed: StatusRecord = {
    ...record,
    mount: claimant.mount,
    term: record.term + 1,
    seq: 0,
    members,
    absent: withAbsent(record, members, options.now),
    clean: false,
    fenced: options.fences(members),
  };
  return { kind: "take", record: claimed };
}

/** Is this record the one of the process with this term? */
export function isOurs({ holder, record }: Held, { node, mount }: Claimant, term: number): boolean {
  return holder === node && record !== null && record.mount === mount && record.term === term;
}

/** Who stays when these could not be shut out; null: nobody, and the volume cannot be served. */
export function staying(members: readonly string[], unfenced: readonly string[]): readonly string[] | null {
  const left = members.filter((member) => !unfenced.includes(member));
  return left.length === 0 ? null : left;
}

/** What is known of those who are no members, when only `members` go on. */
export function withAbsent(
  record: MembershipRecord,
  members: readonly string[],
  now: string,
): readonly AbsentReplica[] {
  const known = record.absent.filter(({ name }) => !members.includes(name));
  const missing = record.members.filter((name) => !members.includes(name));
  return [
    ...known,
    ...missing.map((name): AbsentReplica => ({ name, reason: "NotAtMount", since: now, resumePoint: null })),
  ];
}
