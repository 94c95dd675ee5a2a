/**
 * Compares all in-sync replicas while the volume is in use, and reports every difference. What looks different is looked
 * at again under its lock, with its times settled, so that changes under way are no false alarms.
 *
 * Which replica is wrong: with three or more, the leader if the others agree with each other; else whoever differs from
 * the leader. With `repair`, a replica that is wrong leaves the set and is resynced in just what differs: it was not in
 * sync, and reads must not go there until it is.
 */
import type { Replica, TreeObject } from "../replica/replica.ts";
import { type ByteString, printable } from "../util/byte-string.ts";
import { type FileAttr, isDirectory } from "../util/file-attr.ts";
import { type CompareOptions, compareCopies, type Difference, type DifferenceKind } from "./compare.ts";
import type { ObjectLocks } from "./contracts.ts";
import { DirtySet } from "./dirty-set.ts";
import { hasNoPlace, type Path, pathOf } from "./node-path.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";
import { attributesOf, lookupIn, namesIn } from "./replica-call.ts";
import type { Throttle } from "./throttle.ts";
import type { Tree, TreeNode } from "./tree.ts";

export interface VerifyDeps {
  readonly tree: Tree;
  readonly locks: ObjectLocks;
  readonly replica: (index: number) => Replica;
  /** In-sync replicas, the leader first. */
  readonly inSync: () => readonly number[];
  /** Makes the modification time of an object equal everywhere, if that is still to be done. */
  readonly settle: (node: TreeNode) => Promise<void>;
  /** Numbers of links say nothing now: some are the volume's own, and not on every replica at the same time. */
  readonly linksVary?: () => boolean;
  /** Takes a replica out of the set that differs in just this, to be resynced. */
  readonly repair: (replica: number, set: DirtySet) => Promise<void>;
}

export interface VerifyOptions {
  readonly throttle: Throttle;
  readonly signal: AbortSignal;
  readonly repair: boolean;
  readonly onProgress?: (progress: { readonly filesCompared: number; readonly bytesCompared: number }) => void;
}

export interface FoundDifference {
  /** From the volume's root, printable. */
  readonly path: string;
  readonly replica: string;
  readonly aspect: DifferenceKind;
  readonly detail: string;
}

export interface VerifyResult {
  readonly filesCompared: number;
  readonly bytesCompared: number;
  /** Objects that are made alike by the resyncs that follow. */
  readonly repaired: number;
  readonly differences: readonly FoundDifference[];
}

/** A file that is written to all the time has no time that could be compared. */
const mtimeAttempts = 5;

export class Verify {
  readonly #deps: VerifyDeps;
  readonly #options: VerifyOptions;
  readonly #compare: CompareOptions;
  readonly #differences: FoundDifference[] = [];
  readonly #dirty = new Map<number, DirtySet>();
  /** For each replica, its inode by the leader's, and the other way round, of files with several names. */
  readonly #inodes = new Map<number, { readonly its: Map<number, number>; readonly leaders: Map<number, number> }>();
  #files = 0;
  #bytes = 0;
  #wrong = 0;

  constructor(deps: VerifyDeps, options: VerifyOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#compare = { throttle: options.throttle, signal: options.signal, contents: true, holes: true };
  }

  async run(): Promise<VerifyResult> {
    const { tree } = this.#deps;
    tree.root.pins++;
    try {
      await this.#object(tree.root, tree.root);
      await this.#directory(tree.root);
    } finally {
      tree.unpin(tree.root);
    }
    if (this.#options.repair) for (const [index, set] of this.#dirty) await this.#deps.repair(index, set);
    return {
      filesCompared: this.#files,
      bytesCompared: this.#bytes,
      repaired: this.#options.repair ? this.#wrong : 0,
      differences: this.#differences,
    };
  }

  async #directory(directory: TreeNode): Promise<void> {
    const { tree } = this.#deps;
    for (const name of await this.#names(directory)) {
      if (directory === tree.root && name === CONTROL_DIRECTORY) continue;
      await this.#options.throttle.pace(0, this.#options.signal);
      const node = tree.pin(directory, name);
      const place = { parent: directory, name };
      try {
        const isDir = await this.#entry(directory, name, node, place);
        if (isDir) await this.#directory(node);
      } finally {
        for (const index of this.#deps.inSync()) this.#deps.replica(index).forget(place);
        tree.unpin(node);
      }
    }
  }

  /** All names that any replica has. */
  async #names(directory: TreeNode): Promise<ByteString[]> {
    const names = new Set<ByteString>();
    for (const index of this.#deps.inSync()) {
      for (const name of await namesIn({ replica: this.#deps.replica(index), object: directory })) names.add(name);
    }
    return [...names].sort();
  }

  /** One name; true if it is a directory on all replicas. */
  async #entry(directory: TreeNode, name: ByteString, node: TreeNode, place: TreeObject): Promise<boolean> {
    const types = await this.#types(directory, name);
    if (types.size === 1 && !types.has("none")) {
      await this.#object(node, place);
      return types.has("directory");
    }
    const lock = await this.#deps.locks.acquire(directory);
    try {
      // It may have come or gone meanwhile.
      if (hasNoPlace(directory)) return false;
      const again = await this.#types(directory, name);
      if (again.size === 1) return false;
      await this.#report(place, await this.#allDifferences(place));
      return false;
    } finally {
      lock.release();
    }
  }

  async #types(directory: TreeNode, name: ByteString): Promise<Set<"none" | "directory" | "other">> {
    const types = new Set<"none" | "directory" | "other">();
    for (const index of this.#deps.inSync()) {
      const attr = await lookupIn({ replica: this.#deps.replica(index), object: directory }, name);
      types.add(attr === null ? "none" : isDirectory(attr.mode) ? "directory" : "other");
    }
    return types;
  }

  /** A file with several names is looked at under each: on a replica that is wrong they may be different files. */
  async #object(node: TreeNode, place: TreeObject): Promise<void> {
    this.#files++;
    if (this.#files % 64 === 0) {
      this.#options.onProgress?.({ filesCompared: this.#files, bytesCompared: this.#bytes });
    }
    const quick = await this.#allDifferences(place);
    if (quick.size === 0) return;
    let mtimes: string | null = null;
    for (let attempt = 1; ; attempt++) {
      await this.#deps.settle(node);
      const lock = await this.#deps.locks.acquire(node);
      try {
        const directory = place.parent as TreeNode | null;
        if (hasNoPlace(node) || (directory !== null && this.#deps.tree.get(directory, place.name) !== node)) return;
        const found = await this.#allDifferences(place);
        if (found.size === 0) return;
        const onlyTimes = [...found.values()].every((list) => list.every(({ kind }) => kind === "mtime"));
        if (onlyTimes && attempt < mtimeAttempts) {
          const now = JSON.stringify([...found]);
          if (mtimes !== null && now !== mtimes) return; // it is being changed
          mtimes = now;
          continue;
        }
        await this.#report(place, found);
        return;
      } finally {
        lock.release();
      }
    }
  }

  /** What differs from the leader, by replica. */
  async #allDifferences(object: TreeObject): Promise<Map<number, readonly Difference[]>> {
    const found = new Map<number, readonly Difference[]>();
    const [leader, ...others] = this.#deps.inSync();
    if (leader === undefined) return found;
    const first = { replica: this.#deps.replica(leader), object };
    const attr = await attributesOf(first);
    for (const index of others) {
      const second = { replica: this.#deps.replica(index), object };
      const varied = this.#deps.linksVary?.() ?? false;
      let differences = await compareCopies(first, second, this.#compare);
      const links = await this.#linkDifference(index, attr, await attributesOf(second));
      if (links !== null) differences.push(links);
      if (varied || this.#deps.linksVary?.()) differences = differences.filter(({ kind }) => kind !== "links");
      if (differences.length > 0) found.set(index, differences);
    }
    if (attr !== null && !isDirectory(attr.mode)) this.#bytes += attr.size;
    return found;
  }

  /** Two names of one file must be names of one file everywhere. */
  async #linkDifference(index: number, leaders: FileAttr | null, its: FileAttr | null): Promise<Difference | null> {
    if (leaders === null || its === null || isDirectory(leaders.mode) || Math.max(leaders.nlink, its.nlink) < 2) {
      return null;
    }
    let inodes = this.#inodes.get(index);
    if (inodes === undefined) {
      inodes = { its: new Map(), leaders: new Map() };
      this.#inodes.set(index, inodes);
    }
    const [expected, back] = [inodes.its.get(leaders.ino), inodes.leaders.get(its.ino)];
    if (expected === undefined && back === undefined) {
      inodes.its.set(leaders.ino, its.ino);
      inodes.leaders.set(its.ino, leaders.ino);
      return null;
    }
    if (expected === its.ino && back === leaders.ino) return null;
    return { kind: "links", detail: "the names belong to different files" };
  }

  async #report(place: TreeObject, found: ReadonlyMap<number, readonly Difference[]>): Promise<void> {
    const wrong = await this.#blame(place, found);
    const path = pathOf(place);
    const text = `/${path.map(printable).join("/")}`;
    for (const [index, differences] of wrong) {
      this.#wrong++;
      for (const { kind, detail } of differences) {
        this.#differences.push({ path: text, replica: this.#deps.replica(index).name, aspect: kind, detail });
      }
      let set = this.#dirty.get(index);
      if (set === undefined) {
        set = new DirtySet();
        this.#dirty.set(index, set);
      }
      mark(set, path, differences);
    }
  }

  /** With three or more replicas the leader may be the one that is wrong. */
  async #blame(
    object: TreeObject,
    found: ReadonlyMap<number, readonly Difference[]>,
  ): Promise<ReadonlyMap<number, readonly Difference[]>> {
    const [leader, ...others] = this.#deps.inSync();
    const [first, second] = others;
    if (leader === undefined || first === undefined || second === undefined || found.size < others.length) return found;
    const copy = (index: number): { replica: Replica; object: TreeObject } => ({
      replica: this.#deps.replica(index),
      object,
    });
    for (const index of others.slice(1)) {
      if ((await compareCopies(copy(first), copy(index), this.#compare)).length > 0) return found;
    }
    return new Map([[leader, found.get(first) ?? []]]);
  }
}

function mark(set: DirtySet, path: Path, differences: readonly Difference[]): void {
  for (const { kind } of differences) {
    switch (kind) {
      case "content":
      case "holes":
      case "size":
        set.data(path, 0, Number.POSITIVE_INFINITY);
        break;
      case "mode":
      case "owner":
      case "mtime":
      case "xattrs":
        set.attributes(path);
        break;
      default: {
        const name = path[path.length - 1];
        if (name === undefined) set.attributes(path);
        else {
          set.entry(path.slice(0, -1), name);
          set.tree(path, true);
        }
      }
    }
  }
}
