/**
 * The intents that a replica carries, read back after a stop. They were written by us but are not trusted: whatever is
 * not as it should be is reported as damage, never an exception.
 */
import type { DirectoryEntries, Replica, TimeSpec } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { type ControlPlace, generationOf, generationPlace, intentsPlace, SPARE, sparePlace } from "./intent-places.ts";
import { decodeIntent, type IntentRecord } from "./intent-record.ts";

export interface ReadIntents {
  /** In the order in which they were made. */
  readonly records: readonly IntentRecord[];
  readonly generations: readonly number[];
  /** The replica's own time when the oldest of these generations began; null if there are none. */
  readonly since: TimeSpec | null;
  /** Something there could not be read: the list may not be complete. */
  readonly damage: string | null;
}

/** Damaged beyond use: more than anybody writes. */
const maxRecords = 2_000_000;

export async function readIntents(replica: Replica): Promise<ReadIntents> {
  const generations: number[] = [];
  const records: IntentRecord[] = [];
  let since: TimeSpec | null = null;
  let damage: string | null = null;
  const list = emptyEntries();
  const listed = await replica.readdir(intentsPlace, list);
  if (listed === -ENOENT) return { records, generations, since, damage };
  if (listed < 0) return { records, generations, since, damage: `cannot list the intents (${listed})` };
  for (const name of list.names) {
    const generation = generationOf(name);
    if (generation !== null) generations.push(generation);
    else if (name !== SPARE) damage = `unknown entry "${name}"`;
  }
  const target = new Uint8Array(4096);
  const attr = new FileAttr();
  for (const generation of generations.sort((a, b) => a - b)) {
    const place = generationPlace(generation);
    const entries = emptyEntries();
    const result = await replica.readdir(place, entries);
    if (result < 0) damage = `cannot list generation ${generation} (${result})`;
    if (records.length + entries.names.length > maxRecords) return { records, generations, since, damage: "too many" };
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
      if (since === null || isBefore(ctime, since)) since = ctime;
    }
    replica.forget(place);
  }
  records.sort((a, b) => a.seq - b.seq);
  return { records, generations, since, damage };
}

/** Removes intents of these generations; of all, the spare one too, with "all". Answers 0 or the first errno. */
export async function removeIntents(replica: Replica, generations: readonly number[] | "all"): Promise<number> {
  let names: ByteString[];
  if (generations === "all") {
    const list = emptyEntries();
    const listed = await replica.readdir(intentsPlace, list);
    if (listed < 0) return listed === -ENOENT ? 0 : listed;
    names = list.names;
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
