/**
 * The tree of one directory by plain system calls relative to directory descriptors: what `Replica` says of names and
 * objects, answered at once and with raw descriptors. `LocalReplica` runs it on the loop, `OffloadedReplica` on threads.
 *
 * System calls of each operation, the directory being known and attributes asked for: lookup, getattr, readlink 1;
 * mkdir, mknod, symlink, link 2, one more for an owner who is not root; create the same and 2 for the umask; unlink,
 * rmdir, rename 1; open 1; setattr one for each attribute and 1, and one more without a handle.
 */
import {
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOCTTY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  RENAME_EXCHANGE,
  RESOLVE_CACHED,
} from "../posix/constants.ts";
import { getdents } from "../posix/directories.ts";
import { close, ftruncate, openat, openat2 } from "../posix/files.ts";
import {
  fchmod,
  fchmodat,
  fchownat,
  KEEP_ID,
  linkat,
  mkdirat,
  mknodat,
  readlinkat,
  renameat2,
  rmdirat,
  symlinkat,
  umask,
  unlinkat,
  utimensat,
} from "../posix/names.ts";
import { fstatfs, type StatFs } from "../posix/statfs.ts";
import { statxBelow, statxFd } from "../posix/statx.ts";
import { getxattrat, listxattrat, removexattrat, setxattrat } from "../posix/xattr.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EAGAIN, EINVAL, ENOTCONN } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { DirectoryDescriptors, RESOLVE_BELOW } from "./local-descriptors.ts";
import type { AttrChange, DirectoryEntries, FileSystemStats, Owner, TreeObject } from "./replica.ts";

/** Descriptors of directories that a tree keeps open. */
const directoryCapacity = 256;
const SET_ID_BITS = 0o6000;

export class LocalTree {
  readonly #times = new FileAttr();
  readonly #directories: DirectoryDescriptors;

  /** Takes over `rootFd`, a directory opened for reading. */
  constructor(rootFd: number) {
    this.#directories = new DirectoryDescriptors(rootFd, directoryCapacity);
  }

  /** -ENOTCONN once closed. */
  get rootFd(): number {
    return this.#directories.rootFd;
  }

  /** Every later call answers ENOTCONN. */
  close(): void {
    this.#directories.close();
  }

  forget(object: TreeObject): void {
    this.#directories.forget(object);
  }

  /** Forgets all directories but the root. */
  forgetAll(): void {
    this.#directories.clear();
  }

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = statxBelow(fd, name, attr);
    return this.#isStale(directory, result) ? this.lookup(directory, name, attr) : result;
  }

  /** The same without waiting for a disk: EAGAIN if what it takes is not in memory, or may not be. */
  lookupCached(directory: TreeObject, name: ByteString, attr: FileAttr): number {
    const fd = this.#directories.getCached(directory);
    if (fd < 0) return fd;
    const found = openat2(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_BELOW | RESOLVE_CACHED);
    if (found < 0) return -EAGAIN;
    const result = statxFd(found, attr);
    close(found);
    return result;
  }

  /** Answers a descriptor. */
  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const mask = umask(0);
    const file = openat(fd, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, mode & 0o7777);
    umask(mask);
    if (this.#isStale(directory, file)) return this.create(directory, name, mode, owner, attr);
    if (file < 0) return file;
    let result = isRoot(owner) ? 0 : this.#own(directory, file, "", owner);
    if (result >= 0 && !isRoot(owner) && (mode & SET_ID_BITS) !== 0) result = fchmod(file, mode & 0o7777);
    if (result >= 0 && attr !== null) result = statxFd(file, attr);
    if (result >= 0) return file;
    close(file);
    unlinkat(fd, name);
    return result;
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const mask = umask(0);
    const result = mkdirat(fd, name, mode & 0o7777);
    umask(mask);
    if (this.#isStale(directory, result)) return this.mkdir(directory, name, mode, owner, attr);
    if (result < 0) return result;
    const finished = this.#finish(directory, fd, name, owner, attr);
    if (finished < 0) rmdirat(fd, name);
    return finished;
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const mask = umask(0);
    let result = mknodat(fd, name, mode, rdev);
    umask(mask);
    if (this.#isStale(directory, result)) return this.mknod(directory, name, mode, rdev, owner, attr);
    if (result < 0) return result;
    if (!isRoot(owner) && (mode & SET_ID_BITS) !== 0) {
      result = this.#own(directory, fd, name, owner);
      if (result >= 0) result = fchmodat(fd, name, mode & 0o7777);
      if (result >= 0 && attr !== null) result = statxBelow(fd, name, attr);
    } else {
      result = this.#finish(directory, fd, name, owner, attr);
    }
    if (result < 0) unlinkat(fd, name);
    return result;
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = symlinkat(target, fd, name);
    if (this.#isStale(directory, result)) return this.symlink(directory, name, target, owner, attr);
    if (result < 0) return result;
    const finished = this.#finish(directory, fd, name, owner, attr);
    if (finished < 0) unlinkat(fd, name);
    return finished;
  }

  /** Owner and attributes of what was just made. */
  #finish(directory: TreeObject, fd: number, name: ByteString, owner: Owner, attr: FileAttr | null): number {
    const result = isRoot(owner) ? 0 : this.#own(directory, fd, name, owner);
    if (result < 0 || attr === null) return result;
    return statxBelow(fd, name, attr);
  }

  /** The kernel has given root's ids, or the group of a set-group-id directory, which stays. */
  #own(directory: TreeObject, fd: number, name: ByteString, owner: Owner): number {
    const gid = this.#directories.setGroupId(directory) ? KEEP_ID : owner.gid;
    return fchownat(fd, name, owner.uid, gid);
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): number {
    if (object.parent === null) return -EINVAL;
    const to = this.#directories.get(directory);
    if (to < 0) return to;
    const from = this.#directories.get(object.parent);
    if (from < 0) return from;
    const result = linkat(from, object.name, to, name);
    if (this.#isStale(directory, result) || this.#isStale(object.parent, result)) {
      return this.link(object, directory, name, attr);
    }
    return result < 0 || attr === null ? result : statxBelow(to, name, attr);
  }

  unlink(directory: TreeObject, name: ByteString): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = unlinkat(fd, name);
    return this.#isStale(directory, result) ? this.unlink(directory, name) : result;
  }

  rmdir(directory: TreeObject, name: ByteString): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = rmdirat(fd, name);
    if (this.#isStale(directory, result)) return this.rmdir(directory, name);
    if (result === 0) this.#directories.forgetName(directory, name);
    return result;
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): number {
    const toFd = this.#directories.get(to);
    if (toFd < 0) return toFd;
    const fromFd = this.#directories.get(from);
    if (fromFd < 0) return fromFd;
    const result = renameat2(fromFd, fromName, toFd, toName, flags);
    if (this.#isStale(to, result) || this.#isStale(from, result)) return this.rename(from, fromName, to, toName, flags);
    if (result === 0 && flags !== RENAME_EXCHANGE) this.#directories.forgetName(to, toName);
    return result;
  }

  readdir(directory: TreeObject, into: DirectoryEntries): number {
    const fd = this.openDirectory(directory);
    if (fd < 0) return fd;
    let result: number;
    do result = getdents(fd, into);
    while (result > 0);
    close(fd);
    // A directory that is gone can still be opened by its descriptor, but has not even an empty list.
    return this.#isStale(directory, result) ? this.readdir(directory, into) : result;
  }

  /** A descriptor of its own, opened for reading: for getdents and fsync. */
  openDirectory(directory: TreeObject): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return this.#isStale(directory, result) ? this.openDirectory(directory) : result;
  }

  getattr(object: TreeObject, attr: FileAttr): number {
    if (object.parent === null) return this.rootFd < 0 ? this.rootFd : statxFd(this.rootFd, attr);
    return this.lookup(object.parent, object.name, attr);
  }

  /** `fd`: an open descriptor of the object, or -1. */
  setattr(object: TreeObject, fd: number, change: AttrChange, attr: FileAttr | null): number {
    if (fd >= 0) {
      const result = this.#setattrOf(object, fd, "", change, attr);
      if (result !== -EINVAL || change.size === undefined) return result; // else a handle for reading only
    }
    if (change.size !== undefined) {
      const file = this.openFor(object, O_WRONLY);
      if (file < 0) return file;
      const result = this.#setattrOf(object, file, "", change, attr);
      close(file);
      return result;
    }
    const directory = this.#toChange(object);
    return directory < 0 ? directory : this.#setattrOf(object, directory, object.name, change, attr);
  }

  /** Of a descriptor that is open for reading or writing, or of a name in a directory. */
  #setattrOf(object: TreeObject, fd: number, name: ByteString, change: AttrChange, attr: FileAttr | null): number {
    let result = 0;
    if (change.size !== undefined) result = ftruncate(fd, change.size);
    if (result >= 0 && (change.uid !== undefined || change.gid !== undefined)) {
      result = fchownat(fd, name, change.uid ?? KEEP_ID, change.gid ?? KEEP_ID);
    }
    if (result >= 0 && change.mode !== undefined) {
      const mode = change.mode & 0o7777;
      result = name === "" ? fchmod(fd, mode) : fchmodat(fd, name, mode);
      this.#directories.modeChanged(object);
    }
    if (result >= 0 && (change.atime !== undefined || change.mtime !== undefined)) {
      result = this.#setTimes(fd, name, change);
    }
    if (result < 0 || attr === null) return result;
    return name === "" ? statxFd(fd, attr) : statxBelow(fd, name, attr);
  }

  /** Always both: FUSE file systems on libfuse 2 answer 0 to one time alone, and do nothing. */
  #setTimes(fd: number, name: ByteString, { atime, mtime }: AttrChange): number {
    if (atime !== undefined && mtime !== undefined) return utimensat(fd, name, atime, mtime);
    const now = this.#times;
    const result = name === "" ? statxFd(fd, now) : statxBelow(fd, name, now);
    if (result < 0) return result;
    return utimensat(
      fd,
      name,
      atime ?? { seconds: now.atime, nsec: now.atimeNsec },
      mtime ?? { seconds: now.mtime, nsec: now.mtimeNsec },
    );
  }

  readlink(object: TreeObject, into: Uint8Array): number {
    if (object.parent === null) return this.rootFd < 0 ? this.rootFd : -EINVAL;
    const fd = this.#directories.get(object.parent);
    if (fd < 0) return fd;
    const result = readlinkat(fd, object.name, into);
    return this.#isStale(object.parent, result) ? this.readlink(object, into) : result;
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): number {
    const directory = object.parent ?? object;
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = getxattrat(fd, object.name, name, into);
    return this.#isStale(directory, result) ? this.getxattr(object, name, into) : result;
  }

  listxattr(object: TreeObject, into: Uint8Array): number {
    const directory = object.parent ?? object;
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const result = listxattrat(fd, object.name, into);
    return this.#isStale(directory, result) ? this.listxattr(object, into) : result;
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): number {
    const fd = this.#toChange(object);
    return fd < 0 ? fd : setxattrat(fd, object.name, name, value, flags);
  }

  removexattr(object: TreeObject, name: ByteString): number {
    const fd = this.#toChange(object);
    return fd < 0 ? fd : removexattrat(fd, object.name, name);
  }

  /** Where to change an object by its name: the descriptor of its directory, once it is sure that nothing is mounted there. */
  #toChange(object: TreeObject): number {
    if (object.parent === null) return this.rootFd;
    const result = this.lookup(object.parent, object.name, null);
    return result < 0 ? result : this.#directories.get(object.parent);
  }

  /** Answers a descriptor. A FIFO without a peer does not make it wait. */
  open(object: TreeObject, access: "read" | "read-write"): number {
    return this.openFor(object, access === "read" ? O_RDONLY : O_RDWR);
  }

  /** The same without waiting for a disk: EAGAIN if what it takes is not in memory, or may not be. */
  openCached(object: TreeObject, access: "read" | "read-write"): number {
    if (object.parent === null) return -EAGAIN;
    const fd = this.#directories.getCached(object.parent);
    if (fd < 0) return fd;
    const flags = (access === "read" ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const result = openat2(fd, object.name, flags, 0, RESOLVE_BELOW | RESOLVE_CACHED);
    return result < 0 ? -EAGAIN : result;
  }

  openFor(object: TreeObject, access: number): number {
    if (object.parent === null) return this.#openBelow(object, ".", access);
    return this.#openBelow(object.parent, object.name, access);
  }

  #openBelow(directory: TreeObject, name: ByteString, access: number): number {
    const fd = this.#directories.get(directory);
    if (fd < 0) return fd;
    const flags = access | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const result = openat2(fd, name, flags, 0, RESOLVE_BELOW);
    return this.#isStale(directory, result) ? this.#openBelow(directory, name, access) : result;
  }

  statfs(into: FileSystemStats): number {
    if (this.rootFd < 0) return -ENOTCONN;
    const result = fstatfs(this.rootFd, stats);
    if (result < 0) return result;
    const { blockSizeBytes, blocks, freeBlocks, availableBlocks, files, freeFiles, maxNameBytes } = stats;
    Object.assign(into, { blockSizeBytes, blocks, freeBlocks, availableBlocks, files, freeFiles, maxNameBytes });
    return 0;
  }

  #isStale(directory: TreeObject, result: number): boolean {
    return result < 0 && this.#directories.isStale(directory, result);
  }
}

function isRoot(owner: Owner): boolean {
  return owner.uid === 0 && owner.gid === 0;
}

const stats: StatFs = {
  type: 0,
  blockSizeBytes: 0,
  blocks: 0,
  freeBlocks: 0,
  availableBlocks: 0,
  files: 0,
  freeFiles: 0,
  maxNameBytes: 0,
  flags: 0,
};
