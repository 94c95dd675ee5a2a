/**
 * Tells each change to the dirty set of every replica that is not in sync.
 *
 * - `entry`, `data` and `attributes` are told before the change is sent anywhere, `follows…` is asked in the same turn
 *   of the loop, and so they agree: a syncing replica takes a change exactly if it was not marked.
 * - `rename` is told when it has succeeded, before the directories' locks are released, with who has followed it: marks
 *   move along with what has moved, not with what should have.
 */
import type { ByteString } from "../util/byte-string.ts";
import type { MissedChanges } from "./contracts.ts";
import { DirtySet } from "./dirty-set.ts";
import { markIntents } from "./intent-dirty.ts";
import type { IntentRecord } from "./intent-record.ts";
import { hasNoPlace, pathOf } from "./node-path.ts";
import type { TreeNode } from "./tree.ts";
import { classify } from "./verdict.ts";

/** What is known of the time before a replica left. */
export type MissedFrom =
  /** The intents that no checkpoint has cleared: all that it took and may have lost again, and what it failed at. */
  | { readonly kind: "intents"; readonly records: readonly IntentRecord[] }
  /** Nothing: everything may differ. */
  | { readonly kind: "everything" }
  /** What an earlier process had kept. */
  | { readonly kind: "saved"; readonly set: DirtySet };

interface LeftBehind {
  readonly set: DirtySet;
  syncing: boolean;
}

export class MissedChangesLog implements MissedChanges {
  active = false;
  readonly #replicas = new Map<number, LeftBehind>();
  readonly #onFailed: (replica: number, errno: number) => void;
  readonly #maxNodes: number;

  /** `onFailed`: a syncing replica failed a change that it followed; its resync has to stop. */
  constructor(
    options: { readonly onFailed?: (replica: number, errno: number) => void; readonly maxNodes?: number } = {},
  ) {
    this.#onFailed = options.onFailed ?? (() => {});
    this.#maxNodes = options.maxNodes ?? 100_000;
  }

  /** A replica has left, or is out from the start. What it is known to miss already is kept. */
  begin(replica: number, from: MissedFrom): DirtySet {
    const known = this.#replicas.get(replica);
    const set = known?.set ?? (from.kind === "saved" ? from.set : new DirtySet({ maxNodes: this.#maxNodes }));
    if (from.kind === "intents") markIntents(set, from.records);
    else if (from.kind === "everything") set.tree([]);
    else if (set !== from.set) set.addAll(from.set);
    this.#replicas.set(replica, { set, syncing: false });
    this.active = true;
    return set;
  }

  /** It is in sync, or not a replica of this volume any more. */
  end(replica: number): void {
    this.#replicas.delete(replica);
    this.active = this.#replicas.size > 0;
  }

  /** From now on it takes changes to what is repaired; or, with false, no longer. */
  setSyncing(replica: number, syncing: boolean): void {
    const left = this.#replicas.get(replica);
    if (left !== undefined) left.syncing = syncing;
  }

  isSyncing(replica: number): boolean {
    return this.#replicas.get(replica)?.syncing === true;
  }

  of(replica: number): DirtySet | null {
    return this.#replicas.get(replica)?.set ?? null;
  }

  /** Everything that the replica has becomes uncertain: for a full resync, or when the knowledge has a gap. */
  forgetAll(replica: number): void {
    this.#replicas.get(replica)?.set.tree([]);
  }

  entry(directory: TreeNode, name: ByteString): void {
    if (hasNoPlace(directory)) return;
    const path = pathOf(directory);
    for (const left of this.#replicas.values()) {
      if (left.syncing && !left.set.isEntryDirty(path, name)) continue;
      left.set.entry(path, name);
    }
  }

  data(node: TreeNode, start: number, end: number): void {
    if (hasNoPlace(node)) return;
    const paths = pathsOf(node);
    for (const { set, syncing } of this.#replicas.values()) {
      if (syncing && !paths.some((path) => set.isRangeDirty(path, start, end))) continue;
      // Under all its names, since a resync may have one of them behind it and another before it.
      for (const path of paths) set.data(path, start, end);
    }
  }

  attributes(node: TreeNode, newSize = Number.POSITIVE_INFINITY): void {
    if (hasNoPlace(node)) return;
    const paths = pathsOf(node);
    for (const { set, syncing } of this.#replicas.values()) {
      if (syncing && !paths.some((path) => set.isDirty(path))) continue;
      for (const path of paths) {
        if (newSize < Number.POSITIVE_INFINITY) set.data(path, newSize, Number.POSITIVE_INFINITY);
        else set.attributes(path);
      }
    }
  }

  /** `followed`: syncing replicas that the rename was sent to, and that did it. */
  rename(
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    exchange: boolean,
    followed: readonly number[] = [],
  ): void {
    const fromPath = pathOf(from);
    const toPath = pathOf(to);
    for (const [replica, left] of this.#replicas) {
      if (followed.includes(replica)) left.set.follow(fromPath, fromName, toPath, toName, exchange);
      else left.set.rename(fromPath, fromName, toPath, toName, exchange);
    }
  }

  follows(replica: number, node: TreeNode): boolean {
    const left = this.#replicas.get(replica);
    if (left?.syncing !== true || hasNoPlace(node)) return false;
    return !pathsOf(node).some((path) => left.set.isDirty(path));
  }

  /** Like `follows`, for a write or punch of these bytes, which goes there although others of the file are not repaired. */
  followsData(replica: number, node: TreeNode, start: number, end: number): boolean {
    const left = this.#replicas.get(replica);
    if (left?.syncing !== true || hasNoPlace(node)) return false;
    return !pathsOf(node).some((path) => left.set.isRangeDirty(path, start, end));
  }

  followsEntry(replica: number, directory: TreeNode, name: ByteString): boolean {
    const left = this.#replicas.get(replica);
    return left?.syncing === true && !hasNoPlace(directory) && !left.set.isEntryDirty(pathOf(directory), name);
  }

  /**
   * The replica follows no more, unless it just lacks what was to be changed. `again` tells the change once more, which now marks it; without it nobody knows what
   * the replica lacks, and everything becomes uncertain.
   */
  failed(replica: number, errno: number, again: (() => void) | null = null): void {
    const left = this.#replicas.get(replica);
    if (left === undefined) return;
    left.syncing = false;
    if (again === null) left.set.tree([]);
    else again();
    // An answer, ENOENT say, tells of a difference, which is marked now and will be repaired: nothing is wrong with it.
    if (again !== null && classify(errno) === "answer") left.syncing = true;
    else this.#onFailed(replica, errno);
  }
}

/** All names of a file: it is dirty if any of them is. */
function pathsOf(node: TreeNode): ByteString[][] {
  const paths = [pathOf(node)];
  for (const { parent, name } of node.aliases ?? []) if (!hasNoPlace(parent)) paths.push([...pathOf(parent), name]);
  return paths;
}
