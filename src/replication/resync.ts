/**
 * Brings one replica up to date while the volume is in use: works off its dirty set, which is its only state, so it can
 * be stopped anywhere and goes on from there.
 *
 * - Names are repaired from the top under their directory's lock, data in ranges under the range's lock, attributes
 *   last. Under the lock nothing else changes the object, and a mark is cleared only when the copy is like the source's.
 * - The target is spoken to in terms of its own tree (`DirtySet.target`), which the volume's renames do not move.
 * - Nothing is removed there but what lies in the dirty scope and is not elsewhere in the volume: what has been renamed
 *   is moved, by way of `.chiron/resync` if its place is needed first.
 * - A whole tree is walked depth first, with one listing for each level; what is equal costs no write.
 * - At the end, while no change is under way: everything to stable storage, and then the membership.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Replica, TimeSpec, TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, ENOENT, ENOTDIR, ESTALE } from "../util/errno.ts";
import { type FileAttr, isDirectory, isRegular, S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT } from "../util/file-attr.ts";
import { compareAttributes } from "./compare.ts";
import type { ObjectLocks } from "./contracts.ts";
import { ATTRIBUTES, type DirtyNode, type DirtySet, ENTRY, type Origin, SCAN, TREE } from "./dirty-set.ts";
import type { IntentLog } from "./intent-log.ts";
import { isBefore, removeIntents } from "./intent-read.ts";
import type { MissedChangesLog } from "./missed-changes.ts";
import type { ResyncProgress } from "./model.ts";
import { hasNoPlace, type Path, pathOf } from "./node-path.ts";
import { CONTROL_DIRECTORY, type Orphans } from "./orphans.ts";
import {
  attributesOf,
  type Copy,
  listOf,
  lookupIn,
  must,
  namesIn,
  ReplicaCallError,
  readLink,
  xattrsOf,
} from "./replica-call.ts";
import { copyAttributes, copyBytes } from "./resync-copy.ts";
import { LinkTable } from "./resync-links.ts";
import { createLike, removeContents, removeObject } from "./resync-names.ts";
import type { Throttle } from "./throttle.ts";
import type { Tree, TreeNode } from "./tree.ts";

/** How much of a file is locked at a time. */
const unitBytes = 512 * 1024;
const blockBytes = 4096;
const maxRetries = 50;
const ORPHANS = "orphans";
const PARKING = "resync";
/** Clocks of file systems are coarse, and a call takes a while: what changed a little earlier is looked at as well. */
const clockMarginSeconds = 15;

export interface ResyncDeps {
  readonly tree: Tree;
  readonly orphans: Orphans;
  readonly locks: ObjectLocks;
  readonly missed: MissedChangesLog;
  readonly intents: Pick<IntentLog, "join">;
  readonly replica: (index: number) => Replica;
  /** In-sync replicas, the leader first. */
  readonly sources: () => readonly number[];
  /** A source could not be read; another one is tried next. */
  readonly onSourceFailed: (index: number, errno: number) => void;
  /** Runs `act` while no change is under way. */
  readonly barrier: <T>(act: () => Promise<T>) => Promise<T>;
  /** Records that the replica is in sync from now on. */
  readonly admit: (index: number) => Promise<void>;
  /** The node by which the volume already knows a file with several names, by its inode number on the leader. */
  readonly linked?: (ino: number) => TreeNode | undefined;
}

export interface ResyncOptions {
  readonly throttle: Throttle;
  readonly signal: AbortSignal;
  /** Compare the contents of files whose size and times are equal: for copies of unknown origin. */
  readonly contents?: boolean;
  /** The source's time when the first intent was made that was not cleared before the replica left, if that is known:
   *  contents of what has changed since are compared. */
  readonly since?: (source: number) => TimeSpec | null;
}

export interface ResyncResult {
  readonly entries: number;
  readonly bytesWritten: number;
}

interface Listing {
  readonly names: readonly ByteString[];
  index: number;
}

/** Where the replica has a file that is to get one more name. */
interface KnownName {
  readonly place: Origin;
  readonly ino: number;
  /** Nothing is marked for it. */
  readonly isClean: boolean;
}

/** A step met something that has changed meanwhile: look again. */
class Moved extends Error {
  override readonly name = "Moved";
}

export class Resync {
  readonly #deps: ResyncDeps;
  readonly #index: number;
  readonly #target: Replica;
  readonly #set: DirtySet;
  readonly #options: ResyncOptions;
  readonly #links: LinkTable;
  readonly #listings = new Map<DirtyNode, Listing>();
  readonly #retries = new Map<DirtyNode, number>();
  /** Everything is being walked: whatever has several names is met under each of them. */
  #isFull = false;
  #linkRounds = 0;
  #parked = 0;
  readonly #trash: Origin[] = [];
  #entries = 0;
  #bytesWritten = 0;
  #seen = { files: 0, bytes: 0 };
  #estimate = { files: 0, bytes: 0 };
  #counted = { files: 0, bytes: 0, at: 0 };
  /** When a step last came to an end, on the monotonic clock. */
  lastProgressMs = performance.now();

  /** The replica is connected and takes nothing yet; `missed` has its dirty set. */
  constructor(deps: ResyncDeps, index: number, options: ResyncOptions) {
    const set = deps.missed.of(index);
    if (set === null) throw new Error(`Replica ${index} is not left behind`);
    this.#deps = deps;
    this.#index = index;
    this.#target = deps.replica(index);
    this.#set = set;
    this.#options = options;
    this.#links = new LinkTable((node) => deps.tree.unpin(node));
  }

  get progress(): ResyncProgress {
    const now = performance.now();
    if (now - this.#counted.at > 500) this.#counted = { ...this.#set.counts(), at: now };
    const filesRemaining = this.#counted.files + Math.max(0, this.#estimate.files - this.#seen.files);
    const bytesRemaining = this.#counted.bytes + Math.max(0, this.#estimate.bytes - this.#seen.bytes);
    const done = this.#seen.bytes + this.#bytesWritten + 4096 * (this.#entries + this.#seen.files);
    const left = bytesRemaining + 4096 * filesRemaining;
    return { filesRemaining, bytesRemaining, percent: left === 0 ? 100 : Math.floor((100 * done) / (done + left)) };
  }

  /** Resolves when the replica is in sync. Rejects if it failed or was stopped; what was done stays done. */
  async run(): Promise<ResyncResult> {
    const { missed } = this.#deps;
    this.#isFull = (this.#set.root.flags & TREE) !== 0;
    await this.#estimateWork();
    await this.#clearParking();
    this.#set.absorbs = false;
    this.#set.mustDrain = true;
    missed.setSyncing(this.#index, true);
    try {
      for (;;) {
        while (!this.#set.isEmpty) {
          if (this.#set.mustDrain) await this.#drain();
          await this.#step();
        }
        if (await this.#findLinks()) continue;
        await this.#clearParking();
        await must(this.#copy(rootObject), "flush", this.#target.sync());
        if (await this.#finish()) return { entries: this.#entries, bytesWritten: this.#bytesWritten };
      }
    } catch (error) {
      missed.setSyncing(this.#index, false);
      throw error;
    } finally {
      this.#set.absorbs = true;
      this.#links.clear();
      this.#listings.clear();
    }
  }

  /** Changes that are under way may not be marked by name: they end before anything is looked at. */
  async #drain(): Promise<void> {
    this.#set.mustDrain = false;
    await this.#deps.barrier(async () => {});
  }

  /** Lets the replica in if nothing is left to do while no change is under way. */
  async #finish(): Promise<boolean> {
    const { barrier, intents, admit, missed } = this.#deps;
    const cleared = await removeIntents(this.#target, "all");
    if (cleared < 0) throw new ReplicaCallError(this.#copy(rootObject), "clear the intents of", cleared);
    return await barrier(async () => {
      this.#options.signal.throwIfAborted();
      if (!this.#set.isEmpty || missed.of(this.#index) !== this.#set) return false;
      await must(this.#copy(rootObject), "flush", this.#target.sync());
      const joined = await intents.join(this.#target);
      if (joined < 0)
        throw new Error(`The intents could not be flushed before "${this.#target.name}" joins (${joined})`);
      await admit(this.#index);
      missed.end(this.#index);
      return true;
    });
  }

  async #step(): Promise<void> {
    const node = this.#set.next();
    if (node === null) return;
    await this.#options.throttle.pace(0, this.#options.signal);
    const source = this.#deps.sources()[0];
    if (source === undefined) throw new Error(`No replica is in sync that "${this.#target.name}" could be filled from`);
    try {
      await this.#workOn(node, source);
      await this.#emptyTrash();
      this.#retries.delete(node);
      this.lastProgressMs = performance.now();
    } catch (error) {
      await this.#recover(node, source, error);
    }
  }

  async #workOn(node: DirtyNode, source: number): Promise<void> {
    const path = node.path();
    if (path[0] === CONTROL_DIRECTORY && path[1] !== ORPHANS) {
      this.#stayOutOf(node, path);
      return;
    }
    if ((node.flags & ENTRY) !== 0) await this.#repairEntry(node, path, source);
    else if ((node.flags & (TREE | SCAN)) !== 0) await this.#walk(node, path, source);
    else if (node.ranges !== null) await this.#repairData(node, path, source);
    else await this.#repairAttributes(node, path, source);
  }

  /** Of the control directory only the orphans belong to the volume. */
  #stayOutOf(node: DirtyNode, path: Path): void {
    if (path.length > 1) {
      this.#set.clearAll(node);
      return;
    }
    if ((node.flags & (TREE | SCAN)) !== 0) {
      this.#set.setCursor(node, "");
      this.#set.found(node, ORPHANS, TREE);
    }
    this.#set.clearFlags(node, ENTRY | ATTRIBUTES | TREE | SCAN);
  }

  /** What became of a step that failed: tried again, with another source, or given up. */
  async #recover(node: DirtyNode, source: number, error: unknown): Promise<void> {
    const retries = (this.#retries.get(node) ?? 0) + 1;
    this.#retries.set(node, retries);
    if (error instanceof Moved && retries < maxRetries) {
      await sleep(Math.min(retries, 20), undefined, { signal: this.#options.signal });
      return;
    }
    if (!(error instanceof ReplicaCallError) || retries >= maxRetries) throw error;
    const isGone = error.errno === -ENOENT || error.errno === -ENOTDIR || error.errno === -ESTALE;
    if (error.replica === this.#target) {
      // Something is not there that should be: the replica is not what it was taken for.
      if (!isGone || retries > 3) throw error;
      await this.#doubt(node);
    } else if (!isGone || retries > 10) {
      this.#deps.onSourceFailed(source, error.errno);
      if (this.#deps.sources()[0] === source) throw error;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Marks the topmost name on the way to a node that the target does not have. */
  async #doubt(node: DirtyNode): Promise<void> {
    const path = node.path();
    for (let length = 1; length <= path.length; length++) {
      const part = path.slice(0, length);
      const place = this.#set.placeOf(part);
      if (place === null) return;
      if ((await attributesOf(this.#copy(place))) !== null) continue;
      this.#set.entry(part.slice(0, -1), part[length - 1] as ByteString);
      this.#set.tree(part);
      return;
    }
  }

  // Names.

  async #repairEntry(node: DirtyNode, path: Path, source: number): Promise<void> {
    const parentPath = path.slice(0, -1);
    const directory = this.#pin(parentPath);
    try {
      const lock = await this.#deps.locks.acquire(directory);
      try {
        this.#mustHold(node, path, directory, parentPath);
        const place = this.#place(parentPath);
        try {
          await this.#repairEntryIn(node, path, directory, place, source);
        } finally {
          place.release();
        }
      } finally {
        lock.release();
      }
    } finally {
      this.#deps.tree.unpin(directory);
    }
    this.#entries++;
  }

  async #repairEntryIn(node: DirtyNode, path: Path, directory: TreeNode, place: Origin, source: number): Promise<void> {
    const { name } = node;
    const from: Copy = { replica: this.#deps.replica(source), object: directory };
    const wanted = await lookupIn(from, name);
    if (wanted === null && (await attributesOf(from)) === null) throw new Moved();
    // Its times change with its entries.
    this.#set.attributes(path.slice(0, -1));
    if (wanted === null) {
      await this.#remove(place.child(name));
      this.#set.clearAll(node);
      return;
    }
    if (!isDirectory(wanted.mode)) this.#set.clearBelow(node);
    const { claimant } = place.child(name);
    if (claimant !== null && claimant !== node) await this.#remove(place.child(name));
    const there = await attributesOf(this.#copy(place.child(name)));
    const origin = node.origin;
    if (origin !== null) {
      const isHere = origin === place.child(name) && there !== null && isSameType(wanted, there);
      if (isHere || (await this.#moveHere(origin, place, name, wanted))) this.#repaired(node, wanted);
      else this.#unsure(node, path);
      return;
    }
    const hasOtherNames = !isDirectory(wanted.mode) && wanted.nlink > 1;
    if (hasOtherNames && (await this.#linkHere(node, path, place, wanted, there))) return;
    const object: Copy = { ...from, object: { parent: directory, name } };
    const fits = there !== null && (await this.#canBecome(object, wanted, this.#copy(place.child(name)), there));
    if (!fits) {
      await this.#remove(place.child(name));
      await createLike(object, wanted, this.#copy(place.child(name)));
    } else if (!this.#isFull) this.#links.suspect(there, false);
    if (hasOtherNames) await this.#note(path, wanted, place.child(name));
    object.replica.forget(object.object);
    this.#existing(node, wanted, !fits);
  }

  /** The right object has the name now: what is left are its attributes, and whatever was marked in it. */
  #repaired(node: DirtyNode, wanted: FileAttr): void {
    node.flags |= ATTRIBUTES;
    if (!isDirectory(wanted.mode) && (node.flags & (TREE | SCAN)) !== 0) this.#existing(node, wanted, false);
    else this.#set.clearFlags(node, ENTRY);
  }

  /** Something of the right type has the name; what is in it is not known to be right. */
  #existing(node: DirtyNode, wanted: FileAttr, isNew: boolean): void {
    const wasUncertain = (node.flags & TREE) !== 0;
    node.flags |= ATTRIBUTES;
    if (isDirectory(wanted.mode)) {
      // What happened in a directory that was made meanwhile is marked; names that are not there are looked for.
      if (!wasUncertain) node.flags |= SCAN;
      this.#set.clearFlags(node, ENTRY);
      return;
    }
    const path = node.path();
    if (isRegular(wanted.mode)) {
      if (wasUncertain && !isNew) {
        this.#set.clearFlags(node, ENTRY); // the file is looked at, by its attributes first
        return;
      }
      this.#set.clearFlags(node, TREE | SCAN);
      if (wanted.size > 0 || !isNew) this.#set.data(path, 0, Number.POSITIVE_INFINITY);
    }
    this.#set.clearFlags(node, ENTRY | TREE | SCAN);
  }

  /** It is not where it was thought to be: look at everything. */
  #unsure(node: DirtyNode, path: Path): void {
    this.#set.setOrigin(node, null);
    this.#set.tree(path);
  }

  /** Renames what the replica has elsewhere. False if that is not the object after all. */
  async #moveHere(origin: Origin, place: Origin, name: ByteString, wanted: FileAttr): Promise<boolean> {
    if (origin === place.child(name)) return false;
    const old = await attributesOf(this.#copy(origin));
    if (old === null || !isSameType(wanted, old)) return false;
    await this.#remove(place.child(name));
    await this.#renameTarget(origin, place, name);
    return true;
  }

  async #renameTarget(place: Origin, directory: Origin, name: ByteString): Promise<void> {
    const answer = this.#target.rename(place.parent as Origin, place.name, directory, name, 0);
    await must(this.#copy(place), "rename", answer);
    place.moveTo(directory, name);
  }

  /** Another name of a file that the replica has already. False if it has not. */
  async #linkHere(
    node: DirtyNode,
    path: Path,
    place: Origin,
    wanted: FileAttr,
    there: FileAttr | null,
  ): Promise<boolean> {
    const known = (await this.#knownName(wanted)) ?? (await this.#knownAlias(path, wanted));
    if (known === null) return false;
    if (there?.ino !== known.ino) {
      await this.#remove(place.child(node.name));
      const at = this.#copy(place.child(node.name));
      await must(at, "link", this.#target.link(known.place, place, node.name, null));
    }
    // Contents belong to the file, and were seen to under its other name, or are marked there.
    const isSeenTo = (node.flags & TREE) === 0 || known.isClean || this.#links.isUnchanged(wanted);
    await this.#note(path, wanted, place.child(node.name));
    node.flags |= ATTRIBUTES;
    this.#set.clearFlags(node, TREE | SCAN);
    if (!isSeenTo) this.#set.data(path, 0, Number.POSITIVE_INFINITY);
    this.#set.clearFlags(node, ENTRY);
    return true;
  }

  /** A name of the source's inode that was met before. */
  async #knownName(wanted: FileAttr): Promise<KnownName | null> {
    const known = this.#links.find(wanted.ino);
    if (known === null) return null;
    const place = hasNoPlace(known.node) ? null : this.#set.placeOf(pathOf(known.node));
    const attr = place === null ? null : await attributesOf(this.#copy(place));
    if (place !== null && attr?.ino === known.targetIno) return { place, ino: attr.ino, isClean: false };
    this.#links.forget(wanted.ino);
    return null;
  }

  /** The volume may know the file by another name that is clean. */
  async #knownAlias(path: Path, wanted: FileAttr): Promise<KnownName | null> {
    const node = this.#pin(path);
    try {
      const names = [{ parent: node.parent, name: node.name }, ...(node.aliases ?? [])];
      for (const { parent, name } of names) {
        if (parent === null || hasNoPlace(parent)) continue;
        const other = [...pathOf(parent), name];
        if (samePath(other, path) || this.#set.isEntryDirty(other.slice(0, -1), name)) continue;
        const place = this.#set.placeOf(other);
        const attr = place === null ? null : await attributesOf(this.#copy(place));
        if (place !== null && attr !== null && isSameType(attr, wanted)) return { place, ino: attr.ino, isClean: true };
      }
      return null;
    } finally {
      this.#deps.tree.unpin(node);
    }
  }

  /** A name of a file with several is right on the replica. */
  async #note(path: Path, wanted: FileAttr, at: Origin): Promise<void> {
    const attr = await attributesOf(this.#copy(at));
    if (attr !== null) this.#links.met(this.#pin(path), path.join("/"), wanted, attr.ino);
  }

  /** May what is there be changed into what is wanted, or must it go? */
  async #canBecome(source: Copy, wanted: FileAttr, target: Copy, there: FileAttr): Promise<boolean> {
    if (!isSameType(wanted, there)) return false;
    if (isDirectory(wanted.mode)) return true;
    if (this.#links.isTaken(there.ino, wanted.ino)) return false;
    // What is written to one of several names would be written to all.
    if (isRegular(wanted.mode)) return wanted.nlink > 1 || there.nlink === 1;
    if ((wanted.mode & S_IFMT) === S_IFLNK) return (await readLink(source)) === (await readLink(target));
    const isDevice = (wanted.mode & S_IFMT) === S_IFCHR || (wanted.mode & S_IFMT) === S_IFBLK;
    return !isDevice || wanted.rdev === there.rdev;
  }

  /** Clears a place. A directory is only put aside, since this happens under a lock; it is removed after the step. */
  async #remove(place: Origin): Promise<void> {
    const attr = await attributesOf(this.#copy(place));
    if (attr === null) return;
    if (place.claimant === null && !isDirectory(attr.mode)) {
      await removeObject(this.#copy(place), this.#removalHooks());
      return;
    }
    await this.#park(place);
    if (place.claimant === null) this.#trash.push(place.hold());
  }

  async #emptyTrash(): Promise<void> {
    for (let place = this.#trash.pop(); place !== undefined; place = this.#trash.pop()) {
      await removeObject(this.#copy(place), this.#removalHooks());
      place.release();
    }
  }

  #removalHooks() {
    const { throttle, signal } = this.#options;
    return {
      // What has been renamed in the volume is kept for its new place.
      keep: async (object: TreeObject): Promise<boolean> => {
        const place = object as Partial<Origin>;
        if (place.claimant === undefined || place.claimant === null) return false;
        await this.#park(object as Origin);
        return true;
      },
      onOneOfSeveral: (attr: FileAttr): void => this.#links.suspect(attr, true),
      pace: (): Promise<void> => throttle.pace(0, signal),
    };
  }

  async #park(place: Origin): Promise<void> {
    const parking = this.#set.target.child(CONTROL_DIRECTORY).child(PARKING).hold();
    try {
      const made = await this.#target.mkdir(parking.parent as Origin, PARKING, 0o700, { uid: 0, gid: 0 }, null);
      if (made < 0 && made !== -EEXIST) throw new ReplicaCallError(this.#copy(parking), "create", made);
      await this.#renameTarget(place, parking, String(this.#parked++));
    } finally {
      parking.release();
    }
  }

  /** What nobody has come for. */
  async #clearParking(): Promise<void> {
    const parking = this.#set.target.child(CONTROL_DIRECTORY).child(PARKING).hold();
    try {
      const names = await namesIn(this.#copy(parking));
      for (const name of names) this.#parked = Math.max(this.#parked, Number(name) + 1 || 0);
      if (names.length === 0 || [...parking.claimed()].length > 0) return;
      await removeContents(this.#copy(parking), this.#removalHooks());
    } finally {
      parking.release();
    }
  }

  // Walks.

  async #walk(node: DirtyNode, path: Path, source: number): Promise<void> {
    const directory = this.#pin(path);
    const place = this.#place(path);
    try {
      const from: Copy = { replica: this.#deps.replica(source), object: directory };
      const wanted = await attributesOf(from);
      if (wanted === null) {
        // It is gone, or on its way: its name says more.
        if (path.length === 0) throw new Moved();
        this.#set.entry(path.slice(0, -1), node.name);
        return;
      }
      if (isDirectory(wanted.mode)) await this.#walkDirectory(node, from, place, source);
      else await this.#look(node, path, from, wanted, place, source);
    } finally {
      place.release();
      this.#deps.tree.unpin(directory);
    }
  }

  async #walkDirectory(node: DirtyNode, from: Copy, place: Origin, source: number): Promise<void> {
    let listing = this.#listings.get(node);
    if (node.cursor === null || listing === undefined) {
      // From here on changes are marked by name, so that what the listing lacks is not missed.
      this.#set.setCursor(node, node.cursor ?? "");
      const names = new Set([...(await namesIn(from)), ...(await namesIn(this.#copy(place)))]);
      listing = { names: [...names].sort(), index: 0 };
      this.#listings.set(node, listing);
    }
    while (listing.index < listing.names.length) {
      if (!this.#set.holds(node) || !node.isWalking) return;
      const name = listing.names[listing.index++] as ByteString;
      if (name <= (node.cursor ?? "")) continue;
      const flags = await this.#flagsFor(node, name, from, place, source);
      if (flags !== 0) this.#set.found(node, name, flags);
      this.#set.setCursor(node, name);
      this.#seen.files++;
      if (flags !== 0 || this.#set.next() !== node) return; // what was found comes first
      await this.#options.throttle.pace(0, this.#options.signal);
      this.lastProgressMs = performance.now();
    }
    this.#listings.delete(node);
    if (node.isWalking) this.#set.clearFlags(node, TREE | SCAN);
  }

  /** What has to be looked at for one name of a directory that is walked; 0 if it is the same on both. */
  async #flagsFor(node: DirtyNode, name: ByteString, from: Copy, place: Origin, source: number): Promise<number> {
    if (node.parent === null && name === CONTROL_DIRECTORY) return (node.flags & TREE) !== 0 ? TREE : 0;
    const deep = (node.flags & TREE) !== 0;
    const wanted = await lookupIn(from, name);
    const there = await lookupIn(this.#copy(place), name);
    if (wanted === null && there === null) return 0;
    if (wanted === null || there === null || !isSameType(wanted, there)) return ENTRY | TREE;
    const isChanged = this.#isSince(wanted, source);
    const differs = compareAttributes(wanted, there).length > 0;
    if (isDirectory(wanted.mode)) {
      if (deep) return TREE | ATTRIBUTES;
      return isChanged ? SCAN | ATTRIBUTES : differs ? ATTRIBUTES : 0;
    }
    this.#seen.bytes += wanted.size;
    const mustLook = deep && (this.#options.contents === true || !isRegular(wanted.mode));
    const hasOtherNames = wanted.nlink > 1 || there.nlink > 1;
    if (hasOtherNames && (deep || isChanged || differs)) return ENTRY | TREE;
    if (differs || isChanged || mustLook) return TREE;
    if (!deep) return 0;
    const object = { parent: from.object, name };
    const child = place.child(name).hold();
    try {
      return (await haveSameXattrs({ ...from, object }, this.#copy(child))) ? 0 : ATTRIBUTES;
    } finally {
      from.replica.forget(object);
      this.#target.forget(child);
      child.release();
    }
  }

  /** A file, or something else that is no directory, of which nothing is known. */
  async #look(node: DirtyNode, path: Path, from: Copy, wanted: FileAttr, place: Origin, source: number): Promise<void> {
    this.#set.clearBelow(node);
    const there = await attributesOf(this.#copy(place));
    if (there === null || !isSameType(wanted, there)) {
      this.#set.entry(path.slice(0, -1), node.name);
      return;
    }
    if (!isRegular(wanted.mode)) {
      if (!(await this.#canBecome(from, wanted, this.#copy(place), there))) {
        this.#set.entry(path.slice(0, -1), node.name);
      }
    }
    node.flags |= ATTRIBUTES;
    this.#set.clearFlags(node, TREE | SCAN);
    if (!isRegular(wanted.mode)) return;
    const same = wanted.size === there.size && wanted.mtime === there.mtime && wanted.mtimeNsec === there.mtimeNsec;
    if (same && this.#options.contents !== true && !this.#isSince(wanted, source)) return;
    this.#set.data(path, 0, Number.POSITIVE_INFINITY);
  }

  /** Has it changed on the source since the replica may have been different? */
  #isSince(wanted: FileAttr, source: number): boolean {
    const since = this.#options.since?.(source) ?? null;
    if (since === null) return false;
    const from = { seconds: since.seconds - clockMarginSeconds, nsec: since.nsec };
    return !isBefore({ seconds: wanted.ctime, nsec: wanted.ctimeNsec }, from);
  }

  // Objects.

  async #repairData(node: DirtyNode, path: Path, source: number): Promise<void> {
    const file = this.#pin(path);
    const place = this.#place(path);
    const from: Copy = { replica: this.#deps.replica(source), object: file };
    const target = this.#copy(place);
    try {
      const wanted = await attributesOf(from);
      if (wanted === null || !isRegular(wanted.mode)) {
        if (wanted === null) this.#set.entry(path.slice(0, -1), node.name);
        this.#set.clearData(node, 0, Number.POSITIVE_INFINITY);
        return;
      }
      const sourceHandle = await must(from, "open", from.replica.open(file, "read"));
      try {
        const targetHandle = await must(target, "open", this.#target.open(place, "read-write"));
        try {
          await this.#copyRanges(
            node,
            file,
            { ...from, handle: sourceHandle },
            { ...target, handle: targetHandle },
            wanted,
          );
        } finally {
          await this.#target.close(targetHandle);
        }
      } finally {
        await from.replica.close(sourceHandle);
      }
    } finally {
      place.release();
      this.#deps.tree.unpin(file);
    }
  }

  async #copyRanges(
    node: DirtyNode,
    file: TreeNode,
    from: Copy & { readonly handle: number },
    target: Copy & { readonly handle: number },
    attr: FileAttr,
  ): Promise<void> {
    const { throttle, signal } = this.#options;
    for (;;) {
      const range = node.ranges?.first() ?? null;
      if (range === null || (node.flags & ENTRY) !== 0 || !this.#set.holds(node)) return;
      const start = range[0];
      const end = Math.min(range[1], start + unitBytes - (start % unitBytes));
      let bytes = 0;
      {
        const lock = await this.#deps.locks.acquire(this.#lockedAs(file, attr), start, end);
        try {
          if (file.detached || !this.#set.holds(node)) return;
          await must(from, "read attributes of", from.replica.fgetattr(from.handle, attr));
          if (start < attr.size) {
            bytes = await copyBytes(from, target, start, end, attr.size);
            this.#set.clearData(node, start, end);
          } else {
            // Cut off since; a write behind the end may have made a hole before it to data.
            bytes = await copyBytes(from, target, attr.size - (attr.size % blockBytes), attr.size, attr.size);
            this.#set.clearData(node, start, range[1]);
          }
        } finally {
          lock.release();
        }
      }
      this.#bytesWritten += bytes;
      this.#seen.bytes += Math.max(0, Math.min(end, attr.size) - start);
      this.lastProgressMs = performance.now();
      await throttle.pace(bytes, signal);
    }
  }

  async #repairAttributes(node: DirtyNode, path: Path, source: number): Promise<void> {
    const object = this.#pin(path);
    const place = this.#place(path);
    const from: Copy = { replica: this.#deps.replica(source), object };
    try {
      const known = await attributesOf(from);
      const lock = await this.#deps.locks.acquire(known === null ? object : this.#lockedAs(object, known));
      try {
        if (!this.#set.holds(node) || object.detached || node.ranges !== null || (node.flags & ~ATTRIBUTES) !== 0)
          return;
        const wanted = await attributesOf(from);
        const there = await attributesOf(this.#copy(place));
        if (wanted === null || there === null || !isSameType(wanted, there)) {
          if (path.length === 0) throw new Moved();
          this.#set.entry(path.slice(0, -1), node.name);
          return;
        }
        await copyAttributes(from, wanted, this.#copy(place), there);
        this.#set.clearFlags(node, ATTRIBUTES);
      } finally {
        lock.release();
      }
    } finally {
      place.release();
      this.#deps.tree.unpin(object);
    }
  }

  // Hard links whose other names were not met.

  /** True if there is something to do again. */
  async #findLinks(): Promise<boolean> {
    const source = this.#deps.sources()[0];
    const unmet = new Set(this.#links.unmet);
    const suspects = new Set(this.#links.suspects.keys());
    this.#links.clear();
    // Names that come and go meanwhile are marked by the changes themselves, so this need not go on for ever.
    if (source === undefined || unmet.size + suspects.size === 0 || this.#linkRounds++ >= 4) return false;
    if (unmet.size > 0) await this.#markNames({ replica: this.#deps.replica(source), object: rootObject }, [], unmet);
    if (suspects.size > 0) await this.#markNames(this.#copy(this.#set.target), [], suspects);
    return !this.#set.isEmpty;
  }

  /** Marks every name of these inodes that one replica has. */
  async #markNames(directory: Copy, path: Path, inos: ReadonlySet<number>): Promise<void> {
    const { names, types, inos: numbers } = await listOf(directory);
    await this.#options.throttle.pace(0, this.#options.signal);
    for (const [i, name] of names.entries()) {
      if (path.length === 1 && path[0] === CONTROL_DIRECTORY && name !== ORPHANS) continue;
      if (inos.has(numbers[i] as number) && !isDirectory(types[i] as number)) {
        this.#set.entry(path, name);
        this.#set.tree([...path, name]);
      } else if (isDirectory(types[i] as number) || types[i] === 0) {
        const object = { parent: directory.object, name };
        await this.#markNames({ ...directory, object }, [...path, name], inos);
        directory.replica.forget(object);
      }
    }
  }

  // Places.

  #copy(object: TreeObject): Copy {
    return { replica: this.#target, object };
  }

  /** Where the replica has what is at this path; give it back with `release`. */
  #place(path: Path): Origin {
    const place = this.#set.isReachable(path) ? this.#set.placeOf(path) : null;
    if (place === null) throw new Moved();
    return place.hold();
  }

  #pin(path: Path): TreeNode {
    const { tree, orphans } = this.#deps;
    let at = tree.root;
    at.pins++;
    for (const [i, name] of path.entries()) {
      let next: TreeNode;
      if (i === 0 && name === CONTROL_DIRECTORY) next = orphans.control;
      else if (at === orphans.control && name === ORPHANS) next = orphans.directory;
      else next = tree.pin(at, name);
      if (next === orphans.control || next === orphans.directory) next.pins++;
      tree.unpin(at);
      at = next;
    }
    return at;
  }

  /** The volume may know a file with several names by another one, and lock it as that. */
  #lockedAs(node: TreeNode, attr: FileAttr): TreeNode {
    if (isDirectory(attr.mode) || attr.nlink < 2) return node;
    return this.#deps.linked?.(attr.ino) ?? node;
  }

  /** Under the directory's lock: is everything still where it was before it was waited for? */
  #mustHold(node: DirtyNode, path: Path, directory: TreeNode, parentPath: Path): void {
    const isThere = this.#set.holds(node) && (node.flags & ENTRY) !== 0 && samePath(node.path(), path);
    if (!isThere || hasNoPlace(directory) || !samePath(pathOf(directory), parentPath)) throw new Moved();
  }

  async #estimateWork(): Promise<void> {
    const source = this.#deps.sources()[0];
    if (source === undefined || !this.#isFull) return;
    const stats = {
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    };
    if ((await this.#deps.replica(source).statfs(stats)) < 0) return;
    const files = Math.max(0, stats.files - stats.freeFiles);
    this.#estimate = { files, bytes: Math.max(0, stats.blocks - stats.freeBlocks) * stats.blockSizeBytes };
  }
}

const rootObject: TreeObject = { parent: null, name: "" };

function isSameType(a: FileAttr, b: FileAttr): boolean {
  return (a.mode & S_IFMT) === (b.mode & S_IFMT);
}

function samePath(a: Path, b: Path): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}

async function haveSameXattrs(a: Copy, b: Copy): Promise<boolean> {
  const [x, y] = [await xattrsOf(a), await xattrsOf(b)];
  if (x.size !== y.size) return false;
  for (const [name, value] of x) {
    const other = y.get(name);
    if (other === undefined || Buffer.compare(value, other) !== 0) return false;
  }
  return true;
}
