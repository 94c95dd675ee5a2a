/**
 * A replica in memory: an honest one, which passes the contract, on a `MemoryDisk` that can lose power. Answers at once
 * (`FaultyReplica` makes answers late). Several replicas may share a disk, as several clients share an export.
 */
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  SEEK_DATA,
  SEEK_HOLE,
  XATTR_CREATE,
  XATTR_REPLACE,
} from "../../posix/constants.ts";
import type { ByteString } from "../../util/byte-string.ts";
import {
  E2BIG,
  EBADF,
  EEXIST,
  EFBIG,
  EINVAL,
  EISDIR,
  ELOOP,
  ENAMETOOLONG,
  ENODATA,
  ENODEV,
  ENOENT,
  ENOSPC,
  ENOTCONN,
  ENOTDIR,
  ENOTEMPTY,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  ERANGE,
} from "../../util/errno.ts";
import { type FileAttr, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID } from "../../util/file-attr.ts";
import {
  type AttrChange,
  type Capabilities,
  type DirectoryEntries,
  type FileSystemStats,
  type Owner,
  type Replica,
  ReplicaError,
  type ReplicaHandle,
  type TreeObject,
} from "../replica.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { Inode, pageBytes, rootIno } from "./memory-image.ts";

const maxFileBytes = 2 ** 44;
const maxNameBytes = 255;

const everything: Capabilities = {
  userXattrs: true,
  rootXattrs: true,
  acls: false,
  hardLinks: true,
  symlinks: true,
  specialFiles: true,
  holes: true,
  fallocate: true,
  renameFlags: true,
  timeGranularityNsec: 1,
  maxNameBytes,
};

export interface MemoryReplicaOptions {
  readonly name?: string;
  /** What this backend cannot do; everything but ACLs by default. */
  readonly capabilities?: Partial<Capabilities>;
}

export class MemoryReplica implements Replica {
  readonly name: string;
  readonly url: string;
  /** What `connect` finds. Put another here, and `check` notices (a vanished mount); null: there is nothing. */
  disk: MemoryDisk | null;
  readonly #capabilities: Capabilities;
  #connected: MemoryDisk | null = null;
  readonly #handles = new Map<ReplicaHandle, { readonly ino: number; readonly writable: boolean }>();
  #nextHandle = 0;

  constructor(disk: MemoryDisk = new MemoryDisk(), options: MemoryReplicaOptions = {}) {
    this.disk = disk;
    this.name = options.name ?? "memory";
    this.url = `memory:${this.name}`;
    this.#capabilities = { ...everything, ...options.capabilities };
  }

  async connect(options: { readonly signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted();
    if (this.disk === null) throw new ReplicaError(this.name, "there is no disk", { errno: -ENODEV });
    this.#connected = this.disk;
  }

  async disconnect(): Promise<void> {
    for (const { ino } of this.#handles.values()) this.#connected?.closed(ino);
    this.#handles.clear();
    this.#connected = null;
  }

  check(): number {
    if (this.#connected === null) return -ENOTCONN;
    return this.#connected === this.disk ? 0 : -ENODEV;
  }

  async probe(): Promise<Capabilities> {
    return this.#capabilities;
  }

  forget(_object: TreeObject): void {}

  // Names.

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): number {
    const found = this.#child(directory, name);
    if (typeof found === "number") return found;
    if (attr !== null) fillAttr(attr, found);
    return 0;
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): number {
    const inode = this.#make(directory, name, S_IFREG | (mode & 0o7777), owner, attr);
    return typeof inode === "number" ? inode : this.#open(inode.ino, true);
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): number {
    const inode = this.#make(directory, name, S_IFDIR | (mode & 0o7777), owner, attr);
    return typeof inode === "number" ? inode : 0;
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): number {
    const type = mode & S_IFMT;
    if (type === S_IFDIR || type === S_IFLNK) return -EINVAL;
    if (type !== S_IFREG && !this.#capabilities.specialFiles) return this.#lacking();
    const numbered = type !== S_IFREG && type !== S_IFIFO && type !== S_IFSOCK;
    const inode = this.#make(directory, name, mode, owner, attr, (made) => {
      made.rdev = numbered ? rdev : 0;
    });
    return typeof inode === "number" ? inode : 0;
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): number {
    if (!this.#capabilities.symlinks) return this.#lacking();
    if (target === "") return this.#connected === null ? -ENOTCONN : -ENOENT;
    if (target.length >= pageBytes) return this.#connected === null ? -ENOTCONN : -ENAMETOOLONG;
    const inode = this.#make(directory, name, S_IFLNK | 0o777, owner, attr, (made) => {
      made.target = target;
      made.size = target.length;
    });
    return typeof inode === "number" ? inode : 0;
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): number {
    if (!this.#capabilities.hardLinks) return this.#lacking();
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    const parent = this.#vacancy(directory, name);
    if (typeof parent === "number") return parent;
    if (inode.entries !== null) return -EPERM;
    const disk = this.#connected as MemoryDisk;
    const now = disk.now();
    disk.change([inode.ino, parent.ino], (image) => image.link(inode.ino, parent.ino, name, now));
    if (attr !== null) fillAttr(attr, inode);
    return 0;
  }

  unlink(directory: TreeObject, name: ByteString): number {
    const inode = this.#child(directory, name);
    if (typeof inode === "number") return inode;
    return inode.entries !== null ? -EISDIR : this.#remove(directory, name, inode);
  }

  rmdir(directory: TreeObject, name: ByteString): number {
    const inode = this.#child(directory, name);
    if (typeof inode === "number") return inode;
    if (inode.entries === null) return -ENOTDIR;
    return inode.entries.size > 0 ? -ENOTEMPTY : this.#remove(directory, name, inode);
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): number {
    if (flags !== 0 && !this.#capabilities.renameFlags) return this.#lacking();
    const source = this.#directory(from);
    if (typeof source === "number") return source;
    const target = this.#directory(to);
    if (typeof target === "number") return target;
    if (fromName.length > maxNameBytes || toName.length > maxNameBytes) return -ENAMETOOLONG;
    const disk = this.#connected as MemoryDisk;
    const moved = disk.image.child(source, fromName);
    const there = disk.image.child(target, toName);
    const refusal = this.#mayRename(source, moved, target, there, flags);
    if (refusal < 0 || moved === undefined || moved === there) return refusal;
    const now = disk.now();
    const inos = [moved.ino, source.ino, target.ino];
    if (there !== undefined) inos.push(there.ino);
    disk.change([...new Set(inos)], (image) =>
      image.rename(source.ino, fromName, target.ino, toName, flags === RENAME_EXCHANGE, now),
    );
    return 0;
  }

  #mayRename(source: Inode, moved: Inode | undefined, target: Inode, there: Inode | undefined, flags: number): number {
    if (moved === undefined) return -ENOENT;
    if (flags === RENAME_NOREPLACE && there !== undefined) return -EEXIST;
    if (flags === RENAME_EXCHANGE && there === undefined) return -ENOENT;
    if (this.#isBelow(target, moved)) return -EINVAL;
    if (there === undefined || moved === there) return 0;
    if (this.#isBelow(source, there)) return flags === RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
    if (flags === RENAME_EXCHANGE) return 0;
    if (moved.entries !== null && there.entries === null) return -ENOTDIR;
    if (moved.entries === null && there.entries !== null) return -EISDIR;
    return there.entries !== null && there.entries.size > 0 ? -ENOTEMPTY : 0;
  }

  readdir(directory: TreeObject, into: DirectoryEntries): number {
    const inode = this.#directory(directory);
    if (typeof inode === "number") return inode;
    for (const [name, ino] of inode.entries ?? []) {
      into.names.push(name);
      into.types.push((this.#connected?.image.get(ino)?.mode ?? 0) & S_IFMT);
      into.inos.push(ino);
    }
    return 0;
  }

  // Objects.

  getattr(object: TreeObject, attr: FileAttr): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    fillAttr(attr, inode);
    return 0;
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): number {
    const inode = handle >= 0 ? this.#handle(handle) : this.#find(object);
    if (typeof inode === "number") return inode;
    const disk = this.#connected as MemoryDisk;
    const { ino } = inode;
    // Each step is an operation of its own, as it is a system call of its own elsewhere: a crash may come in between.
    if (change.size !== undefined) {
      const { size } = change;
      if (inode.entries !== null) return -EISDIR;
      if ((inode.mode & S_IFMT) !== S_IFREG) return -EINVAL;
      if (size > maxFileBytes) return -EFBIG;
      const now = disk.now();
      disk.change([ino], (image) => image.setSize(ino, size, now), "structural");
    }
    if (change.uid !== undefined || change.gid !== undefined) {
      const { uid = inode.uid, gid = inode.gid } = change;
      const now = disk.now();
      disk.change([ino], (image) => image.setOwner(ino, uid, gid, now));
    }
    if (change.mode !== undefined) {
      if ((inode.mode & S_IFMT) === S_IFLNK) return -EOPNOTSUPP;
      const { mode } = change;
      const now = disk.now();
      disk.change([ino], (image) => image.setMode(ino, mode, now));
    }
    if (change.atime !== undefined || change.mtime !== undefined) {
      const granularity = this.#capabilities.timeGranularityNsec;
      const keep = (time: AttrChange["atime"]) =>
        time && { seconds: time.seconds, nsec: time.nsec - (time.nsec % granularity) };
      const [atime, mtime] = [keep(change.atime), keep(change.mtime)];
      const now = disk.now();
      disk.change([ino], (image) => image.setTimes(ino, atime, mtime, now));
    }
    if (attr !== null) fillAttr(attr, inode);
    return 0;
  }

  readlink(object: TreeObject, into: Uint8Array): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    if ((inode.mode & S_IFMT) !== S_IFLNK) return -EINVAL;
    into.set(Buffer.from(inode.target, "latin1").subarray(0, into.length));
    return inode.target.length;
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    const refusal = this.#xattrName(inode, name, false);
    if (refusal < 0) return refusal;
    const value = inode.xattrs.get(name);
    return value === undefined ? -ENODATA : copyOut(value, into);
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    const refusal = this.#xattrName(inode, name, true);
    if (refusal < 0) return refusal;
    if (value.length > 65_536) return -E2BIG;
    if (flags === XATTR_CREATE && inode.xattrs.has(name)) return -EEXIST;
    if (flags === XATTR_REPLACE && !inode.xattrs.has(name)) return -ENODATA;
    this.#setXattr(inode.ino, name, value.slice());
    return 0;
  }

  listxattr(object: TreeObject, into: Uint8Array): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    return copyOut(Buffer.from([...inode.xattrs.keys()].map((name) => `${name}\0`).join(""), "latin1"), into);
  }

  removexattr(object: TreeObject, name: ByteString): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    const refusal = this.#xattrName(inode, name, true);
    if (refusal < 0) return refusal;
    if (!inode.xattrs.has(name)) return -ENODATA;
    this.#setXattr(inode.ino, name, null);
    return 0;
  }

  fsyncdir(object: TreeObject): number {
    const inode = this.#directory(object);
    if (typeof inode === "number") return inode;
    this.#connected?.fsync(inode.ino, false);
    return 0;
  }

  // Open files.

  open(object: TreeObject, access: "read" | "read-write"): number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    const type = inode.mode & S_IFMT;
    if (type === S_IFDIR) return -EISDIR;
    if (type === S_IFLNK) return -ELOOP;
    return type === S_IFREG ? this.#open(inode.ino, access === "read-write") : -ENXIO;
  }

  close(handle: ReplicaHandle): number {
    const disk = this.#connected;
    if (disk === null) return -ENOTCONN;
    const open = this.#handles.get(handle);
    if (open === undefined) return -EBADF;
    this.#handles.delete(handle);
    disk.closed(open.ino);
    return 0;
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): number {
    const inode = this.#handle(handle);
    if (typeof inode === "number") return inode;
    fillAttr(attr, inode);
    return 0;
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): number {
    const inode = this.#handle(handle);
    if (typeof inode === "number") return inode;
    const length = Math.max(0, Math.min(into.length, inode.size - position));
    for (let done = 0; done < length; ) {
      const page = Math.floor((position + done) / pageBytes);
      const at = position + done - page * pageBytes;
      const part = Math.min(pageBytes - at, length - done);
      const content = inode.page(page);
      if (content === null) into.fill(0, done, done + part);
      else into.set(content.subarray(at, at + part), done);
      done += part;
    }
    return length;
  }

  write(handle: ReplicaHandle, data: Uint8Array, position: number): number {
    const inode = this.#handle(handle, true);
    if (typeof inode === "number") return inode;
    if (position + data.length > maxFileBytes) return -EFBIG;
    const written = (this.#connected as MemoryDisk).write(inode.ino, data, position);
    return written < data.length ? -ENOSPC : written;
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): number {
    const inode = this.#handle(handle);
    if (typeof inode === "number") return inode;
    this.#connected?.fsync(inode.ino, dataOnly);
    return 0;
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): number {
    const inode = this.#handle(handle, true);
    if (typeof inode === "number") return inode;
    if (position < 0 || length <= 0) return -EINVAL;
    const { fallocate, holes } = this.#capabilities;
    const punch = (mode & FALLOC_FL_PUNCH_HOLE) !== 0;
    const zero = (mode & FALLOC_FL_ZERO_RANGE) !== 0;
    const known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if ((mode & ~known) !== 0 || (punch && (zero || (mode & FALLOC_FL_KEEP_SIZE) === 0))) return -EOPNOTSUPP;
    if (punch ? !holes : !fallocate) return -EOPNOTSUPP;
    const end = position + length;
    if (end > maxFileBytes) return -EFBIG;
    const disk = this.#connected as MemoryDisk;
    if (!punch && disk.usedPages + Math.ceil(length / pageBytes) > disk.capacityPages) return -ENOSPC;
    const { ino } = inode;
    const size = (mode & FALLOC_FL_KEEP_SIZE) !== 0 ? 0 : end;
    const now = disk.now();
    disk.change(
      [ino],
      (image) => {
        if (punch || zero) image.zero(ino, position, end);
        if (!punch) image.allocate(ino, position, end, size, now);
        image.touch(ino, now);
      },
      "structural",
    );
    return 0;
  }

  seek(handle: ReplicaHandle, position: number, whence: number): number {
    const inode = this.#handle(handle);
    if (typeof inode === "number") return inode;
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -EINVAL;
    if (position < 0 || position >= inode.size) return -ENXIO;
    if (!this.#capabilities.holes) return whence === SEEK_DATA ? position : inode.size;
    const written = [...inode.pages].filter(([, content]) => content !== null).map(([page]) => page);
    const from = Math.floor(position / pageBytes);
    if (whence === SEEK_DATA) {
      const page = written.reduce((least, p) => (p >= from && p < least ? p : least), Number.POSITIVE_INFINITY);
      const at = Math.max(position, page * pageBytes);
      return at < inode.size ? at : -ENXIO;
    }
    const isWritten = new Set(written);
    let page = from;
    while (isWritten.has(page)) page++;
    return Math.min(Math.max(position, page * pageBytes), inode.size);
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): number {
    const source = this.#handle(from);
    if (typeof source === "number") return source;
    const target = this.#handle(to, true);
    if (typeof target === "number") return target;
    const copied = Math.max(0, Math.min(length, source.size - fromPosition));
    if (source === target && fromPosition < toPosition + copied && toPosition < fromPosition + copied) return -EINVAL;
    const data = new Uint8Array(copied);
    this.read(from, data, fromPosition);
    return this.write(to, data, toPosition);
  }

  // The whole.

  statfs(into: FileSystemStats): number {
    const disk = this.#connected;
    if (disk === null) return -ENOTCONN;
    into.blockSizeBytes = pageBytes;
    into.blocks = disk.capacityPages;
    into.freeBlocks = into.availableBlocks = Math.max(0, disk.capacityPages - disk.usedPages);
    into.files = 2 ** 32;
    into.freeFiles = 2 ** 32 - disk.image.inodes.size;
    into.maxNameBytes = maxNameBytes;
    return 0;
  }

  sync(): number {
    if (this.#connected === null) return -ENOTCONN;
    this.#connected.sync();
    return 0;
  }

  // How objects are found.

  #find(object: TreeObject): Inode | number {
    const disk = this.#connected;
    if (disk === null) return -ENOTCONN;
    if (object.parent === null) return disk.image.get(rootIno) as Inode;
    return this.#child(object.parent, object.name);
  }

  #directory(object: TreeObject): Inode | number {
    const inode = this.#find(object);
    if (typeof inode === "number") return inode;
    return inode.entries === null ? -ENOTDIR : inode;
  }

  #child(directory: TreeObject, name: ByteString): Inode | number {
    const parent = this.#directory(directory);
    if (typeof parent === "number") return parent;
    if (name.length > maxNameBytes) return -ENAMETOOLONG;
    return this.#connected?.image.child(parent, name) ?? -ENOENT;
  }

  /** The directory, if the name is free in it. */
  #vacancy(directory: TreeObject, name: ByteString): Inode | number {
    const parent = this.#directory(directory);
    if (typeof parent === "number") return parent;
    if (name.length > maxNameBytes) return -ENAMETOOLONG;
    return parent.entries?.has(name) ? -EEXIST : parent;
  }

  #isBelow(inode: Inode, above: Inode): boolean {
    if (above.entries === null) return false;
    for (let at: Inode | undefined = inode; at !== undefined; at = this.#connected?.image.get(at.parent)) {
      if (at === above) return true;
    }
    return false;
  }

  #make(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    owner: Owner,
    attr: FileAttr | null,
    fill: (inode: Inode) => void = () => {},
  ): Inode | number {
    const parent = this.#vacancy(directory, name);
    if (typeof parent === "number") return parent;
    const disk = this.#connected as MemoryDisk;
    const now = disk.now();
    const inherits = (parent.mode & S_ISGID) !== 0;
    const gid = inherits ? parent.gid : owner.gid;
    const finalMode = inherits && (mode & S_IFMT) === S_IFDIR ? mode | S_ISGID : mode;
    const made = new Inode(disk.newIno(), finalMode, 0, inherits ? gid : 0, now);
    fill(made);
    disk.change([made.ino, parent.ino], (image) => image.insert(parent.ino, name, made, now), "structural");
    const inode = disk.image.get(made.ino) as Inode;
    if (owner.uid !== 0 || gid !== made.gid) {
      // As elsewhere, the owner is a system call of its own, and so is the mode that it may have changed.
      disk.change([made.ino], (image) => image.setOwner(made.ino, owner.uid, gid, now));
      if (inode.mode !== finalMode) disk.change([made.ino], (image) => image.setMode(made.ino, finalMode, now));
    }
    if (attr !== null) fillAttr(attr, inode);
    return inode;
  }

  #remove(directory: TreeObject, name: ByteString, inode: Inode): number {
    const disk = this.#connected as MemoryDisk;
    const parent = this.#directory(directory) as Inode;
    const now = disk.now();
    disk.change([inode.ino, parent.ino], (image) => image.remove(parent.ino, name, now));
    return 0;
  }

  #xattrName(inode: Inode, name: ByteString, toChange: boolean): number {
    const { userXattrs, rootXattrs } = this.#capabilities;
    if (name.startsWith("user.") && userXattrs) {
      const type = inode.mode & S_IFMT;
      if (type === S_IFREG || type === S_IFDIR) return 0;
      return toChange ? -EPERM : -ENODATA;
    }
    return rootXattrs && (name.startsWith("trusted.") || name.startsWith("security.")) ? 0 : -EOPNOTSUPP;
  }

  #setXattr(ino: number, name: ByteString, value: Uint8Array | null): void {
    const disk = this.#connected as MemoryDisk;
    const now = disk.now();
    disk.change([ino], (image) => image.setXattr(ino, name, value, now));
  }

  #open(ino: number, writable: boolean): ReplicaHandle {
    const handle = this.#nextHandle++;
    this.#handles.set(handle, { ino, writable });
    this.#connected?.opened(ino);
    return handle;
  }

  #handle(handle: ReplicaHandle, toWrite = false): Inode | number {
    const disk = this.#connected;
    if (disk === null) return -ENOTCONN;
    const open = this.#handles.get(handle);
    if (open === undefined || (toWrite && !open.writable)) return -EBADF;
    return disk.image.get(open.ino) ?? -EBADF;
  }

  #lacking(): number {
    return this.#connected === null ? -ENOTCONN : -EOPNOTSUPP;
  }
}

function copyOut(value: Uint8Array, into: Uint8Array): number {
  if (into.length === 0) return value.length;
  if (into.length < value.length) return -ERANGE;
  into.set(value);
  return value.length;
}

function fillAttr(attr: FileAttr, inode: Inode): void {
  attr.ino = inode.ino;
  attr.mode = inode.mode;
  attr.nlink = inode.nlink;
  attr.uid = inode.uid;
  attr.gid = inode.gid;
  attr.rdev = inode.rdev;
  attr.size = inode.size;
  attr.blocks = inode.entries === null ? inode.pages.size * 8 : 8;
  attr.blksize = pageBytes;
  attr.atime = inode.atime.seconds;
  attr.atimeNsec = inode.atime.nsec;
  attr.mtime = inode.mtime.seconds;
  attr.mtimeNsec = inode.mtime.nsec;
  attr.ctime = inode.ctime.seconds;
  attr.ctimeNsec = inode.ctime.nsec;
}
