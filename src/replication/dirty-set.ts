/**
 * What one replica that is left behind has missed: marks on a tree of names, which the volume's renames move along.
 *
 * Marks of a node: ENTRY, whatever has this name may be missing, stale or another object on the replica; ATTRIBUTES;
 * byte ranges of data; SCAN, entries of this directory may differ, and what of them changed since the intents began;
 * TREE, everything at and below it may differ (with CONTENTS, also where size and times are the same). SCAN and TREE are
 * walks: `cursor` null means not begun; else names up to the cursor, in byte order, are done, and count only by marks of
 * their own.
 *
 * - Dirtiness is inherited: below an ENTRY nothing is reachable, below a TREE or SCAN not what the walk has yet to reach.
 * - Marks only ever grow, except by `clear*`, which a resync calls under the object's lock, and by a rename's moving them.
 * - A renamed object keeps in `origin` where the replica still has it, if that is certain; a resync renames it there.
 * - Memory is bounded: beyond `maxNodes` the fullest subtree becomes one TREE mark.
 */
import type { ByteString } from "../util/byte-string.ts";
import { ATTRIBUTES, CONTENTS, DirtyNode, ENTRY, type Origin, SCAN, TREE } from "./dirty-node.ts";
import { DirtyRanges } from "./dirty-ranges.ts";
import type { Path } from "./node-path.ts";
import { TargetPlace } from "./target-places.ts";

export class DirtySet {
  readonly root = new DirtyNode(null, "");
  /** The replica's own tree, as far as origins lie in it. */
  readonly target: Origin = new TargetPlace<DirtyNode>(null, "");
  readonly #maxNodes: number;
  #size = 0;
  /**
   * May a mark below a TREE that has not begun be left out? Not while a resync runs: a change that is still under way
   * would happen behind its back. So a resync waits for the changes under way when it has set this to false.
   */
  absorbs = true;
  /** Inodes of the replica with names that may be stale, and how many: whoever repairs looks for them at the end. */
  readonly suspects = new Map<number, number>();
  /** Marks were given up for a TREE although `absorbs` is false: a resync has to wait once more. */
  mustDrain = false;

  constructor(options: { readonly maxNodes?: number } = {}) {
    this.#maxNodes = options.maxNodes ?? 100_000;
  }

  get isEmpty(): boolean {
    return this.root.children === null && !this.root.hasMarks;
  }

  /** Nodes with marks, and those that lead to them. */
  get size(): number {
    return this.#size;
  }

  /** Is anything known to be missed about the object of this name: may a change of the name not be made there? */
  isEntryDirty(directory: Path, name: ByteString): boolean {
    const node = this.#clean(directory);
    return node === undefined || (node !== null && (node.awaits(name) || node.children?.has(name) === true));
  }

  /** Must data and attributes of the object not be changed on the replica, since it or its name is not repaired? */
  isDirty(path: Path): boolean {
    const node = this.#clean(path);
    return node === undefined || node?.hasMarks === true;
  }

  /** Like `isDirty`, for bytes [start, end) of a file: true where it is only other bytes or attributes that differ. */
  isRangeDirty(path: Path, start: number, end: number): boolean {
    const node = this.#clean(path);
    if (node === undefined) return true;
    if (node === null || !node.hasMarks) return false;
    return (node.flags & ~ATTRIBUTES) !== 0 || node.ranges?.intersects(start, end) === true;
  }

  find(path: Path): DirtyNode | null {
    let node = this.root;
    for (const name of path) {
      const next = node.children?.get(name);
      if (next === undefined) return null;
      node = next;
    }
    return node;
  }

  /** A name appears, disappears, or comes to mean another object. */
  entry(directory: Path, name: ByteString): void {
    const node = this.#mark(directory, name);
    if (node !== null) node.flags |= ENTRY;
    this.#bound();
  }

  attributes(path: Path): void {
    const node = this.#mark(path);
    if (node !== null) node.flags |= ATTRIBUTES;
    this.#bound();
  }

  data(path: Path, start: number, end: number): void {
    const node = this.#mark(path);
    if (node !== null) {
      node.ranges ??= new DirtyRanges();
      node.ranges.add(start, end);
      node.flags |= ATTRIBUTES; // its times, and perhaps its size
    }
    this.#bound();
  }

  /** Names in the directory, and which of its entries changed, are uncertain. */
  scan(path: Path): void {
    const node = this.#mark(path);
    if (node !== null) {
      node.flags |= SCAN | ATTRIBUTES;
      node.cursor = null;
    }
    this.#bound();
  }

  /** Everything at this path and below it is uncertain; with `contents`, whatever it looks like from outside. */
  tree(path: Path, contents = false): void {
    const top = this.#mark(path);
    if (top !== null) {
      this.#becomeTree(top);
      if (contents) top.flags |= CONTENTS;
      // What was known of where the replica has things is not certain any more either.
      for (const { node } of [...this.walk(top)]) {
        if (node.origin === null) continue;
        this.setOrigin(node, null);
        this.#becomeUncertain(node);
      }
    }
    this.#bound();
  }

  /** A rename that has happened, and that the replica has not followed. */
  rename(from: Path, fromName: ByteString, to: Path, toName: ByteString, exchange: boolean): void {
    const fromPath = [...from, fromName];
    const toPath = [...to, toName];
    const a = this.#lift(fromPath);
    const b = this.#lift(toPath);
    if (exchange) this.#place(b, from, fromName);
    else {
      this.#release(b);
      this.entry(from, fromName);
    }
    this.#place(a, to, toName);
    this.#bound();
  }

  /** A rename that has happened on the replica as well: marks below, and where it has what, move along. */
  follow(from: Path, fromName: ByteString, to: Path, toName: ByteString, exchange: boolean): void {
    const aPlace = this.placeOf([...from, fromName]);
    const bPlace = this.placeOf([...to, toName]);
    const a = this.find([...from, fromName]);
    const b = this.find([...to, toName]);
    if (a !== null) this.#unhook(a);
    if (b !== null) this.#unhook(b);
    if (exchange && b !== null) this.#place(b, from, fromName);
    else if (b !== null) this.#release(b);
    if (a !== null) this.#place(a, to, toName);
    if (aPlace === null || bPlace === null) return;
    const [aParent, bParent] = [aPlace.parent, bPlace.parent];
    if (aParent === null || bParent === null) return;
    aPlace.moveTo(bParent, toName);
    if (exchange) bPlace.moveTo(aParent, fromName);
    aPlace.prune();
    bPlace.prune();
  }

  /** The next node to work on: names from the top, then what is below, then the rest of a walk, attributes last. */
  next(): DirtyNode | null {
    let node = this.root;
    for (;;) {
      if ((node.flags & ENTRY) !== 0) return node;
      if ((node.flags & (TREE | SCAN)) !== 0 && node.cursor === null) return node;
      // Of a walk, the name that it has come to; the others are not in reach yet, or can wait.
      const child: DirtyNode | undefined = node.isWalking
        ? node.children?.get(node.cursor as ByteString)
        : node.children?.values().next().value;
      if (child !== undefined) node = child;
      else if (node.hasMarks || node.parent === null) return node.hasMarks ? node : null;
      else {
        this.#prune(node); // what was marked below it has moved away
        node = this.root;
      }
    }
  }

  /** Is this node still one of the set, at its place? */
  holds(node: DirtyNode): boolean {
    let at = node;
    while (at.parent !== null) {
      if (at.parent.children?.get(at.name) !== at) return false;
      at = at.parent;
    }
    return at === this.root;
  }

  /** Is the object of this path, which may be dirty itself, found on the replica? */
  isReachable(path: Path): boolean {
    return this.#clean(path) !== undefined;
  }

  clearFlags(node: DirtyNode, flags: number): void {
    node.flags &= ~flags;
    if ((flags & ENTRY) !== 0) this.setOrigin(node, null);
    if ((node.flags & TREE) === 0) node.flags &= ~CONTENTS;
    if ((node.flags & (TREE | SCAN)) === 0) node.cursor = null;
    this.#prune(node);
  }

  clearData(node: DirtyNode, start: number, end: number): void {
    node.ranges?.remove(start, end);
    if (node.ranges?.isEmpty === true) node.ranges = null;
    this.#prune(node);
  }

  /** The object is gone from the volume and from the replica: nothing at or below the name is left to do. */
  clearAll(node: DirtyNode): void {
    this.#dropChildren(node);
    node.flags = 0;
    node.ranges = null;
    node.cursor = null;
    this.setOrigin(node, null);
    this.#prune(node);
  }

  /** It is no directory: what is marked below it was never there, or is gone. */
  clearBelow(node: DirtyNode): void {
    this.#dropChildren(node);
    this.#prune(node);
  }

  /** Makes a node of its own for one name that a walk has reached. The walk must have passed it. */
  found(directory: DirtyNode, name: ByteString, flags: number): DirtyNode {
    const node = this.#child(directory, name);
    node.flags |= flags;
    if ((flags & (TREE | SCAN)) !== 0) node.cursor = null;
    return node;
  }

  /** Begins a walk anew where a live change may have been absorbed, or ends it. */
  setCursor(node: DirtyNode, cursor: ByteString): void {
    node.cursor = cursor;
  }

  setOrigin(node: DirtyNode, origin: Origin | null): void {
    const old = node.origin;
    node.origin = origin;
    if (origin !== null) origin.claimant = node;
    if (old !== null && old !== origin) {
      old.claimant = null;
      old.prune();
    }
  }

  /** Where the replica has what the volume has at this path; null where that is not certain. */
  placeOf(path: Path): Origin | null {
    let node: DirtyNode | null = this.root;
    let place: Origin | null = this.target;
    for (const name of path) {
      const awaits: boolean = node?.awaits(name) === true;
      node = node?.children?.get(name) ?? null;
      // Something that has an origin is there, wherever it has been moved to meanwhile.
      if (node !== null && (node.flags & ENTRY) !== 0) place = node.origin;
      else place = awaits ? null : (place?.child(name) ?? null);
    }
    return place;
  }

  /** How much is known to be left: nodes with marks, and bytes in ranges (a whole file counts nothing here). */
  counts(): { readonly files: number; readonly bytes: number } {
    let files = 0;
    let bytes = 0;
    for (const { node } of this.walk()) {
      if (node.hasMarks) files++;
      if (node.ranges !== null)
        for (const [start, end] of node.ranges.list()) if (end !== Number.POSITIVE_INFINITY) bytes += end - start;
    }
    return { files, bytes };
  }

  /** Adds all marks of another set; origins only where this set knows nothing of the path. */
  addAll(other: DirtySet): void {
    for (const { node } of other.walk()) {
      if (!node.hasMarks) continue;
      const path = node.path();
      const mine = this.#mark(path);
      if (mine === null) continue;
      if (node.origin !== null || (mine.origin !== null && (node.flags & ENTRY) !== 0)) this.setOrigin(mine, null);
      if ((node.flags & TREE) !== 0 || node.origin !== null) this.#becomeTree(mine);
      mine.flags |= node.flags;
      mine.cursor = null;
      if (node.ranges !== null) {
        mine.ranges ??= new DirtyRanges();
        mine.ranges.addAll(node.ranges);
      }
    }
    this.#bound();
  }

  /** The node of a path that can be reached on the replica: null where there are no marks, undefined if it cannot. */
  #clean(path: Path): DirtyNode | null | undefined {
    let node = this.root;
    for (const name of path) {
      if (node.awaits(name)) return undefined;
      const next = node.children?.get(name);
      if (next === undefined) return null;
      if ((next.flags & ENTRY) !== 0) return undefined;
      node = next;
    }
    return node;
  }

  /** The node for a mark; null where a TREE that has not begun will come across it anyway. */
  #mark(directory: Path, name?: ByteString): DirtyNode | null {
    let node = this.root;
    for (const part of directory) {
      if (this.#swallows(node)) return null;
      node = this.#child(node, part);
    }
    if (this.#swallows(node)) return null;
    return name === undefined ? node : this.#child(node, name);
  }

  #swallows(node: DirtyNode): boolean {
    return this.absorbs && (node.flags & TREE) !== 0 && node.cursor === null;
  }

  #child(node: DirtyNode, name: ByteString): DirtyNode {
    let child = node.children?.get(name);
    if (child === undefined) {
      child = new DirtyNode(node, name);
      node.children ??= new Map();
      node.children.set(name, child);
      this.#size++;
    }
    return child;
  }

  #becomeTree(node: DirtyNode): void {
    node.flags |= TREE | ATTRIBUTES;
    node.cursor = null;
  }

  /** Another object may have this name on the replica, one that looks the same from outside. */
  #becomeUncertain(node: DirtyNode): void {
    this.#becomeTree(node);
    node.flags |= CONTENTS;
  }

  /** Takes the marks of an object out of its place, with where the replica has it. */
  #lift(path: Path): DirtyNode {
    const origin = this.placeOf(path);
    const node = this.find(path);
    const lifted = node ?? new DirtyNode(null, path[path.length - 1] as ByteString);
    if (node === null) this.#size++;
    else this.#unhook(node);
    if ((lifted.flags & ENTRY) === 0) {
      lifted.flags |= ENTRY;
      if (origin !== null) this.setOrigin(lifted, origin);
      else this.#becomeUncertain(lifted);
    } else {
      if (origin !== lifted.origin) origin?.prune();
      // It may have been there all the time: a removal that was refused has marked it as well.
      if (lifted.origin === null) this.#becomeUncertain(lifted);
    }
    return lifted;
  }

  #place(node: DirtyNode, directory: Path, name: ByteString): void {
    let parent = this.root;
    for (const part of directory) parent = this.#child(parent, part);
    const there = this.#child(parent, name);
    this.#release(there);
    this.#unhook(there);
    node.parent = parent;
    node.name = name;
    parent.children ??= new Map();
    parent.children.set(name, node);
  }

  /** Gives up a subtree of marks that is in no place any more, or is about to be taken out. */
  #release(node: DirtyNode): void {
    this.#dropChildren(node);
    this.setOrigin(node, null);
    this.#size--;
  }

  #dropChildren(node: DirtyNode): void {
    if (node.children === null) return;
    for (const child of node.children.values()) this.#release(child);
    node.children = null;
  }

  #unhook(node: DirtyNode): void {
    const parent = node.parent;
    if (parent === null) return;
    node.parent = null;
    if (parent.children?.get(node.name) === node) parent.children.delete(node.name);
    if (parent.children?.size === 0) parent.children = null;
  }

  #prune(node: DirtyNode): void {
    let at = node;
    while (at.parent !== null && !at.hasMarks && at.children === null) {
      const parent = at.parent;
      this.#unhook(at);
      this.#size--;
      at = parent;
    }
  }

  #bound(): void {
    while (this.#size > this.#maxNodes) {
      const counts = new Map<DirtyNode, number>();
      const count = (node: DirtyNode): number => {
        let total = 1;
        if (node.children !== null) for (const child of node.children.values()) total += count(child);
        counts.set(node, total);
        return total;
      };
      count(this.root);
      let node = this.root;
      for (;;) {
        let heaviest: DirtyNode | null = null;
        for (const child of node.children?.values() ?? []) {
          if (heaviest === null || (counts.get(child) ?? 0) > (counts.get(heaviest) ?? 0)) heaviest = child;
        }
        if (heaviest === null || (counts.get(heaviest) ?? 0) <= this.#size / 2) break;
        node = heaviest;
      }
      this.#collapse(node);
    }
  }

  #collapse(top: DirtyNode): void {
    this.#becomeTree(top);
    for (const { node } of this.walk(top))
      if (node.origin !== null || (node.flags & CONTENTS) !== 0) top.flags |= CONTENTS;
    this.#dropChildren(top);
    top.ranges = null;
    this.mustDrain = !this.absorbs;
  }

  /** Every node from here on, each before what is below it. */
  *walk(node = this.root, depth = 0): Generator<{ node: DirtyNode; depth: number }> {
    yield { node, depth };
    if (node.children !== null) for (const child of node.children.values()) yield* this.walk(child, depth + 1);
  }
}
