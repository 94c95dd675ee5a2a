/**
 * What the parts of a repair share: the dirty set, the replica that is repaired and where it is repaired from, and how
 * the same object is named on both. The source is spoken to by nodes of the volume's tree, which its renames move; the
 * target by places in its own tree (`DirtySet.target`), which only its own renames move.
 */
import type { Replica, TimeSpec, TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { type FileAttr, isDirectory, S_IFMT } from "../util/file-attr.ts";
import type { ObjectLocks } from "./contracts.ts";
import { CONTENTS, type DirtyNode, type Origin } from "./dirty-node.ts";
import type { DirtySet } from "./dirty-set.ts";
import { isBefore } from "./intent-read.ts";
import type { Path } from "./node-path.ts";
import { CONTROL_DIRECTORY, type Orphans } from "./orphans.ts";
import type { Copy } from "./replica-call.ts";
import { LinkTable } from "./resync-links.ts";
import type { Throttle } from "./throttle.ts";
import type { Tree, TreeNode } from "./tree.ts";

export const ORPHANS = "orphans";
/** Clocks of file systems are coarse, and a call takes a while: what changed a little earlier is looked at as well. */
const clockMarginSeconds = 15;

export interface RepairDeps {
  readonly tree: Tree;
  readonly orphans: Orphans;
  readonly locks: ObjectLocks;
  readonly replica: (index: number) => Replica;
  /** In-sync replicas, the leader first. */
  readonly sources: () => readonly number[];
  /** A source could not be read; another one is tried next. */
  readonly onSourceFailed: (index: number, errno: number) => void;
  /** The node by which the volume already knows a file with several names, by its inode number on the leader. */
  readonly linked?: (ino: number) => TreeNode | undefined;
}

export interface RepairOptions {
  readonly throttle: Throttle;
  readonly signal: AbortSignal;
  /** Compare the contents of files whose size and times are equal: for copies of unknown origin. */
  readonly contents?: boolean;
  /** Nothing changes meanwhile: what is not where it should be is not waited for. */
  readonly isStill?: boolean;
  /** A replica's own time when the first intent was made that was not cleared before the two may have come apart, if
   *  that is known: contents of what has changed since, by the replica's own clock, are compared. */
  readonly since?: (replica: number) => TimeSpec | null;
}

/** A step met something that has changed meanwhile: look again. */
export class Moved extends Error {
  override readonly name = "Moved";
}

export class RepairContext {
  readonly deps: RepairDeps;
  readonly options: RepairOptions;
  readonly set: DirtySet;
  readonly index: number;
  readonly target: Replica;
  readonly links: LinkTable;
  /** Everything is being walked: whatever has several names is met under each of them. */
  readonly isFull: boolean;
  since: ((replica: number) => TimeSpec | null) | null;
  entries = 0;
  bytesWritten = 0;
  readonly seen = { files: 0, bytes: 0 };
  /** Of the file that is being copied, where its marks do not say how much is left of it. */
  readonly underWay = { bytes: 0 };
  /** When a step last came to an end, on the monotonic clock. */
  lastProgressMs = performance.now();

  constructor(deps: RepairDeps, index: number, set: DirtySet, isFull: boolean, options: RepairOptions) {
    this.deps = deps;
    this.options = options;
    this.set = set;
    this.index = index;
    this.target = deps.replica(index);
    this.links = new LinkTable((node) => deps.tree.unpin(node), set.suspects);
    this.isFull = isFull;
    this.since = options.since ?? null;
  }

  copy(object: TreeObject): Copy {
    return { replica: this.target, object };
  }

  /** Where the replica has what is at this path; give it back with `release`. */
  place(path: Path): Origin {
    const place = this.set.isReachable(path) ? this.set.placeOf(path) : null;
    if (place === null) throw new Moved();
    return place.hold();
  }

  pin(path: Path): TreeNode {
    const { tree, orphans } = this.deps;
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

  /**
   * The target may have another object than before where the volume has this one: what it keeps for the volume's nodes, here
   * and below (descriptors, file handles), is dropped. Called in the same turn in which changes begin to go there again;
   * with the old ones they would go to whatever the node was there before.
   */
  renewed(directory: TreeNode, name: ByteString): void {
    const node = this.deps.tree.get(directory, name);
    if (node !== undefined) this.#renew(node, true);
  }

  /** The same for all names in a directory of which nothing is certain. */
  renewedEntries(directory: TreeNode): void {
    for (const child of directory.children?.values() ?? []) this.#renew(child, false);
  }

  #renew(node: TreeNode, below: boolean): void {
    this.target.forget(node);
    const file = node.open;
    const handle = file?.handles[this.index] ?? -1;
    if (file !== null && handle >= 0) {
      // A call may still be under way on it: it is closed with the file.
      file.retired.push({ index: this.index, handle });
      file.handles[this.index] = -1;
      file.writable[this.index] = false;
    }
    if (below) for (const child of node.children?.values() ?? []) this.#renew(child, true);
  }

  /** The volume may know a file with several names by another one, and lock it as that. */
  lockedAs(node: TreeNode, attr: FileAttr): TreeNode {
    if (isDirectory(attr.mode) || attr.nlink < 2) return node;
    return this.deps.linked?.(attr.ino) ?? node;
  }

  /** Has it changed on one of the two since they may be different? */
  isChanged(wanted: FileAttr, source: number, there: FileAttr): boolean {
    return this.#isSince(wanted, source) || this.#isSince(there, this.index);
  }

  #isSince(attr: FileAttr, replica: number): boolean {
    const since = this.since?.(replica) ?? null;
    if (since === null) return false;
    const from = { seconds: since.seconds - clockMarginSeconds, nsec: since.nsec };
    return !isBefore({ seconds: attr.ctime, nsec: attr.ctimeNsec }, from);
  }

  /** True where contents have to be compared whatever the attributes say. */
  mustCompare(node: DirtyNode): boolean {
    return this.options.contents === true || (node.flags & CONTENTS) !== 0;
  }
}

export const rootObject: TreeObject = { parent: null, name: "" };

export function isSameType(a: FileAttr, b: FileAttr): boolean {
  return (a.mode & S_IFMT) === (b.mode & S_IFMT);
}

export function samePath(a: Path, b: Path): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}
