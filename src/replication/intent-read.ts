/**
 * The intents that a replica carries, read back after a stop. They were written by us but are not trusted: whatever is
 * not as it should be is reported as damage, never an exception.
 */
import type { DirectoryEntries, Replica, TimeSpec } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, ENOENT } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import {
  type ControlPlace,
  generationOf,
  generationPlace,
  intentsPlace,
  type Mark,
  markName,
  markOf,
  SPARE,
  sparePlace,
} from "./intent-places.ts";
import { decodeIntent, type IntentRecord } from "./intent-record.ts";

export interface ReadIntents {
  /** In the order in which they were made. */
  readonly records: readonly IntentRecord[];
  readonly generations: readonly number[];
  /** The replica's own times when the generations began. */
  readonly begun: ReadonlyMap<number, TimeSpec>;
  /** The highest marks, 0 where there is none (see `intent-places.ts`). */
  readonly alike: number;
  readonly joined: number;
  /** Something there could not be read: the list may not be complete. */
  readonly damage: string | null;
}

/** Damaged beyond use: more than anybody writes. */
const maxRecords = 2_000_000;

export async function readIntents(replica: Replica): Promise<ReadIntents> {
  const generations: number[] = [];
  const records: IntentRecord[] = [];
  const begun = new Map<number, TimeSpec>();
  const marks = { alike: 0, joined: 0 };
  let damage: string | null = null;
  const list = emptyEntries();
  const listed = await replica.readdir(intentsPlace, list);
  const result = () => ({ records, generations, begun, ...marks, damage });
  if (listed === -ENOENT) return result();
  if (listed < 0) return { ...result(), damage: `cannot list the intents (${listed})` };
  for (const name of list.names) {
    const generation = generationOf(name);
    const mark = markOf(name);
    if (generation !== null) generations.push(generation);
    else if (mark !== null) marks[mark.kind] = Math.max(marks[mark.kind], mark.generation);
    else if (name !== SPARE) damage = `unknown entry "${name}"`;
  }
  const target = new Uint8Array(4096);
  const attr = new FileAttr();
  for (const generation of generations.sort((a, b) => a - b)) {
    const place = generationPlace(generation);
    const entries = emptyEntries();
    const read = await replica.readdir(place, entries);
    if (read < 0) damage = `cannot list generation ${generation} (${read})`;
    if (records.length + entries.names.length > maxRecords) return { ...result(), damage: "too many" };
    for (const name of entries.names) {
      const seq = /^\d{1,15}$/.test(name) ? Number(name) : -1;
      const record = { parent: place, name };
      const length = seq < 0 ? -1 : await replica.readlink(record, target);
      const body = length <= 0 ? null : decodeIntent(Buffer.from(target.buffer, 0, length).toString("latin1"));
      const read = await replica.getattr(record, attr);
      replica.forget(record);
      if (body === null || read < 0) {
        damage = `generation ${generation} holds "${name}", which cannot be read`;
        continue;
      }
      records.push({ ...body, generation, seq });
      const ctime = { seconds: attr.ctime, nsec: attr.ctimeNsec };
      const earliest = begun.get(generation);
      if (earliest === undefined || isBefore(ctime, earliest)) begun.set(generation, ctime);
    }
    replica.forget(place);
  }
  records.sort((a, b) => a.seq - b.seq);
  return result();
}

/** Without what was over already: all members were alike in it. */
export function sinceAlike(read: ReadIntents, alike: number): ReadIntents {
  return {
    ...read,
    records: read.records.filter(({ generation }) => generation > alike),
    generations: read.generations.filter((generation) => generation > alike),
    begun: new Map([...read.begun].filter(([generation]) => generation > alike)),
  };
}

/** When, by the replica's own time, the oldest of these generations began; null if there are none. */
export function earliestOf({ begun }: ReadIntents): TimeSpec | null {
  return [...begun.values()].reduce<TimeSpec | null>((a, b) => (a === null || isBefore(b, a) ? b : a), null);
}

/** Puts a mark on a replica, on stable storage. Answers 0 or an errno. */
export async function putMark(replica: Replica, mark: Mark): Promise<number> {
  const owner = { uid: 0, gid: 0 };
  let put = await replica.symlink(intentsPlace, markName(mark), "1", owner, null);
  if (put === -ENOENT) {
    await replica.mkdir(intentsPlace.parent as ControlPlace, intentsPlace.name, 0o700, owner, null);
    put = await replica.symlink(intentsPlace, markName(mark), "1", owner, null);
  }
  if (put < 0 && put !== -EEXIST) return put;
  return Math.min(0, await replica.fsyncdir(intentsPlace));
}

/** Removes marks of earlier generations than this; all of them by default. */
export async function removeMarks(replica: Replica, before = Number.POSITIVE_INFINITY): Promise<number> {
  const list = emptyEntries();
  const listed = await replica.readdir(intentsPlace, list);
  if (listed < 0) return listed === -ENOENT ? 0 : listed;
  for (const name of list.names) {
    const mark = markOf(name);
    if (mark === null || mark.generation >= before) continue;
    const result = await replica.unlink(intentsPlace, name);
    if (result < 0 && result !== -ENOENT) return result;
  }
  return 0;
}

/** Removes intents of these generations; of all, the spare one too, with "all". Marks stay. Answers 0 or the first errno. */
export async function removeIntents(replica: Replica, generations: readonly number[] | "all"): Promise<number> {
  let names: ByteString[];
  if (generations === "all") {
    const list = emptyEntries();
    const listed = await replica.readdir(intentsPlace, list);
    if (listed < 0) return listed === -ENOENT ? 0 : listed;
    names = list.names.filter((name) => markOf(name) === null);
  } else names = generations.map(String);
  for (const name of names) {
    const result = await removeDirectory(replica, name === SPARE ? sparePlace : { parent: intentsPlace, name });
    if (result < 0) return result;
  }
  return 0;
}

async function removeDirectory(replica: Replica, place: ControlPlace): Promise<number> {
  const entries = emptyEntries();
  const listed = await replica.readdir(place, entries);
  if (listed === -ENOENT) return 0;
  if (listed < 0) return listed;
  for (const [i, name] of entries.names.entries()) {
    const result = await replica.unlink(place, name);
    if (result < 0 && result !== -ENOENT) return result;
    if (i % 64 === 63) await new Promise((resolve) => setImmediate(resolve));
  }
  const removed = await replica.rmdir(place.parent as ControlPlace, place.name);
  replica.forget(place);
  return removed === -ENOENT ? 0 : removed;
}

function emptyEntries(): DirectoryEntries {
  return { names: [], types: [], inos: [] };
}

export function isBefore(a: TimeSpec, b: TimeSpec): boolean {
  return a.seconds < b.seconds || (a.seconds === b.seconds && a.nsec < b.nsec);
}
