/**
 * The state of a file system in memory: inodes by number, and the changes that can be made to them. A change is applied
 * the same way when it happens and when a crash is replayed, so it takes everything from its arguments (times too), and
 * leaves alone what is not there. Whether it is allowed was decided before.
 *
 * Page contents are never changed in place: images share them.
 */
import type { ByteString } from "../../util/byte-string.ts";
import { S_IFDIR, S_IFMT, S_ISGID, S_ISUID } from "../../util/file-attr.ts";
import type { TimeSpec } from "../replica.ts";

export const pageBytes = 4096;
export const rootIno = 1;

export class Inode {
  readonly ino: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev = 0;
  size = 0;
  atime: TimeSpec;
  mtime: TimeSpec;
  ctime: TimeSpec;
  target: ByteString = "";
  xattrs = new Map<ByteString, Uint8Array>();
  /** Of a directory: inode numbers by name, and where it is itself. */
  entries: Map<ByteString, number> | null = null;
  parent = 0;
  /** Allocated pages; null holds no data yet (fallocate). */
  pages = new Map<number, Uint8Array | null>();

  constructor(ino: number, mode: number, uid: number, gid: number, now: TimeSpec) {
    this.ino = ino;
    this.mode = mode;
    this.uid = uid;
    this.gid = gid;
    this.atime = this.mtime = this.ctime = now;
    this.nlink = 1;
    if ((mode & S_IFMT) === S_IFDIR) {
      this.entries = new Map();
      this.nlink = 2;
      this.size = pageBytes;
    }
  }

  clone(): Inode {
    const copy: Inode = Object.assign(Object.create(Inode.prototype) as Inode, this);
    copy.xattrs = new Map(this.xattrs);
    copy.pages = new Map(this.pages);
    copy.entries = this.entries === null ? null : new Map(this.entries);
    return copy;
  }

  page(index: number): Uint8Array | null {
    return this.pages.get(index) ?? null;
  }
}

export class Image {
  readonly inodes = new Map<number, Inode>();

  clone(): Image {
    const copy = new Image();
    for (const [ino, inode] of this.inodes) copy.inodes.set(ino, inode.clone());
    return copy;
  }

  get(ino: number): Inode | undefined {
    return this.inodes.get(ino);
  }

  child(directory: Inode, name: ByteString): Inode | undefined {
    const ino = directory.entries?.get(name);
    return ino === undefined ? undefined : this.inodes.get(ino);
  }

  // Names.

  insert(directory: number, name: ByteString, inode: Inode, now: TimeSpec): void {
    const parent = this.inodes.get(directory);
    if (parent === undefined) return;
    const made = inode.clone();
    this.inodes.set(made.ino, made);
    this.#enter(parent, name, made);
    this.touch(directory, now);
  }

  link(ino: number, directory: number, name: ByteString, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    inode.nlink++;
    inode.ctime = now;
    this.inodes.get(directory)?.entries?.set(name, ino);
    this.touch(directory, now);
  }

  /** Removes a name of a file, or an empty directory. The inode stays, with no links, until `drop`. */
  remove(directory: number, name: ByteString, now: TimeSpec): void {
    const parent = this.inodes.get(directory);
    const inode = parent === undefined ? undefined : this.child(parent, name);
    if (parent === undefined || inode === undefined) return;
    parent.entries?.delete(name);
    if (inode.entries !== null) {
      parent.nlink--;
      inode.nlink = 0;
    } else {
      inode.nlink--;
    }
    inode.ctime = now;
    this.touch(directory, now);
  }

  rename(from: number, fromName: ByteString, to: number, toName: ByteString, exchange: boolean, now: TimeSpec): void {
    const source = this.inodes.get(from);
    const target = this.inodes.get(to);
    const moved = source === undefined ? undefined : this.child(source, fromName);
    if (source === undefined || target === undefined || moved === undefined) return;
    const there = this.child(target, toName);
    if (there !== undefined && exchange) {
      this.#leave(source, fromName, moved);
      this.#leave(target, toName, there);
      this.#enter(source, fromName, there);
      there.ctime = now;
    } else {
      if (there !== undefined) this.remove(to, toName, now);
      this.#leave(source, fromName, moved);
    }
    this.#enter(target, toName, moved);
    moved.ctime = now;
    this.touch(from, now);
    this.touch(to, now);
  }

  #enter(parent: Inode, name: ByteString, inode: Inode): void {
    parent.entries?.set(name, inode.ino);
    if (inode.entries === null) return;
    inode.parent = parent.ino;
    parent.nlink++;
  }

  #leave(parent: Inode, name: ByteString, inode: Inode): void {
    parent.entries?.delete(name);
    if (inode.entries !== null) parent.nlink--;
  }

  drop(ino: number): void {
    this.inodes.delete(ino);
  }

  // Attributes.

  touch(ino: number, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode !== undefined) inode.mtime = inode.ctime = now;
  }

  /** As the kernel's chown: set-id bits of what is no directory go. */
  setOwner(ino: number, uid: number, gid: number, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    inode.uid = uid;
    inode.gid = gid;
    inode.ctime = now;
    if (inode.entries !== null) return;
    inode.mode &= ~S_ISUID;
    if ((inode.mode & 0o010) !== 0) inode.mode &= ~S_ISGID;
  }

  setMode(ino: number, mode: number, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    inode.mode = (inode.mode & S_IFMT) | (mode & 0o7777);
    inode.ctime = now;
  }

  setTimes(ino: number, atime: TimeSpec | undefined, mtime: TimeSpec | undefined, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    if (atime !== undefined) inode.atime = atime;
    if (mtime !== undefined) inode.mtime = mtime;
    inode.ctime = now;
  }

  setXattr(ino: number, name: ByteString, value: Uint8Array | null, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    if (value === null) inode.xattrs.delete(name);
    else inode.xattrs.set(name, value);
    inode.ctime = now;
  }

  // Content.

  putPage(ino: number, page: number, content: Uint8Array): void {
    this.inodes.get(ino)?.pages.set(page, content);
  }

  growTo(ino: number, size: number): void {
    const inode = this.inodes.get(ino);
    if (inode !== undefined && inode.size < size) inode.size = size;
  }

  setSize(ino: number, size: number, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    if (size < inode.size) this.zero(ino, size, Number.POSITIVE_INFINITY);
    inode.size = size;
    this.touch(ino, now);
  }

  /** Frees the whole pages of the range, and zeroes what it covers of others. */
  zero(ino: number, start: number, end: number): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    for (const [index, content] of inode.pages) {
      const at = index * pageBytes;
      if (at + pageBytes <= start || at >= end) continue;
      if (start <= at && at + pageBytes <= end) {
        inode.pages.delete(index);
      } else if (content !== null) {
        inode.pages.set(index, content.slice().fill(0, Math.max(0, start - at), Math.min(pageBytes, end - at)));
      }
    }
  }

  allocate(ino: number, start: number, end: number, size: number, now: TimeSpec): void {
    const inode = this.inodes.get(ino);
    if (inode === undefined) return;
    for (let page = Math.floor(start / pageBytes); page * pageBytes < end; page++) {
      if (!inode.pages.has(page)) inode.pages.set(page, null);
    }
    this.growTo(ino, size);
    this.touch(ino, now);
  }

  /** What a journal's recovery does: inodes without a name go, and so does what lies behind a file's end. */
  recover(): void {
    for (const inode of this.inodes.values()) {
      if (inode.nlink === 0) this.inodes.delete(inode.ino);
      else if (inode.entries === null) this.zero(inode.ino, inode.size, Number.POSITIVE_INFINITY);
    }
  }
}
