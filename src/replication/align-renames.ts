/**
 * After an unclean stop some members may have carried out renames of directories that others have lost again. Each
 * rename is on record with the directory's inode number on that member, so it can be told which of them a member has
 * done; it is then made to have done just those that the leader has, before anything is compared. Otherwise a directory
 * that was moved would be copied, or worse, taken for another that has the same name there.
 */
import type { Replica, TreeObject } from "../replica/replica.ts";
import { FileAttr, isDirectory } from "../util/file-attr.ts";
import { mapPath, type RenameRecord } from "./intent-renames.ts";
import type { Path } from "./node-path.ts";
import { attributesOf } from "./replica-call.ts";
import { samePath } from "./resync-context.ts";
import { createLike } from "./resync-names.ts";

/** How many of the last renames may be in doubt, and how many are looked at at all. */
const maxInDoubt = 6;
const maxRenames = 256;

/**
 * How many of the renames a member has carried out; null if that cannot be told. `all`: of all members, in order.
 * `joined`: it became a member with all up to this generation done.
 */
export async function countDone(
  replica: Replica,
  own: readonly RenameRecord[],
  all: readonly RenameRecord[],
  joined: number,
): Promise<number | null> {
  if (all.length > maxRenames) return null;
  const inos = new Map(own.map((record) => [record.seq, record]));
  const before = all.filter(({ generation }) => generation <= joined).length;
  // Of what came later a member has a beginning of the records: what comes after that has not happened there.
  let known = before;
  while (known < all.length && inos.has((all[known] as RenameRecord).seq)) known++;
  if (own.length !== known - before) return null;
  const records = all.slice(0, known).map((record) => inos.get(record.seq) ?? { ...record, ino: 0, otherIno: 0 });
  for (let done = known; done >= Math.max(before, known - maxInDoubt); done--) {
    if (await isState(replica, records, done)) return done;
  }
  return null;
}

interface Found {
  readonly ino: number;
  path: Path;
}

/**
 * Is every directory where it would be after just the first `done` renames? One that is gone since might have been moved
 * by a later one first, so then the answer is no.
 */
async function isState(replica: Replica, records: readonly RenameRecord[], done: number): Promise<boolean> {
  const expected: Found[] = [];
  for (const record of records.slice(0, done + 1)) {
    expect(expected, record.ino, record.from);
    if (record.exchange) expect(expected, record.otherIno, record.to);
    if (record === records[done]) break;
    // An empty directory may be replaced.
    const replaced = record.exchange ? -1 : expected.findIndex(({ path }) => samePath(path, record.to));
    if (replaced >= 0) expected.splice(replaced, 1);
    for (const found of expected) found.path = mapPath(found.path, [record]);
  }
  for (const { ino, path } of expected) if ((await inoAt(replica, path)) !== ino) return false;
  return true;
}

/** This directory is there before a rename. (If it was known elsewhere, that one is gone, and its number used again.) */
function expect(expected: Found[], ino: number, path: Path): void {
  const known = expected.find((found) => found.ino === ino);
  if (known !== undefined) known.path = path;
  else if (ino !== 0) expected.push({ ino, path });
}

async function inoAt(replica: Replica, path: Path): Promise<number> {
  const attr = new FileAttr();
  const object = objectAt(path);
  const result = await replica.getattr(object, attr);
  replica.forget(object);
  return result >= 0 && isDirectory(attr.mode) ? attr.ino : 0;
}

/** Carries out, or takes back, what makes the target's renames the same as the leader's. False if that failed. */
export async function align(
  leader: Replica,
  target: Replica,
  renames: readonly RenameRecord[],
  from: number,
  to: number,
): Promise<boolean> {
  for (const record of renames.slice(from, to)) {
    if (!(await move(leader, target, record.from, record.to, record.exchange))) return false;
  }
  for (const record of renames.slice(to, from).reverse()) {
    if (!(await move(leader, target, record.to, record.from, record.exchange))) return false;
  }
  return true;
}

async function move(leader: Replica, target: Replica, from: Path, to: Path, exchange: boolean): Promise<boolean> {
  const source = objectAt(from);
  const place = objectAt(to);
  if ((await attributesOf({ replica: target, object: source })) === null) return true; // removed since
  for (let length = 1; length < to.length; length++) {
    const object = objectAt(to.slice(0, length));
    if ((await attributesOf({ replica: target, object })) !== null) continue;
    const wanted = await attributesOf({ replica: leader, object });
    if (wanted === null || !isDirectory(wanted.mode)) return false;
    await createLike({ replica: leader, object }, wanted, { replica: target, object });
  }
  const [a, b] = [source.parent as TreeObject, place.parent as TreeObject];
  return (await target.rename(a, source.name, b, place.name, exchange ? 2 : 0)) >= 0;
}

export function objectAt(path: Path): TreeObject {
  let object: TreeObject = { parent: null, name: "" };
  for (const name of path) object = { parent: object, name };
  return object;
}
