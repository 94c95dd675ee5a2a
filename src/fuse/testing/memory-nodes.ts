/** Files and directories in memory, for `MemoryFileSystem`. */
import type { ByteString } from "../../util/byte-string.ts";
import { FileAttr } from "../../util/file-attr.ts";
import type { NodeId, TimeIn } from "../filesystem.ts";
import { SparseData } from "./sparse-data.ts";

export class MemoryNode {
  readonly attr = new FileAttr();
  readonly data = new SparseData();
  readonly xattrs = new Map<ByteString, Buffer>();
  readonly entries: MemoryDirectory | null;
  target: ByteString = "";
  readonly born: TimeIn;
  lookups = 0;
  opens = 0;

  constructor(id: NodeId, mode: number, directory: boolean) {
    this.attr.ino = id;
    this.attr.mode = mode;
    this.attr.nlink = directory ? 2 : 1;
    this.entries = directory ? new MemoryDirectory() : null;
    this.touch(true);
    this.born = { seconds: this.attr.ctime, nsec: this.attr.ctimeNsec };
  }

  get id(): NodeId {
    return this.attr.ino;
  }

  /** ctime is now, and mtime too if the contents changed. */
  touch(contents: boolean): void {
    const ms = performance.timeOrigin + performance.now();
    const seconds = Math.floor(ms / 1000);
    const nsec = Math.floor((ms - seconds * 1000) * 1e6);
    this.attr.ctime = seconds;
    this.attr.ctimeNsec = nsec;
    if (!contents) return;
    this.attr.mtime = seconds;
    this.attr.mtimeNsec = nsec;
  }
}

export interface MemoryEntry {
  readonly name: ByteString;
  readonly node: MemoryNode;
  /** Grows with each entry that is added, so a position in a listing means the same while others come and go. */
  readonly cookie: number;
}

export class MemoryDirectory {
  readonly #byName = new Map<ByteString, MemoryEntry>();
  /** By cookie; null where one was removed. */
  #inOrder: (MemoryEntry | null)[] = [];
  #removed = 0;
  #nextCookie = 3;

  get size(): number {
    return this.#byName.size;
  }

  get(name: ByteString): MemoryNode | undefined {
    return this.#byName.get(name)?.node;
  }

  set(name: ByteString, node: MemoryNode): void {
    this.delete(name);
    const entry = { name, node, cookie: this.#nextCookie++ };
    this.#byName.set(name, entry);
    this.#inOrder.push(entry);
  }

  delete(name: ByteString): void {
    const entry = this.#byName.get(name);
    if (entry === undefined) return;
    this.#byName.delete(name);
    this.#inOrder[this.#place(entry.cookie)] = null;
    if (++this.#removed * 2 < this.#inOrder.length) return;
    this.#inOrder = this.#inOrder.filter((kept) => kept !== null);
    this.#removed = 0;
  }

  /** Entries whose cookie is greater than `cookie`. */
  *after(cookie: number): Generator<MemoryEntry> {
    for (let at = this.#place(cookie + 1); at < this.#inOrder.length; at++) {
      const entry = this.#inOrder[at];
      if (entry) yield entry;
    }
  }

  /** Where the first entry with this cookie or a greater one is. */
  #place(cookie: number): number {
    let low = 0;
    let high = this.#inOrder.length;
    while (low < high) {
      let middle = (low + high) >> 1;
      const from = middle;
      while (middle < high && this.#inOrder[middle] === null) middle++;
      const entry = middle < high ? this.#inOrder[middle] : null;
      if (entry && entry.cookie < cookie) low = middle + 1;
      else high = from;
    }
    while (low < this.#inOrder.length && this.#inOrder[low] === null) low++;
    return low;
  }
}
