/**
 * Walks directories whose entries are uncertain, depth first, with one listing for each level; what is equal costs no
 * write and no mark. Also looks at single objects of which nothing is known.
 */
import type { ByteString } from "../util/byte-string.ts";
import { type FileAttr, isDirectory, isRegular } from "../util/file-attr.ts";
import { compareAttributes } from "./compare.ts";
import { ATTRIBUTES, CONTENTS, type DirtyNode, ENTRY, type Origin, SCAN, TREE } from "./dirty-node.ts";
import type { Path } from "./node-path.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";
import { attributesOf, type Copy, lookupIn, namesIn, xattrsOf } from "./replica-call.ts";
import { isSameType, Moved, type RepairContext, samePath } from "./resync-context.ts";
import { canBecome } from "./resync-entries.ts";
import type { TreeNode } from "./tree.ts";

interface Listing {
  readonly names: readonly ByteString[];
  index: number;
}

export class Walk {
  readonly #c: RepairContext;
  readonly #listings = new Map<DirtyNode, Listing>();

  constructor(context: RepairContext) {
    this.#c = context;
  }

  async step(node: DirtyNode, path: Path, source: number): Promise<void> {
    const directory = this.#c.pin(path);
    const place = this.#c.place(path);
    try {
      const from: Copy = { replica: this.#c.deps.replica(source), object: directory };
      const wanted = await attributesOf(from);
      if (wanted === null) {
        // It is gone, or on its way: its name says more.
        if (path.length === 0) throw new Moved();
        this.#c.set.entry(path.slice(0, -1), node.name);
        return;
      }
      if (isDirectory(wanted.mode)) await this.#walkDirectory(node, directory, from, place, source);
      else await this.#look(node, path, from, wanted, place, source);
    } finally {
      place.release();
      this.#c.deps.tree.unpin(directory);
    }
  }

  async #walkDirectory(node: DirtyNode, directory: TreeNode, from: Copy, place: Origin, source: number): Promise<void> {
    let listing = this.#listings.get(node);
    if (node.cursor === null || listing === undefined) {
      // From here on changes are marked by name, so that what the listing lacks is not missed.
      this.#c.set.setCursor(node, node.cursor ?? "");
      if ((node.flags & TREE) !== 0) this.#c.renewedEntries(directory);
      const names = new Set([...(await namesIn(from)), ...(await namesIn(this.#c.copy(place)))]);
      listing = { names: [...names].sort(), index: 0 };
      this.#listings.set(node, listing);
    }
    while (listing.index < listing.names.length) {
      if (!this.#c.set.holds(node) || !node.isWalking) return;
      const name = listing.names[listing.index++] as ByteString;
      if (name <= (node.cursor ?? "")) continue;
      const flags = await this.#flagsFor(node, name, from, place, source);
      if (flags !== 0) this.#c.set.found(node, name, flags);
      this.#c.set.setCursor(node, name);
      this.#c.seen.files++;
      if (flags !== 0 || this.#c.set.next() !== node) return; // what was found comes first
      await this.#c.options.throttle.pace(0, this.#c.options.signal);
      this.#c.lastProgressMs = performance.now();
    }
    this.#listings.delete(node);
    if (node.isWalking) this.#c.set.clearFlags(node, TREE | SCAN);
  }

  /** What has to be looked at for one name of a directory that is walked; 0 if it is the same on both. */
  async #flagsFor(node: DirtyNode, name: ByteString, from: Copy, place: Origin, source: number): Promise<number> {
    if (node.parent === null && name === CONTROL_DIRECTORY) return (node.flags & TREE) !== 0 ? TREE : 0;
    const deep = (node.flags & TREE) !== 0;
    const wanted = await lookupIn(from, name);
    const there = await lookupIn(this.#c.copy(place), name);
    if (wanted === null && there === null) return 0;
    if (wanted === null || there === null || !isSameType(wanted, there)) return ENTRY | TREE;
    const isChanged = this.#c.isChanged(wanted, source, there);
    const differs = compareAttributes(wanted, there).length > 0;
    const contents = node.flags & CONTENTS;
    if (isDirectory(wanted.mode)) {
      if (deep) return TREE | ATTRIBUTES | contents;
      return isChanged ? SCAN | ATTRIBUTES : differs ? ATTRIBUTES : 0;
    }
    this.#c.seen.bytes += wanted.size;
    const mustLook = deep && (this.#c.mustCompare(node) || !isRegular(wanted.mode));
    const hasOtherNames = wanted.nlink > 1 || there.nlink > 1;
    if (hasOtherNames && (deep || isChanged || differs)) return ENTRY | TREE | contents;
    if (differs || isChanged || mustLook) return TREE | contents;
    if (!deep) return 0;
    const object = { parent: from.object, name };
    const child = place.child(name).hold();
    try {
      return (await haveSameXattrs({ ...from, object }, this.#c.copy(child))) ? 0 : ATTRIBUTES;
    } finally {
      from.replica.forget(object);
      this.#c.target.forget(child);
      child.release();
    }
  }

  /** A file, or something else that is no directory, of which nothing is known. */
  async #look(node: DirtyNode, path: Path, from: Copy, wanted: FileAttr, place: Origin, source: number): Promise<void> {
    this.#c.set.clearBelow(node);
    const there = await attributesOf(this.#c.copy(place));
    if (there === null || !isSameType(wanted, there)) {
      this.#c.set.entry(path.slice(0, -1), node.name);
      return;
    }
    if (!isRegular(wanted.mode)) {
      if (!(await canBecome(this.#c, from, wanted, this.#c.copy(place), there))) {
        this.#c.set.entry(path.slice(0, -1), node.name);
      }
    }
    if (!this.#c.set.holds(node) || !samePath(node.path(), path)) return; // it was renamed meanwhile: once more
    const contents = this.#c.mustCompare(node) || this.#c.isChanged(wanted, source, there);
    node.flags |= ATTRIBUTES;
    this.#c.set.clearFlags(node, TREE | SCAN);
    if (!isRegular(wanted.mode)) return;
    const same = wanted.size === there.size && wanted.mtime === there.mtime && wanted.mtimeNsec === there.mtimeNsec;
    if (same && !contents) return;
    this.#c.set.data(path, 0, Number.POSITIVE_INFINITY);
  }
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
