/**
 * The membership record as the voters of a standalone volume carry it, and its form on disk.
 *
 * - Records are compared by (term, seq). A record is never changed: each has a file of its own
 *   (`.chiron/membership/<term>.<seq>.json`) and the highest on a voter is the one that the voter carries, so a call that
 *   takes effect late can never put an older record in the place of a newer one.
 * - A record names the voters that it has to be held by: what was given on a command line decides nothing.
 */
import type { ByteString } from "../util/byte-string.ts";
import type { AbsentReplica, LeaveReason, MembershipRecord } from "./model.ts";

export interface Position {
  readonly term: number;
  readonly seq: number;
}

/** `witness`: a path that holds records, and no data. */
export interface Voters {
  readonly replicas: readonly string[];
  readonly witness: string | null;
}

export interface VoterRecord extends MembershipRecord {
  readonly volumeId: string;
  readonly voters: Voters;
  /** The volume was unmounted in order after this: the members are alike. */
  readonly clean: boolean;
  /** Changes when a mount is forced without the voters that it needs. */
  readonly lineage: string;
  /** Earlier lineages, and the last record of each that the forced mount knew. */
  readonly past: readonly (Position & { readonly lineage: string })[];
}

export const RECORD_FORMAT_VERSION = 1;
export const RECORD_MAX_BYTES = 65536;

export function comparePositions(a: Position, b: Position): number {
  return a.term - b.term || a.seq - b.seq;
}

export function bestRecord(records: readonly VoterRecord[]): VoterRecord | null {
  return records.reduce<VoterRecord | null>(
    (best, record) => (best === null || comparePositions(record, best) > 0 ? record : best),
    null,
  );
}

/** Did this record come about beside `best`, so that its members may hold changes that those of `best` never had? */
export function hasDiverged(record: VoterRecord, best: VoterRecord): boolean {
  if (record.lineage === best.lineage) return false;
  const left = best.past.find((past) => past.lineage === record.lineage);
  return left === undefined || comparePositions(record, left) > 0;
}

export function votersOf({ replicas, witness }: Voters): readonly string[] {
  return witness === null ? replicas : [...replicas, witness];
}

export function recordFileName({ term, seq }: Position): ByteString {
  return `${term}.${seq}.json`;
}

/** null for a name that is no record's. */
export function positionOfFile(name: ByteString): Position | null {
  const match = /^(\d{1,15})\.(\d{1,15})\.json$/.exec(name);
  return match === null ? null : { term: Number(match[1]), seq: Number(match[2]) };
}

export function formatRecord(record: VoterRecord): Uint8Array {
  return Buffer.from(`${JSON.stringify({ formatVersion: RECORD_FORMAT_VERSION, ...record }, null, 2)}\n`);
}

/** Throws an Error that says what is wrong. */
export function parseRecord(content: Uint8Array, at: Position): VoterRecord {
  const value = object(JSON.parse(Buffer.from(content).toString("utf8")), "record");
  const version = value["formatVersion"];
  if (version !== RECORD_FORMAT_VERSION) {
    throw new Error(`its format is ${String(version)}, and this version of chiron knows ${RECORD_FORMAT_VERSION}`);
  }
  const record: VoterRecord = {
    volumeId: text(value["volumeId"], "volumeId"),
    term: count(value["term"], "term"),
    seq: count(value["seq"], "seq"),
    members: texts(value["members"], "members"),
    absent: list(value["absent"], "absent").map(absentReplica),
    voters: voters(value["voters"]),
    clean: value["clean"] === true,
    lineage: text(value["lineage"], "lineage"),
    past: list(value["past"], "past").map((entry) => {
      const past = object(entry, "past");
      return {
        lineage: text(past["lineage"], "lineage"),
        term: count(past["term"], "term"),
        seq: count(past["seq"], "seq"),
      };
    }),
  };
  if (comparePositions(record, at) !== 0) throw new Error("its file has another record's name");
  if (!record.members.every((name) => record.voters.replicas.includes(name))) throw new Error("a member is no voter");
  return record;
}

const reasons: Readonly<Record<LeaveReason, true>> = {
  Fault: true,
  Diverged: true,
  Full: true,
  Vanished: true,
  RecordFailed: true,
  NotAtMount: true,
  Disabled: true,
  New: true,
  ResyncFailed: true,
};

function absentReplica(value: unknown): AbsentReplica {
  const absent = object(value, "absent");
  const reason = text(absent["reason"], "reason");
  const resumePoint = absent["resumePoint"];
  return {
    name: text(absent["name"], "name"),
    reason: reason in reasons ? (reason as LeaveReason) : "Fault",
    since: text(absent["since"], "since"),
    resumePoint: typeof resumePoint === "string" ? resumePoint : null,
  };
}

function voters(value: unknown): Voters {
  const { replicas, witness } = object(value, "voters");
  return { replicas: texts(replicas, "replicas"), witness: witness === null ? null : text(witness, "witness") };
}

function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${what} is no object`);
  return value as Record<string, unknown>;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${what} is no list`);
  return value;
}

function texts(value: unknown, what: string): readonly string[] {
  return list(value, what).map((entry) => text(entry, what));
}

function text(value: unknown, what: string): string {
  if (typeof value !== "string" || value === "") throw new Error(`${what} is no text`);
  return value;
}

function count(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw new Error(`${what} is no number`);
  return value;
}
