/**
 * After an unclean stop: makes all members like one of them, before anything is served. What the intents of any member
 * name is compared, and what has changed since the first of them by the member's own clock; so the cost grows with what
 * was in flight. Intents that cannot be read mean that everything is compared.
 *
 * - All members have what was acknowledged as stable, so whichever is taken as the leader, none of that is lost. But a
 *   member that is being changed into another's likeness has not, until it is done: it carries a mark meanwhile, and
 *   is never taken as the leader beside one that has no mark.
 * - Intents are removed only when everything is on stable storage, and all members carry the mark that says so; and not
 *   while a replica of the volume is out, since they say what that one lacks.
 * - Files without a name that a dead process had open are removed first.
 */
import type { Replica, TimeSpec, TreeObject } from "../replica/replica.ts";
import { EEXIST, ENOENT } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { align, countDone, objectAt } from "./align-renames.ts";
import { DirtySet } from "./dirty-set.ts";
import { markAligned, markIntents } from "./intent-dirty.ts";
import { controlPlace, generationPlace, intentsPlace } from "./intent-places.ts";
import { earliestOf, putMark, type ReadIntents, readIntents, removeIntents, sinceAlike } from "./intent-read.ts";
import { encodeIntent, type IntentRecord } from "./intent-record.ts";
import { mapPath, type RenameRecord, renamesOf, withoutFailed } from "./intent-renames.ts";
import { RangeLocks } from "./locks.ts";
import { Orphans } from "./orphans.ts";
import { attributesOf, type Copy, must } from "./replica-call.ts";
import { rootObject } from "./resync-context.ts";
import { removeContents } from "./resync-names.ts";
import { Repair } from "./resync-repair.ts";
import { Throttle } from "./throttle.ts";
import { Tree } from "./tree.ts";

const MARK = "reconciling";

export interface ReconcileDeps {
  readonly replica: (index: number) => Replica;
  /** Members of the volume, connected, in configured order. */
  readonly members: readonly number[];
  /** Some replica of the volume is not a member now: intents stay. */
  readonly isDegraded: boolean;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export interface ReconcileResult {
  /** The member that the others were made like. */
  readonly leader: number;
  /** What the intents of all members said. */
  readonly records: readonly IntentRecord[];
  /** Everything was compared, and why; null if the intents were enough. */
  readonly everything: string | null;
  readonly entries: number;
  readonly bytesWritten: number;
}

/** Rejects if a member could not be read or changed: it has to leave first. */
export async function reconcile(deps: ReconcileDeps): Promise<ReconcileResult> {
  const { members, log } = deps;
  const found = new Map<number, ReadIntents>();
  for (const index of members) {
    await removeOrphans({ replica: deps.replica(index), object: rootObject });
    found.set(index, await readIntents(deps.replica(index)));
  }
  const alike = Math.max(0, ...[...found.values()].map((one) => one.alike));
  const newer = [...found].map(([index, one]) => [index, sinceAlike(one, alike)] as const);
  const all = newer.flatMap(([, one]) => one.records);
  const read = new Map(
    newer.map(([index, one]) => [index, { ...one, records: withoutFailed(one.records, all) }] as const),
  );
  const { records, damage } = union([...read.values()]);
  const leader = await chooseLeader(deps);
  const others = members.filter((index) => index !== leader);
  let everything = damage;
  if (everything === null) everything = await lostNames(deps, records);
  if (everything !== null) log.warn("Everything is compared after an unclean stop", { reason: everything });
  let [entries, bytesWritten] = [0, 0];
  if (records.length > 0 || everything !== null) {
    for (const index of others) {
      const work = await makeAlike(deps, leader, index, everything !== null, records, read);
      entries += work.entries;
      bytesWritten += work.bytesWritten;
    }
  }
  for (const index of members) {
    const copy: Copy = { replica: deps.replica(index), object: rootObject };
    await must(copy, "flush", copy.replica.sync());
  }
  const newest = Math.max(alike, ...[...found.values()].flatMap(({ generations, joined }) => [...generations, joined]));
  if (newest > 0) {
    for (const index of members) {
      const copy: Copy = { replica: deps.replica(index), object: rootObject };
      await must(copy, "mark", putMark(copy.replica, { kind: "alike", generation: newest }));
    }
  }
  for (const index of others) await removeMark(deps.replica(index));
  await removeMark(deps.replica(leader));
  if (!deps.isDegraded || damage !== null) {
    for (const index of members) {
      const copy: Copy = { replica: deps.replica(index), object: rootObject };
      await must(copy, "clear the intents of", removeIntents(copy.replica, "all"));
    }
  }
  return { leader, records: deps.isDegraded && damage !== null ? [] : records, everything, entries, bytesWritten };
}

/** Do these intents hold everything that a replica which is out may lack? */
export function holdsMissed(records: readonly IntentRecord[], replica: string): boolean {
  let known = false;
  for (const record of records) {
    if (record.kind === "out" && record.replica === replica) known = true;
    if (record.kind === "unknown" && record.replica === replica) known = false;
  }
  return known;
}

/** All records in order. Those of one number say the same on each member, but for inode numbers. */
function union(all: readonly ReadIntents[]): { readonly records: IntentRecord[]; readonly damage: string | null } {
  const bySeq = new Map<number, IntentRecord>();
  let damage: string | null = null;
  for (const intents of all) {
    damage ??= intents.damage;
    for (const record of intents.records) {
      const known = bySeq.get(record.seq);
      if (known === undefined) bySeq.set(record.seq, record);
      else if (wordOf(known) !== wordOf(record)) damage ??= `intent ${record.seq} differs between members`;
    }
  }
  return { records: [...bySeq.values()].sort((a, b) => a.seq - b.seq), damage };
}

function wordOf(record: IntentRecord): string {
  return JSON.stringify(record.kind === "rename" ? { ...record, ino: 0, otherIno: 0 } : record);
}

/**
 * A file with several names was changed under one that a member has lost since: it is not known where else it is. Answers
 * which, or null.
 */
async function lostNames(deps: ReconcileDeps, records: readonly IntentRecord[]): Promise<string | null> {
  const renames = records.filter((record) => record.kind === "rename");
  for (const record of records) {
    if (!("severalNames" in record) || !record.severalNames) continue;
    const path = mapPath(
      record.path,
      renames.filter((rename) => rename.seq > record.seq),
    );
    for (const index of deps.members) {
      const object = objectAt(path);
      const attr = await attributesOf({ replica: deps.replica(index), object });
      deps.replica(index).forget(object);
      if (attr === null) return "a file with several names was changed, and has lost the name that is on record";
    }
  }
  return null;
}

async function makeAlike(
  deps: ReconcileDeps,
  leader: number,
  index: number,
  everything: boolean,
  records: readonly IntentRecord[],
  read: ReadonlyMap<number, ReadIntents>,
): Promise<{ readonly entries: number; readonly bytesWritten: number }> {
  const target = deps.replica(index);
  await setMark(target);
  await completeIntents(target, records, new Set(read.get(index)?.records.map((record) => record.seq)));
  const set = new DirtySet();
  if (everything) set.tree([], true);
  else {
    const undone = await alignMembers(deps, leader, index, records, read);
    if (undone === null) markIntents(set, records);
    else markAligned(set, records, undone);
  }
  const tree = new Tree({ onDrop: (node) => deps.replica(leader).forget(node), onMove: () => {} });
  const repair = new Repair(
    {
      tree,
      orphans: new Orphans(tree),
      locks: new RangeLocks(),
      replica: deps.replica,
      sources: () => [leader],
      onSourceFailed: () => {}, // there is no other: it rejects
    },
    index,
    set,
    {
      throttle: new Throttle(),
      signal: deps.signal,
      isStill: true,
      since: (replica): TimeSpec | null => {
        const own = read.get(replica);
        return own === undefined ? null : earliestOf(own);
      },
    },
  );
  await repair.run();
  repair.close();
  return repair.work;
}

/**
 * What is changed on a member now is named only by intents of others, who may be missing next time: so it gets them too.
 * Renames become trees, since their inode numbers on this member are not known.
 */
async function completeIntents(
  target: Replica,
  records: readonly IntentRecord[],
  own: ReadonlySet<number>,
): Promise<void> {
  let seq = Math.max(0, ...records.map((record) => record.seq));
  const missing: IntentRecord[] = [];
  for (const record of records) {
    if (record.kind !== "rename") {
      if (!own.has(record.seq)) missing.push(record);
      continue;
    }
    const { generation } = record;
    const trees = [record.from, record.to].map(
      (path): IntentRecord => ({ kind: "tree", path, generation, seq: ++seq }),
    );
    if (!own.has(record.seq)) missing.push(...trees);
  }
  if (missing.length === 0) return;
  const owner = { uid: 0, gid: 0 };
  const at = (object: TreeObject): Copy => ({ replica: target, object });
  for (const directory of [intentsPlace, ...new Set(missing.map((record) => record.generation))]) {
    const place = typeof directory === "number" ? generationPlace(directory) : directory;
    const made = await target.mkdir(place.parent as TreeObject, place.name, 0o700, owner, null);
    if (made !== -EEXIST) await must(at(place), "create", made);
    for (const record of missing) {
      if (record.generation !== directory) continue;
      const put = await target.symlink(place, String(record.seq), encodeIntent(record), owner, null);
      if (put !== -EEXIST) await must(at(place), "record an intent in", put);
    }
    await must(at(place), "flush", target.fsyncdir(place));
    target.forget(place);
  }
  await must(at(intentsPlace), "flush", target.fsyncdir(intentsPlace));
}

/** Makes directories have the same names on both. Answers which renames the leader has not done; null if that failed. */
async function alignMembers(
  deps: ReconcileDeps,
  leader: number,
  index: number,
  records: readonly IntentRecord[],
  read: ReadonlyMap<number, ReadIntents>,
): Promise<readonly RenameRecord[] | null> {
  const all = renamesOf(records);
  if (all.length === 0) return [];
  const counts: number[] = [];
  for (const member of [leader, index]) {
    const own = renamesOf(read.get(member)?.records ?? []);
    const count = await countDone(deps.replica(member), own, all, read.get(member)?.joined ?? 0);
    if (count === null) return null;
    counts.push(count);
  }
  const [wanted, there] = counts as [number, number];
  const isDone = await align(deps.replica(leader), deps.replica(index), all, there, wanted);
  return isDone ? all.slice(wanted) : null;
}

async function removeOrphans(root: Copy): Promise<void> {
  const object: TreeObject = { parent: controlPlace, name: "orphans" };
  const copy: Copy = { replica: root.replica, object };
  if ((await attributesOf(copy)) === null) return;
  await removeContents(copy, { keep: async () => false, onOneOfSeveral: () => {}, pace: async () => {} });
  root.replica.forget(object);
}

// The mark of a member that is being changed: durable before the first change.

async function setMark(replica: Replica): Promise<void> {
  const made = await replica.symlink(controlPlace, MARK, "1", { uid: 0, gid: 0 }, null);
  const copy: Copy = { replica, object: controlPlace };
  if (made !== -EEXIST) await must(copy, "mark", made);
  await must(copy, "flush", replica.fsyncdir(controlPlace));
}

async function removeMark(replica: Replica): Promise<void> {
  const gone = await replica.unlink(controlPlace, MARK);
  if (gone !== -ENOENT) await must({ replica, object: controlPlace }, "unmark", gone);
}

/** The first member whose contents are its own. */
async function chooseLeader(deps: ReconcileDeps): Promise<number> {
  const [first] = deps.members;
  if (first === undefined) throw new Error("There is no member to make the others like");
  for (const index of deps.members) {
    const found = await deps.replica(index).lookup(controlPlace, MARK, null);
    if (found === -ENOENT) return index;
    if (found < 0) await must({ replica: deps.replica(index), object: controlPlace }, "look at", found);
  }
  deps.log.error("Every member here was being made like one that is not here", { leader: deps.replica(first).name });
  return first;
}
