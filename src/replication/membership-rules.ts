/**
 * The decisions of `membership.ts`, pure, in names of replicas. The exploration in `test/exploration` walks over them.
 */
import type { MembershipRecord } from "./model.ts";

export interface MembershipView {
  /** As this process sees it now. */
  readonly inSync: readonly string[];
  /** Complete, and to be let in by the next record. */
  readonly joining: string | null;
  /** The last record that is known to be in force. */
  readonly recorded: MembershipRecord;
  /** Another record was begun after it, and some voters may carry that. */
  readonly inDoubt: boolean;
  readonly minInSync: number;
}

export type RecordingDecision =
  /** The record says what is. */
  | { readonly kind: "settled" }
  /** Too few: they are not recorded, and nothing is acknowledged. */
  | { readonly kind: "below-minimum" }
  | { readonly kind: "record"; readonly members: readonly string[]; readonly newcomer: string | null };

/** Who stays when these leave. The last one always does: there would be nothing left to read. */
export function afterExpulsion<T>(inSync: readonly T[], leaving: readonly T[]): readonly T[] {
  const staying = inSync.filter((replica) => !leaving.includes(replica));
  return staying.length > 0 ? staying : inSync.slice(0, 1);
}

/**
 * What has to be recorded now. Below `minInSync` an expulsion is not recorded: those who leave have everything that was
 * ever acknowledged, and must stay usable by a later mount. A replica that is still on record, for this reason, is no
 * newcomer when it returns.
 */
export function decideRecording({ inSync, joining, recorded, inDoubt, minInSync }: MembershipView): RecordingDecision {
  const members = joining === null ? inSync : [...inSync, joining];
  if (members.length < minInSync) return { kind: "below-minimum" };
  const same = members.length === recorded.members.length && members.every((name) => recorded.members.includes(name));
  if (same && !inDoubt && joining === null) return { kind: "settled" };
  const known = joining !== null && !inDoubt && recorded.members.includes(joining);
  return { kind: "record", members, newcomer: known ? null : joining };
}

/** The set after a record came into force that was asked for with `joining`. */
export function afterRecord(
  inSync: readonly string[],
  joining: string | null,
  record: MembershipRecord,
): readonly string[] {
  const staying = inSync.filter((name) => record.members.includes(name));
  return joining !== null && record.members.includes(joining) ? [...staying, joining] : staying;
}
