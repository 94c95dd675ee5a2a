/**
 * Repairs names: what has a name on the source gets it on the target, under the directory's lock. Nothing is removed
 * there but what lies in the dirty scope and is not elsewhere in the volume: what has been renamed is moved, by way of
 * `.chiron/resync` if its place is needed first.
 */
import type { TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST } from "../util/errno.ts";
import { type FileAttr, isDirectory, isRegular, S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT } from "../util/file-attr.ts";
import { ATTRIBUTES, CONTENTS, type DirtyNode, ENTRY, type Origin, SCAN, TREE } from "./dirty-node.ts";
import { hasNoPlace, type Path, pathOf } from "./node-path.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";
import { attributesOf, type Copy, lookupIn, must, namesIn, ReplicaCallError, readLink } from "./replica-call.ts";
import { isSameType, Moved, type RepairContext, samePath } from "./resync-context.ts";
import { createLike, removeContents, removeObject } from "./resync-names.ts";
import type { TreeNode } from "./tree.ts";

const PARKING = "resync";

/** Where the replica has a file that is to get one more name. */
interface KnownName {
  readonly place: Origin;
  readonly ino: number;
  /** Nothing is marked for it. */
  readonly isClean: boolean;
}

export class EntryRepair {
  readonly #c: RepairContext;
  #parked = 0;
  readonly #trash: Origin[] = [];

  constructor(context: RepairContext) {
    this.#c = context;
  }

  async repair(node: DirtyNode, path: Path, source: number): Promise<void> {
    const parentPath = path.slice(0, -1);
    const directory = this.#c.pin(parentPath);
    try {
      const lock = await this.#c.deps.locks.acquire(directory);
      try {
        this.#mustHold(node, path, directory, parentPath);
        const place = this.#c.place(parentPath);
        try {
          await this.#repairEntryIn(node, path, directory, place, source);
        } finally {
          place.release();
        }
      } finally {
        lock.release();
      }
    } finally {
      this.#c.deps.tree.unpin(directory);
    }
    this.#c.entries++;
  }

  async #repairEntryIn(node: DirtyNode, path: Path, directory: TreeNode, place: Origin, source: number): Promise<void> {
    const { name } = node;
    const from: Copy = { replica: this.#c.deps.replica(source), object: directory };
    const wanted = await lookupIn(from, name);
    if (wanted === null && (await attributesOf(from)) === null) throw new Moved();
    // Its times change with its entries.
    this.#c.set.attributes(path.slice(0, -1));
    if (wanted === null) {
      await this.#remove(place.child(name));
      this.#c.set.clearAll(node);
      return;
    }
    if (!isDirectory(wanted.mode)) this.#c.set.clearBelow(node);
    const { claimant } = place.child(name);
    if (claimant !== null && claimant !== node) await this.#remove(place.child(name));
    const there = await attributesOf(this.#c.copy(place.child(name)));
    const origin = node.origin;
    if (origin !== null) {
      const isHere = origin === place.child(name) && there !== null && isSameType(wanted, there);
      if (isHere || (await this.#moveHere(origin, place, name, wanted))) {
        this.#repaired(node, wanted, directory);
      } else this.#unsure(node, path);
      return;
    }
    const hasOtherNames = !isDirectory(wanted.mode) && wanted.nlink > 1;
    if (hasOtherNames && (await this.#linkHere(node, path, directory, place, wanted, there))) return;
    const object: Copy = { ...from, object: { parent: directory, name } };
    const fits = there !== null && (await canBecome(this.#c, object, wanted, this.#c.copy(place.child(name)), there));
    if (!fits) {
      await this.#remove(place.child(name));
      await createLike(object, wanted, this.#c.copy(place.child(name)));
    } else if (!this.#c.isFull) this.#c.links.suspect(there, false);
    if (hasOtherNames) await this.#note(path, wanted, place.child(name));
    object.replica.forget(object.object);
    this.#existing(node, wanted, !fits, directory);
  }

  /** The right object has the name now: what is left are its attributes, and whatever was marked in it. */
  #repaired(node: DirtyNode, wanted: FileAttr, directory: TreeNode): void {
    this.#c.renewed(directory, node.name);
    node.flags |= ATTRIBUTES;
    if (!isDirectory(wanted.mode) && (node.flags & (TREE | SCAN)) !== 0) this.#existing(node, wanted, false, directory);
    else this.#c.set.clearFlags(node, ENTRY);
  }

  /** Something of the right type has the name; what is in it is not known to be right. */
  #existing(node: DirtyNode, wanted: FileAttr, isNew: boolean, directory: TreeNode): void {
    this.#c.renewed(directory, node.name);
    const wasUncertain = (node.flags & TREE) !== 0;
    node.flags |= ATTRIBUTES;
    if (isDirectory(wanted.mode)) {
      // What happened in a directory that was made meanwhile is marked; names that are not there are looked for.
      if (!wasUncertain) node.flags |= SCAN;
      node.cursor = null; // what a walk has seen of another directory says nothing
      this.#c.set.clearFlags(node, ENTRY);
      return;
    }
    const path = node.path();
    if (isRegular(wanted.mode)) {
      if (wasUncertain && !isNew) {
        this.#c.set.clearFlags(node, ENTRY); // the file is looked at, by its attributes first
        return;
      }
      this.#c.set.clearFlags(node, TREE | SCAN);
      if (wanted.size > 0 || !isNew) this.#c.set.data(path, 0, Number.POSITIVE_INFINITY);
    }
    this.#c.set.clearFlags(node, ENTRY | TREE | SCAN);
  }

  /** It is not where it was thought to be: look at everything. */
  #unsure(node: DirtyNode, path: Path): void {
    this.#c.set.setOrigin(node, null);
    this.#c.set.tree(path, true);
  }

  /** Renames what the replica has elsewhere. False if that is not the object after all. */
  async #moveHere(origin: Origin, place: Origin, name: ByteString, wanted: FileAttr): Promise<boolean> {
    if (origin === place.child(name)) return false;
    const old = await attributesOf(this.#c.copy(origin));
    if (old === null || !isSameType(wanted, old)) return false;
    await this.#remove(place.child(name));
    await this.#renameTarget(origin, place, name);
    return true;
  }

  async #renameTarget(place: Origin, directory: Origin, name: ByteString): Promise<void> {
    const answer = this.#c.target.rename(place.parent as Origin, place.name, directory, name, 0);
    await must(this.#c.copy(place), "rename", answer);
    place.moveTo(directory, name);
  }

  /** Another name of a file that the replica has already. False if it has not. */
  async #linkHere(
    node: DirtyNode,
    path: Path,
    directory: TreeNode,
    place: Origin,
    wanted: FileAttr,
    there: FileAttr | null,
  ): Promise<boolean> {
    const known = (await this.#knownName(wanted)) ?? (await this.#knownAlias(path, wanted));
    if (known === null) return false;
    if (there?.ino !== known.ino) {
      await this.#remove(place.child(node.name));
      const at = this.#c.copy(place.child(node.name));
      await must(at, "link", this.#c.target.link(known.place, place, node.name, null));
    }
    // Contents belong to the file, and were seen to under its other name, or are marked there.
    const isSame = known.isClean || this.#c.links.isUnchanged(wanted);
    const isSeenTo = (node.flags & TREE) === 0 || ((node.flags & CONTENTS) === 0 && isSame);
    await this.#note(path, wanted, place.child(node.name));
    node.flags |= ATTRIBUTES;
    this.#c.set.clearFlags(node, TREE | SCAN);
    if (!isSeenTo) this.#c.set.data(path, 0, Number.POSITIVE_INFINITY);
    this.#c.renewed(directory, node.name);
    this.#c.set.clearFlags(node, ENTRY);
    return true;
  }

  /** A name of the source's inode that was met before. */
  async #knownName(wanted: FileAttr): Promise<KnownName | null> {
    const known = this.#c.links.find(wanted.ino);
    if (known === null) return null;
    const place = hasNoPlace(known.node) ? null : this.#c.set.placeOf(pathOf(known.node));
    const attr = place === null ? null : await attributesOf(this.#c.copy(place));
    if (place !== null && attr?.ino === known.targetIno) return { place, ino: attr.ino, isClean: false };
    this.#c.links.forget(wanted.ino);
    return null;
  }

  /** The volume may know the file by another name that is clean. */
  async #knownAlias(path: Path, wanted: FileAttr): Promise<KnownName | null> {
    const node = this.#c.pin(path);
    try {
      const names = [{ parent: node.parent, name: node.name }, ...(node.aliases ?? [])];
      for (const { parent, name } of names) {
        if (parent === null || hasNoPlace(parent)) continue;
        const other = [...pathOf(parent), name];
        if (samePath(other, path) || this.#c.set.isEntryDirty(other.slice(0, -1), name)) continue;
        const place = this.#c.set.placeOf(other);
        const attr = place === null ? null : await attributesOf(this.#c.copy(place));
        if (place !== null && attr !== null && isSameType(attr, wanted)) return { place, ino: attr.ino, isClean: true };
      }
      return null;
    } finally {
      this.#c.deps.tree.unpin(node);
    }
  }

  /** A name of a file with several is right on the replica. */
  async #note(path: Path, wanted: FileAttr, at: Origin): Promise<void> {
    const attr = await attributesOf(this.#c.copy(at));
    if (attr !== null) this.#c.links.met(this.#c.pin(path), path.join("/"), wanted, attr.ino);
  }

  /** Clears a place. A directory is only put aside, since this happens under a lock; it is removed after the step. */
  async #remove(place: Origin): Promise<void> {
    const attr = await attributesOf(this.#c.copy(place));
    if (attr === null) return;
    if (place.claimant === null && !isDirectory(attr.mode)) {
      await removeObject(this.#c.copy(place), this.#removalHooks());
      return;
    }
    await this.#park(place);
    if (place.claimant === null) this.#trash.push(place.hold());
  }

  async emptyTrash(): Promise<void> {
    for (let place = this.#trash.pop(); place !== undefined; place = this.#trash.pop()) {
      await removeObject(this.#c.copy(place), this.#removalHooks());
      place.release();
    }
  }

  #removalHooks() {
    const { throttle, signal } = this.#c.options;
    return {
      // What has been renamed in the volume is kept for its new place.
      keep: async (object: TreeObject): Promise<boolean> => {
        const place = object as Partial<Origin>;
        if (place.claimant === undefined || place.claimant === null) return false;
        await this.#park(object as Origin);
        return true;
      },
      onOneOfSeveral: (attr: FileAttr): void => this.#c.links.suspect(attr, true),
      pace: (): Promise<void> => throttle.pace(0, signal),
    };
  }

  async #park(place: Origin): Promise<void> {
    const parking = this.#c.set.target.child(CONTROL_DIRECTORY).child(PARKING).hold();
    try {
      const made = await this.#c.target.mkdir(parking.parent as Origin, PARKING, 0o700, { uid: 0, gid: 0 }, null);
      if (made < 0 && made !== -EEXIST) throw new ReplicaCallError(this.#c.copy(parking), "create", made);
      await this.#renameTarget(place, parking, String(this.#parked++));
    } finally {
      parking.release();
    }
  }

  /** What nobody has come for. */
  async clearParking(): Promise<void> {
    const parking = this.#c.set.target.child(CONTROL_DIRECTORY).child(PARKING).hold();
    try {
      const names = await namesIn(this.#c.copy(parking));
      for (const name of names) this.#parked = Math.max(this.#parked, Number(name) + 1 || 0);
      if (names.length === 0 || [...parking.claimed()].length > 0) return;
      await removeContents(this.#c.copy(parking), this.#removalHooks());
    } finally {
      parking.release();
    }
  }

  /** Under the directory's lock: is everything still where it was before it was waited for? */
  #mustHold(node: DirtyNode, path: Path, directory: TreeNode, parentPath: Path): void {
    const isThere = this.#c.set.holds(node) && (node.flags & ENTRY) !== 0 && samePath(node.path(), path);
    if (!isThere || hasNoPlace(directory) || !samePath(pathOf(directory), parentPath)) throw new Moved();
  }
}

/** May what is there be changed into what is wanted, or must it go? */
export async function canBecome(
  context: RepairContext,
  source: Copy,
  wanted: FileAttr,
  target: Copy,
  there: FileAttr,
): Promise<boolean> {
  if (!isSameType(wanted, there)) return false;
  if (isDirectory(wanted.mode)) return true;
  if (context.links.isTaken(there.ino, wanted.ino)) return false;
  // What is written to one of several names would be written to all.
  if (isRegular(wanted.mode)) return wanted.nlink > 1 || there.nlink === 1;
  if ((wanted.mode & S_IFMT) === S_IFLNK) return (await readLink(source)) === (await readLink(target));
  const isDevice = (wanted.mode & S_IFMT) === S_IFCHR || (wanted.mode & S_IFMT) === S_IFBLK;
  return !isDevice || wanted.rdev === there.rdev;
}
