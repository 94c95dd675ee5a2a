/**
 * Repairs data, in ranges under the range's lock, and then attributes, under the object's. A mark is cleared under the
 * lock under which the copy was made like the source's.
 */

import { FileAttr, isRegular } from "../util/file-attr.ts";
import { ATTRIBUTES, type DirtyNode, ENTRY } from "./dirty-node.ts";
import type { Path } from "./node-path.ts";
import { attributesOf, type Copy, must } from "./replica-call.ts";
import { isSameType, Moved, type RepairContext } from "./resync-context.ts";
import { copyAttributes, copyBytes, OpenCopy } from "./resync-copy.ts";
import type { TreeNode } from "./tree.ts";

/** How much of a file is locked at a time. */
const unitBytes = 512 * 1024;
const blockBytes = 4096;

export class ObjectRepair {
  readonly #c: RepairContext;

  constructor(context: RepairContext) {
    this.#c = context;
  }

  async data(node: DirtyNode, path: Path, source: number): Promise<void> {
    const file = this.#c.pin(path);
    const place = this.#c.place(path);
    const from: Copy = { replica: this.#c.deps.replica(source), object: file };
    const target = this.#c.copy(place);
    try {
      const wanted = await attributesOf(from);
      if (wanted === null || !isRegular(wanted.mode)) {
        if (wanted === null) this.#c.set.entry(path.slice(0, -1), node.name);
        this.#c.set.clearData(node, 0, Number.POSITIVE_INFINITY);
        return;
      }
      const sourceHandle = await must(from, "open", from.replica.open(file, "read"));
      try {
        const targetHandle = await must(target, "open", this.#c.target.open(place, "read-write"));
        try {
          await this.#copyRanges(
            node,
            file,
            new OpenCopy(from, sourceHandle),
            new OpenCopy(target, targetHandle),
            wanted,
          );
        } finally {
          await this.#c.target.close(targetHandle);
        }
      } finally {
        await from.replica.close(sourceHandle);
      }
    } finally {
      this.#c.underWay.bytes = 0;
      place.release();
      this.#c.deps.tree.unpin(file);
    }
  }

  async #copyRanges(node: DirtyNode, file: TreeNode, from: OpenCopy, target: OpenCopy, attr: FileAttr): Promise<void> {
    const { throttle, signal } = this.#c.options;
    for (;;) {
      const range = node.ranges?.first() ?? null;
      if (range === null || (node.flags & ENTRY) !== 0 || !this.#c.set.holds(node)) return;
      const start = range[0];
      this.#c.underWay.bytes = range[1] === Number.POSITIVE_INFINITY ? Math.max(0, attr.size - start) : 0;
      const end = Math.min(range[1], start + unitBytes - (start % unitBytes));
      let bytes = 0;
      {
        // Behind the end the last block is looked at, so everything is locked.
        const locked = this.#c.lockedAs(file, attr);
        const isBehind = start >= attr.size;
        const lock = await (isBehind
          ? this.#c.deps.locks.acquire(locked)
          : this.#c.deps.locks.acquire(locked, start, end));
        try {
          if (file.detached || !this.#c.set.holds(node)) return;
          const { ctime, ctimeNsec } = attr;
          await must(from, "read attributes of", from.replica.fgetattr(from.handle, attr));
          if (attr.ctime !== ctime || attr.ctimeNsec !== ctimeNsec) from.segments.forget();
          from.segments.forgetHoles(); // a clock's tick may hide a write
          target.segments.forgetHoles();
          if (start < attr.size) {
            bytes = await copyBytes(from, target, start, end, attr.size);
            this.#c.set.clearData(node, start, end);
          } else if (isBehind) {
            // Cut off since; a write behind the end may have made a hole before it to data.
            bytes = await copyBytes(from, target, attr.size - (attr.size % blockBytes), attr.size, attr.size);
            await this.#cutOff(target, attr.size);
            this.#c.set.clearData(node, start, range[1]);
          }
        } finally {
          lock.release();
        }
      }
      this.#c.bytesWritten += bytes;
      this.#c.seen.bytes += Math.max(0, Math.min(end, attr.size) - start);
      this.#c.lastProgressMs = performance.now();
      await throttle.pace(bytes, signal);
    }
  }

  /** From here on writes may go there as well, and must not meet old bytes behind the end. */
  async #cutOff(target: OpenCopy, sizeBytes: number): Promise<void> {
    const there = new FileAttr();
    await must(target, "read attributes of", target.replica.fgetattr(target.handle, there));
    if (there.size <= sizeBytes) return;
    await must(target, "cut", target.replica.setattr(target.object, target.handle, { size: sizeBytes }, null));
  }

  async attributes(node: DirtyNode, path: Path, source: number): Promise<void> {
    const object = this.#c.pin(path);
    const place = this.#c.place(path);
    const from: Copy = { replica: this.#c.deps.replica(source), object };
    try {
      const known = await attributesOf(from);
      const lock = await this.#c.deps.locks.acquire(known === null ? object : this.#c.lockedAs(object, known));
      try {
        if (!this.#c.set.holds(node) || object.detached || node.ranges !== null || (node.flags & ~ATTRIBUTES) !== 0)
          return;
        const wanted = await attributesOf(from);
        const there = await attributesOf(this.#c.copy(place));
        if (wanted === null || there === null || !isSameType(wanted, there)) {
          if (path.length === 0) throw new Moved();
          this.#c.set.entry(path.slice(0, -1), node.name);
          return;
        }
        await copyAttributes(from, wanted, this.#c.copy(place), there);
        this.#c.set.clearFlags(node, ATTRIBUTES);
      } finally {
        lock.release();
      }
    } finally {
      place.release();
      this.#c.deps.tree.unpin(object);
    }
  }
}
