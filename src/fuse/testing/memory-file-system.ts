/** An honest file system in memory, to try the session with. Permissions are the kernel's (default_permissions). */
import type { ByteString } from "../../util/byte-string.ts";
import * as errno from "../../util/errno.ts";
import { isDirectory, isRegular, S_IFDIR, S_IFLNK, S_IFREG, S_ISGID, S_ISUID } from "../../util/file-attr.ts";
import { FOPEN_KEEP_CACHE } from "../abi.ts";
import type * as fuse from "../filesystem.ts";
import { type NodeId, ROOT_NODE } from "../filesystem.ts";
import { MemoryNode } from "./memory-nodes.ts";

const O_TRUNC = 0o1000;
const validSeconds = 3600;
const keepSize = 1;
const punchHole = 2;
const S_IXGRP = 0o10;

export class MemoryFileSystem implements fuse.FileSystem {
  readonly #nodes = new Map<NodeId, MemoryNode>();
  #nextId = ROOT_NODE + 1;
  #nextHandle = 1;

  constructor() {
    const root = new MemoryNode(ROOT_NODE, S_IFDIR | 0o755, true);
    root.lookups = 1;
    this.#nodes.set(ROOT_NODE, root);
  }

  /** How many nodes the kernel knows or the tree holds. */
  get nodeCount(): number {
    return this.#nodes.size;
  }

  /** A file in the root directory with these contents, behind the kernel's back. */
  put(name: ByteString, contents: Uint8Array): void {
    const root = this.#node(ROOT_NODE);
    const node = root.entries?.get(name) ?? this.#newNode({ uid: 0, gid: 0 }, root, S_IFREG | 0o644, 0);
    node.data.truncate(0);
    node.data.write(0, contents);
    root.entries?.set(name, node);
  }

  idOf(name: ByteString): NodeId {
    return this.#node(ROOT_NODE).entries?.get(name)?.id ?? 0;
  }

  lookup(_: fuse.Request, parent: NodeId, name: ByteString, out: fuse.EntryOut): fuse.Answer {
    const node = this.#node(parent).entries?.get(name);
    out.entryValidSeconds = validSeconds;
    if (node === undefined) {
      out.nodeId = 0;
      return 0;
    }
    return this.#found(node, out);
  }

  forget(id: NodeId, lookups: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined) return;
    node.lookups -= lookups;
    this.#dropIfGone(node);
  }

  getattr(_: fuse.Request, id: NodeId, __: number | null, out: fuse.AttrOut): fuse.Answer {
    return this.#attr(this.#node(id), out);
  }

  statx(_: fuse.Request, id: NodeId, __: number | null, out: fuse.StatxOut): fuse.Answer {
    const node = this.#node(id);
    out.btime = node.born;
    return this.#attr(node, out);
  }

  setattr(_: fuse.Request, id: NodeId, change: fuse.SetAttrIn, out: fuse.AttrOut): fuse.Answer {
    const node = this.#node(id);
    const { attr } = node;
    if (change.size !== null) {
      if (change.size > 2 ** 40) return -errno.EFBIG;
      node.data.truncate(change.size);
    }
    if (change.uid !== null) attr.uid = change.uid;
    if (change.gid !== null) attr.gid = change.gid;
    if (change.killSuidgid) killSuidgid(node);
    if (change.mode !== null) attr.mode = (attr.mode & ~0o7777) | (change.mode & 0o7777);
    node.touch(change.size !== null);
    const now = { seconds: attr.ctime, nsec: attr.ctimeNsec };
    const atime = change.atime === "now" ? now : change.atime;
    const mtime = change.mtime === "now" ? now : change.mtime;
    if (atime !== null) {
      attr.atime = atime.seconds;
      attr.atimeNsec = atime.nsec;
    }
    if (mtime !== null) {
      attr.mtime = mtime.seconds;
      attr.mtimeNsec = mtime.nsec;
    }
    return this.#attr(node, out);
  }

  readlink(_: fuse.Request, id: NodeId, into: Uint8Array): fuse.Answer {
    const target = Buffer.from(this.#node(id).target, "latin1");
    into.set(target);
    return target.byteLength;
  }

  symlink(
    request: fuse.Request,
    parent: NodeId,
    name: ByteString,
    target: ByteString,
    out: fuse.EntryOut,
  ): fuse.Answer {
    return this.#create(request, parent, name, S_IFLNK | 0o777, 0, out, (node) => {
      node.target = target;
    });
  }

  mknod(
    request: fuse.Request,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: fuse.EntryOut,
  ): fuse.Answer {
    return this.#create(request, parent, name, mode, umask, out, (node) => {
      node.attr.rdev = rdev;
    });
  }

  mkdir(
    request: fuse.Request,
    parent: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: fuse.EntryOut,
  ): fuse.Answer {
    return this.#create(request, parent, name, S_IFDIR | mode, umask, out);
  }

  unlink(_: fuse.Request, parentId: NodeId, name: ByteString): fuse.Answer {
    const parent = this.#node(parentId);
    const node = parent.entries?.get(name);
    if (node === undefined) return -errno.ENOENT;
    this.#remove(parent, name, node);
    return 0;
  }

  rmdir(_: fuse.Request, parentId: NodeId, name: ByteString): fuse.Answer {
    const parent = this.#node(parentId);
    const node = parent.entries?.get(name);
    if (node === undefined) return -errno.ENOENT;
    if (node.entries === null) return -errno.ENOTDIR;
    if (node.entries.size > 0) return -errno.ENOTEMPTY;
    this.#remove(parent, name, node);
    return 0;
  }

  rename(
    _: fuse.Request,
    fromId: NodeId,
    name: ByteString,
    toId: NodeId,
    newName: ByteString,
    flags: number,
  ): fuse.Answer {
    const from = this.#node(fromId);
    const to = this.#node(toId);
    const moved = from.entries?.get(name);
    const replaced = to.entries?.get(newName);
    if (moved === undefined) return -errno.ENOENT;
    if (flags === 2) {
      if (replaced === undefined) return -errno.ENOENT;
      from.entries?.set(name, replaced);
      to.entries?.set(newName, moved);
      countDirectory(from, replaced, moved);
      countDirectory(to, moved, replaced);
    } else {
      if (flags !== 0 && flags !== 1) return -errno.EINVAL;
      if (replaced === moved) return 0;
      if (replaced !== undefined) {
        if (flags === 1) return -errno.EEXIST;
        if ((replaced.entries?.size ?? 0) > 0) return -errno.ENOTEMPTY;
        this.#remove(to, newName, replaced);
      }
      from.entries?.delete(name);
      to.entries?.set(newName, moved);
      countDirectory(from, null, moved);
      countDirectory(to, moved, null);
    }
    for (const node of [from, to]) node.touch(true);
    moved.touch(false);
    return 0;
  }

  link(_: fuse.Request, id: NodeId, parentId: NodeId, name: ByteString, out: fuse.EntryOut): fuse.Answer {
    const node = this.#node(id);
    const parent = this.#node(parentId);
    if (parent.entries?.get(name) !== undefined) return -errno.EEXIST;
    parent.entries?.set(name, node);
    node.attr.nlink++;
    node.touch(false);
    parent.touch(true);
    return this.#found(node, out);
  }

  open(_: fuse.Request, id: NodeId, flags: number, out: fuse.OpenOut, kill: boolean): fuse.Answer {
    const node = this.#node(id);
    if ((flags & O_TRUNC) !== 0) {
      node.data.truncate(0);
      if (kill) killSuidgid(node);
      node.touch(true);
    }
    return this.#opened(node, out);
  }

  create(
    request: fuse.Request,
    parent: NodeId,
    name: ByteString,
    _: number,
    mode: number,
    umask: number,
    entry: fuse.EntryOut,
    out: fuse.OpenOut,
  ): fuse.Answer {
    const result = this.#create(request, parent, name, mode, umask, entry);
    return result < 0 ? result : this.#opened(this.#node(entry.nodeId), out);
  }

  tmpfile(
    request: fuse.Request,
    parent: NodeId,
    _: number,
    mode: number,
    umask: number,
    entry: fuse.EntryOut,
    out: fuse.OpenOut,
  ): fuse.Answer {
    const node = this.#newNode(request, this.#node(parent), mode, umask);
    node.attr.nlink = 0;
    this.#found(node, entry);
    return this.#opened(node, out);
  }

  read(_: fuse.Request, id: NodeId, __: number, offset: number, into: Uint8Array): fuse.Answer {
    return this.#node(id).data.read(offset, into);
  }

  write(
    _: fuse.Request,
    id: NodeId,
    __: number,
    offset: number,
    data: Uint8Array,
    ___: number,
    ____: boolean,
    kill: boolean,
  ): fuse.Answer {
    const node = this.#node(id);
    if (kill) killSuidgid(node);
    node.touch(true);
    return node.data.write(offset, data);
  }

  flush(): fuse.Answer {
    return 0;
  }

  release(_: fuse.Request, id: NodeId): fuse.Answer {
    const node = this.#node(id);
    node.opens--;
    this.#dropIfGone(node);
    return 0;
  }

  fsync(): fuse.Answer {
    return 0;
  }

  fallocate(_: fuse.Request, id: NodeId, __: number, offset: number, length: number, mode: number): fuse.Answer {
    const { data } = this.#node(id);
    if (offset + length > 2 ** 40) return -errno.EFBIG;
    if (mode === (keepSize | punchHole)) data.punch(offset, length);
    else if ((mode & ~keepSize) !== 0) return -errno.EOPNOTSUPP;
    else {
      data.allocate(offset, length);
      if (mode === 0) data.size = Math.max(data.size, offset + length);
    }
    return 0;
  }

  lseek(_: fuse.Request, id: NodeId, __: number, offset: number, whence: number): fuse.Answer {
    const found = this.#node(id).data.seek(offset, whence === 3 ? "data" : "hole");
    return found < 0 ? -errno.ENXIO : found;
  }

  copyFileRange(
    _: fuse.Request,
    id: NodeId,
    __: number,
    offset: number,
    toId: NodeId,
    ___: number,
    toOffset: number,
    length: number,
  ): fuse.Answer {
    const buffer = Buffer.alloc(Math.min(length, 1 << 20));
    const bytes = this.#node(id).data.read(offset, buffer);
    const to = this.#node(toId);
    to.touch(true);
    return to.data.write(toOffset, buffer.subarray(0, bytes));
  }

  opendir(_: fuse.Request, id: NodeId, __: number, out: fuse.OpenOut): fuse.Answer {
    return this.#opened(this.#node(id), out);
  }

  readdir(_: fuse.Request, id: NodeId, __: number, cookie: bigint, plus: boolean, out: fuse.DirectoryOut): fuse.Answer {
    const directory = this.#node(id);
    for (const [name, at] of [
      [".", 1n],
      ["..", 2n],
    ] as const) {
      if (cookie >= at) continue;
      const entry = unknownEntry(directory);
      const added = plus ? out.addPlus(name, entry, S_IFDIR, at) : out.add(name, id, S_IFDIR, at);
      if (!added) return 0;
    }
    for (const { name, node, cookie: at } of directory.entries?.after(Math.max(Number(cookie), 2)) ?? []) {
      const next = BigInt(at);
      if (!plus) {
        if (!out.add(name, node.id, node.attr.mode, next)) return 0;
        continue;
      }
      const entry = { ...unknownEntry(node), nodeId: node.id };
      this.#attr(node, entry);
      if (!out.addPlus(name, entry, node.attr.mode, next)) return 0;
      node.lookups++;
    }
    return 0;
  }

  releasedir(request: fuse.Request, id: NodeId): fuse.Answer {
    return this.release(request, id);
  }

  fsyncdir(): fuse.Answer {
    return 0;
  }

  getxattr(_: fuse.Request, id: NodeId, name: ByteString, into: Uint8Array): fuse.Answer {
    const value = this.#node(id).xattrs.get(name);
    return value === undefined ? -errno.ENODATA : fill(value, into);
  }

  listxattr(_: fuse.Request, id: NodeId, into: Uint8Array): fuse.Answer {
    const names = [...this.#node(id).xattrs.keys()].map((name) => `${name}\0`).join("");
    return fill(Buffer.from(names, "latin1"), into);
  }

  setxattr(_: fuse.Request, id: NodeId, name: ByteString, value: Uint8Array, flags: number): fuse.Answer {
    const node = this.#node(id);
    const there = node.xattrs.has(name);
    if (flags === 1 && there) return -errno.EEXIST;
    if (flags === 2 && !there) return -errno.ENODATA;
    node.xattrs.set(name, Buffer.from(value));
    node.touch(false);
    return 0;
  }

  removexattr(_: fuse.Request, id: NodeId, name: ByteString): fuse.Answer {
    return this.#node(id).xattrs.delete(name) ? 0 : -errno.ENODATA;
  }

  statfs(_: fuse.Request, __: NodeId, out: fuse.StatfsOut): fuse.Answer {
    out.blocks = 1 << 20;
    out.freeBlocks = 1 << 19;
    out.availableBlocks = 1 << 18;
    out.files = 1000;
    out.freeFiles = 1000 - this.#nodes.size;
    out.blockSizeBytes = 4096;
    out.maxNameBytes = 255;
    return 0;
  }

  syncfs(): fuse.Answer {
    return 0;
  }

  /** A node that the kernel names and that is not there is a bug of ours or of the session: it throws. */
  #node(id: NodeId): MemoryNode {
    const node = this.#nodes.get(id);
    if (node === undefined) throw new Error(`No node ${id}`);
    return node;
  }

  #create(
    request: fuse.Request,
    parentId: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: fuse.EntryOut,
    prepare?: (node: MemoryNode) => void,
  ): number {
    if (name.length > 255) return -errno.ENAMETOOLONG;
    const parent = this.#node(parentId);
    if (parent.entries?.get(name) !== undefined) return -errno.EEXIST;
    const node = this.#newNode(request, parent, mode, umask);
    prepare?.(node);
    parent.entries?.set(name, node);
    if (node.entries !== null) parent.attr.nlink++;
    parent.touch(true);
    return this.#found(node, out);
  }

  #newNode(request: Pick<fuse.Request, "uid" | "gid">, parent: MemoryNode, mode: number, umask: number): MemoryNode {
    const node = new MemoryNode(this.#nextId++, mode & ~umask, isDirectory(mode));
    const inherits = (parent.attr.mode & S_ISGID) !== 0;
    node.attr.uid = request.uid;
    node.attr.gid = inherits ? parent.attr.gid : request.gid;
    if (inherits && isDirectory(mode)) node.attr.mode |= S_ISGID;
    this.#nodes.set(node.id, node);
    return node;
  }

  #remove(parent: MemoryNode, name: ByteString, node: MemoryNode): void {
    parent.entries?.delete(name);
    parent.touch(true);
    if (node.entries !== null) parent.attr.nlink--;
    node.attr.nlink -= node.entries === null ? 1 : 2;
    node.touch(false);
    this.#dropIfGone(node);
  }

  #dropIfGone(node: MemoryNode): void {
    if (node.attr.nlink === 0 && node.lookups <= 0 && node.opens === 0) this.#nodes.delete(node.id);
  }

  #found(node: MemoryNode, out: fuse.EntryOut): number {
    node.lookups++;
    out.nodeId = node.id;
    out.entryValidSeconds = validSeconds;
    return this.#attr(node, out);
  }

  #attr(node: MemoryNode, out: fuse.AttrOut): number {
    if (isRegular(node.attr.mode)) {
      node.attr.size = node.data.size;
      node.attr.blocks = node.data.allocatedBytes / 512;
    } else node.attr.size = node.target.length;
    out.attr.copyFrom(node.attr);
    out.attrValidSeconds = validSeconds;
    return 0;
  }

  #opened(node: MemoryNode, out: fuse.OpenOut): number {
    node.opens++;
    out.handle = this.#nextHandle++;
    out.openFlags = FOPEN_KEEP_CACHE;
    return 0;
  }
}

function unknownEntry(node: MemoryNode): fuse.EntryOut {
  return { nodeId: 0, attr: node.attr, entryValidSeconds: validSeconds, attrValidSeconds: validSeconds };
}

/** As a write by somebody without CAP_FSETID does. */
function killSuidgid(node: MemoryNode): void {
  if (node.entries !== null) return;
  node.attr.mode &= ~S_ISUID;
  if ((node.attr.mode & S_IXGRP) !== 0) node.attr.mode &= ~S_ISGID;
}

function countDirectory(parent: MemoryNode, came: MemoryNode | null, went: MemoryNode | null): void {
  if (came !== null && came.entries !== null) parent.attr.nlink++;
  if (went !== null && went.entries !== null) parent.attr.nlink--;
}

function fill(value: Uint8Array, into: Uint8Array): number {
  if (into.byteLength === 0) return value.byteLength;
  if (into.byteLength < value.byteLength) return -errno.ERANGE;
  into.set(value);
  return value.byteLength;
}
