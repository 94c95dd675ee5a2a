/**
 * The volume as a FUSE file system: the kernel's node ids and handles to nodes and open files, and each request to the
 * operation on all replicas. What replication means is not decided here.
 */
import {
  type Answer,
  type AttrOut,
  type DirectoryOut,
  type EntryOut,
  type FileHandle,
  type FileSystem,
  type Negotiated,
  type NodeId,
  type OpenOut,
  type Request,
  ROOT_NODE,
  type SetAttrIn,
  type StatfsOut,
  type TimeIn,
} from "../fuse/filesystem.ts";
import { fileSystemTime } from "../posix/clock.ts";
import type { AttrChange, DirectoryEntries, TimeSpec } from "../replica/replica.ts";
import type { Attributes } from "../replication/attributes.ts";
import type { Intents } from "../replication/contracts.ts";
import type { FanOut } from "../replication/fan-out.ts";
import type { Files } from "../replication/files.ts";
import type { ExchangeMemo, Namespace } from "../replication/namespace.ts";
import type { OpenFile } from "../replication/open-file.ts";
import { CONTROL_DIRECTORY } from "../replication/orphans.ts";
import type { Times } from "../replication/times.ts";
import type { TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EBADF, ENOENT, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESTALE } from "../util/errno.ts";
import { FileAttr, isDirectory, S_IFDIR, S_ISGID, S_ISUID } from "../util/file-attr.ts";
import { type Eventual, type Op, start, wait } from "../util/op.ts";
import type { VolumeAbilities } from "./abilities.ts";
import { DirectoryListing } from "./directory-listing.ts";
import type { NodeTable } from "./node-table.ts";

const O_ACCMODE = 3;
const O_TRUNC = 0o1000;
const O_DSYNC = 0o10000;
const FOPEN_DIRECT_IO = 1 << 0;
const FOPEN_KEEP_CACHE = 1 << 1;
const FOPEN_NOFLUSH = 1 << 5;
const FOPEN_CACHE_DIR = 1 << 3;
const XATTR_ACL_DEFAULT = "system.posix_acl_default";
const XATTR_CAPABILITY = "security.capability";
/** How many lookups of a READDIRPLUS are under way at once on replicas that answer later. */
const READ_AHEAD = 32;

export interface VolumeDeps {
  readonly table: NodeTable;
  readonly names: Namespace;
  readonly attributes: Attributes;
  readonly files: Files;
  readonly fanOut: FanOut;
  readonly times: Times;
  readonly intents: Pick<Intents, "created">;
  readonly onInit: (negotiated: Negotiated) => void;
  readonly exchangeMemo: (unique: bigint) => ExchangeMemo;
  /** What all replicas can do. */
  readonly abilities: () => VolumeAbilities;
  /** May so many bytes more be written? 0 or a negative errno. */
  readonly admit: (bytes: number) => number;
  /** Sizes and free space as applications see them. */
  readonly statfs: (out: StatfsOut) => Op<number>;
}

export interface VolumeOptions {
  /** How long the kernel may keep names and attributes: it is the only one who changes them. */
  readonly cacheSeconds: number;
  readonly readOnly: boolean;
}

export class VolumeFileSystem implements FileSystem {
  readonly #deps: VolumeDeps;
  readonly #options: VolumeOptions;
  /** Attributes of removed directories that somebody still stands in. */
  readonly #removed = new WeakMap<TreeNode, FileAttr>();
  /** Directories that are known to have no default ACL, or one; asked once. */
  readonly #defaultAcl = new WeakMap<TreeNode, boolean>();

  constructor(deps: VolumeDeps, options: VolumeOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  init(negotiated: Negotiated): void {
    this.#deps.onInit(negotiated);
  }

  // ---- names ----------------------------------------------------------------------------------------------------

  lookup(_request: Request, parent: NodeId, name: ByteString, out: EntryOut): Answer {
    const directory = this.#deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    if (this.#reserved(directory, name)) return -ENOENT;
    return start(this.#lookup(directory, name, out));
  }

  *#lookup(directory: TreeNode, name: ByteString, out: EntryOut): Op<number> {
    const result = yield* this.#deps.names.lookup(directory, name, out.attr);
    if (result === -ENOENT) {
      out.nodeId = 0;
      out.entryValidSeconds = this.#options.cacheSeconds;
      return 0;
    }
    if (result < 0) return result;
    this.#enter(directory, name, out);
    return 0;
  }

  #enter(directory: TreeNode, name: ByteString, out: EntryOut): TreeNode {
    const node = this.#deps.table.enter(directory, name, out.attr);
    this.#deps.table.show(node, out.attr);
    out.nodeId = node.id;
    out.entryValidSeconds = this.#options.cacheSeconds;
    out.attrValidSeconds = this.#options.cacheSeconds;
    return node;
  }

  /** `.chiron` at the root is ours. */
  #reserved(directory: TreeNode, name: ByteString): boolean {
    return directory.parent === null && name === CONTROL_DIRECTORY;
  }

  forget(node: NodeId, lookups: number): void {
    this.#deps.table.forget(node, lookups);
  }

  mkdir(request: Request, parent: NodeId, name: ByteString, mode: number, umask: number, out: EntryOut): Answer {
    return this.#make(parent, name, mode, umask, out, (directory, finalMode) =>
      this.#deps.names.mkdir(directory, name, finalMode, request, request.resent, out.attr),
    );
  }

  mknod(
    request: Request,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: EntryOut,
  ): Answer {
    return this.#make(parent, name, mode, umask, out, (directory, finalMode) =>
      this.#deps.names.mknod(directory, name, finalMode, rdev, request, request.resent, out.attr),
    );
  }

  symlink(request: Request, parent: NodeId, name: ByteString, target: ByteString, out: EntryOut): Answer {
    return this.#make(parent, name, 0o777, 0, out, (directory) =>
      this.#deps.names.symlink(directory, name, target, request, request.resent, out.attr),
    );
  }

  link(request: Request, id: NodeId, newParent: NodeId, newName: ByteString, out: EntryOut): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    return this.#make(newParent, newName, 0, 0, out, (directory) => this.#link(request, node, directory, newName, out));
  }

  *#link(request: Request, node: TreeNode, directory: TreeNode, name: ByteString, out: EntryOut): Op<number> {
    const { names, table } = this.#deps;
    const result = yield* names.link(node, directory, name, request.resent, out.attr);
    // The tree learns of the second name here, so that `enter` finds the same node whatever number it has now.
    if (result >= 0) table.tree.link(node, directory, name);
    return result;
  }

  #make(
    parent: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: EntryOut,
    make: (directory: TreeNode, mode: number) => Op<number>,
  ): Answer {
    const directory = this.#deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#refuse(directory, name);
    if (refused < 0) return refused;
    return start(this.#made(directory, name, mode, umask, out, make));
  }

  *#made(
    directory: TreeNode,
    name: ByteString,
    mode: number,
    umask: number,
    out: EntryOut,
    make: (directory: TreeNode, mode: number) => Op<number>,
  ): Op<number> {
    const result = yield* make(directory, umask === 0 ? mode : yield* this.#masked(directory, mode, umask));
    if (result < 0) return result;
    const node = this.#enter(directory, name, out);
    if (isDirectory(out.attr.mode)) this.#deps.intents.created(directory, node);
    else this.#deps.times.note(node);
    return 0;
  }

  /** What no request may touch, or not now. */
  #refuse(directory: TreeNode, name: ByteString): number {
    if (this.#options.readOnly) return -EROFS;
    if (this.#reserved(directory, name)) return -EPERM;
    if (directory.detached) return -ENOENT;
    return 0;
  }

  /** The umask counts only where the directory has no default ACL: that decides instead, on the backends. */
  *#masked(directory: TreeNode, mode: number, umask: number): Op<number> {
    if (this.#deps.abilities().acls) {
      let hasDefault = this.#defaultAcl.get(directory);
      if (hasDefault === undefined) {
        hasDefault = (yield* this.#deps.attributes.getxattr(directory, XATTR_ACL_DEFAULT, new Uint8Array(0))) > 0;
        this.#defaultAcl.set(directory, hasDefault);
      }
      if (hasDefault) return mode;
    }
    return mode & ~umask;
  }

  unlink(request: Request, parent: NodeId, name: ByteString): Answer {
    const directory = this.#deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#refuse(directory, name);
    return refused < 0 ? refused : start(this.#deps.names.unlink(directory, name, request.resent));
  }

  rmdir(request: Request, parent: NodeId, name: ByteString): Answer {
    const directory = this.#deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#refuse(directory, name);
    return refused < 0 ? refused : start(this.#rmdir(request, directory, name));
  }

  *#rmdir(request: Request, directory: TreeNode, name: ByteString): Op<number> {
    const { names, table, attributes } = this.#deps;
    const node = table.tree.get(directory, name);
    const attr = new FileAttr();
    if (node !== undefined) yield* attributes.getattr(node, attr);
    const result = yield* names.rmdir(directory, name, request.resent);
    if (result >= 0 && node !== undefined) {
      table.show(node, attr);
      attr.nlink = 0;
      this.#removed.set(node, attr);
    }
    return result;
  }

  rename(
    request: Request,
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Answer {
    const { table, names } = this.#deps;
    const from = table.get(parent);
    const to = table.get(newParent);
    if (from === undefined || to === undefined) return -ESTALE;
    const refused = this.#refuse(from, name) || this.#refuse(to, newName);
    if (refused < 0) return refused;
    if (flags !== 0 && !this.#deps.abilities().renameFlags) return -EOPNOTSUPP;
    const memo = this.#deps.exchangeMemo(request.unique);
    return start(names.rename(from, name, to, newName, flags, request.resent, memo));
  }

  // ---- attributes -----------------------------------------------------------------------------------------------

  getattr(_request: Request, id: NodeId, _handle: FileHandle | null, out: AttrOut): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined) return -ESTALE;
    return start(this.#getattr(node, out));
  }

  *#getattr(node: TreeNode, out: AttrOut): Op<number> {
    out.attrValidSeconds = this.#options.cacheSeconds;
    if (node.detached) {
      const attr = this.#removed.get(node);
      if (attr === undefined) return -ESTALE;
      out.attr.copyFrom(attr);
      return 0;
    }
    const result = yield* this.#deps.attributes.getattr(node, out.attr);
    if (result >= 0) this.#deps.table.show(node, out.attr);
    return result;
  }

  setattr(_request: Request, id: NodeId, change: SetAttrIn, out: AttrOut): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined) return -ESTALE;
    if (this.#options.readOnly) return -EROFS;
    return node.detached ? this.#setattrRemoved(node, change, out) : start(this.#setattr(node, change, out));
  }

  /** No replica has it any more: it changes for those alone who still hold it. With the write-back cache the kernel
   *  flushes the times of a file that is gone, and an error would be syncfs's. */
  #setattrRemoved(node: TreeNode, change: SetAttrIn, out: AttrOut): number {
    const attr = this.#removed.get(node) ?? new FileAttr();
    attr.ino = node.ino;
    attr.mode = change.mode === null ? attr.mode | node.type : node.type | (change.mode & 0o7777);
    attr.uid = change.uid ?? attr.uid;
    attr.gid = change.gid ?? attr.gid;
    this.#removed.set(node, attr);
    out.attr.copyFrom(attr);
    return 0;
  }

  *#setattr(node: TreeNode, change: SetAttrIn, out: AttrOut): Op<number> {
    const { attributes, table } = this.#deps;
    out.attrValidSeconds = this.#options.cacheSeconds;
    const now = change.atime === "now" || change.mtime === "now" ? fileSystemTime() : null;
    const time = (t: TimeIn | "now"): TimeSpec => (t === "now" ? (now as TimeSpec) : t);
    const set: { -readonly [K in keyof AttrChange]: AttrChange[K] } = {};
    if (change.mode !== null) set.mode = change.mode & 0o7777;
    if (change.uid !== null) set.uid = change.uid;
    if (change.gid !== null) set.gid = change.gid;
    if (change.size !== null) set.size = change.size;
    if (change.atime !== null) set.atime = time(change.atime);
    if (change.mtime !== null) set.mtime = time(change.mtime);
    if (node.open !== null) node.open.unprivileged = false;
    if (change.killSuidgid) {
      const killed = yield* this.#killPrivileges(node, null);
      if (killed < 0) return killed;
    }
    const result =
      Object.keys(set).length === 0
        ? yield* attributes.getattr(node, out.attr)
        : yield* attributes.setattr(node, set, out.attr);
    if (result >= 0) table.show(node, out.attr);
    return result;
  }

  /** Clears set-user-id, set-group-id and capabilities, as a write by others does. */
  *#killPrivileges(node: TreeNode, file: OpenFile | null): Op<number> {
    const { attributes } = this.#deps;
    const attr = new FileAttr();
    const result = yield* attributes.getattr(node, attr);
    if (result < 0) return result;
    const group = (attr.mode & (S_ISGID | 0o010)) === (S_ISGID | 0o010) ? S_ISGID : 0;
    const kill = attr.mode & (S_ISUID | group);
    if (kill !== 0) {
      const set = yield* attributes.setattr(node, { mode: attr.mode & 0o7777 & ~kill }, attr);
      if (set < 0) return set;
    }
    if ((yield* attributes.getxattr(node, XATTR_CAPABILITY, new Uint8Array(0))) >= 0) {
      const removed = yield* attributes.removexattr(node, XATTR_CAPABILITY, true);
      if (removed < 0) return removed;
    }
    if (file !== null) file.unprivileged = true;
    return 0;
  }

  readlink(_request: Request, id: NodeId, into: Uint8Array): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    return start(this.#deps.fanOut.read((replica) => replica.readlink(node, into)));
  }

  getxattr(_request: Request, id: NodeId, name: ByteString, into: Uint8Array): Answer {
    return this.#xattr(id, name, (node) => this.#deps.attributes.getxattr(node, name, into));
  }

  listxattr(_request: Request, id: NodeId, into: Uint8Array): Answer {
    return this.#xattr(id, null, (node) => this.#listxattr(node, into));
  }

  /** Only names that the volume offers. */
  *#listxattr(node: TreeNode, into: Uint8Array): Op<number> {
    const { attributes, abilities } = this.#deps;
    const all = Buffer.alloc(64 * 1024);
    const length = yield* attributes.listxattr(node, all);
    if (length < 0) return length;
    const names = all
      .toString("latin1", 0, length)
      .split("\0")
      .filter((name) => name !== "" && abilities().xattr(name));
    const listed = Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1");
    if (into.length === 0) return listed.length;
    if (into.length < listed.length) return -ERANGE;
    into.set(listed);
    return listed.length;
  }

  setxattr(
    request: Request,
    id: NodeId,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Answer {
    if (this.#options.readOnly) return -EROFS;
    return this.#xattr(id, name, (node) => this.#setxattr(request, node, name, value, flags, killSgid));
  }

  *#setxattr(
    request: Request,
    node: TreeNode,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Op<number> {
    const { attributes } = this.#deps;
    if (node.open !== null) node.open.unprivileged = false;
    this.#defaultAcl.delete(node);
    if (killSgid) {
      const attr = new FileAttr();
      const result = yield* attributes.getattr(node, attr);
      if (result < 0) return result;
      if ((attr.mode & S_ISGID) !== 0) {
        const cleared = yield* attributes.setattr(node, { mode: attr.mode & 0o7777 & ~S_ISGID }, attr);
        if (cleared < 0) return cleared;
      }
    }
    return yield* attributes.setxattr(node, name, value, flags, request.resent);
  }

  removexattr(request: Request, id: NodeId, name: ByteString): Answer {
    if (this.#options.readOnly) return -EROFS;
    return this.#xattr(id, name, (node) => {
      this.#defaultAcl.delete(node);
      return this.#deps.attributes.removexattr(node, name, request.resent);
    });
  }

  #xattr(id: NodeId, name: ByteString | null, act: (node: TreeNode) => Op<number>): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    if (name !== null && !this.#deps.abilities().xattr(name)) return -EOPNOTSUPP;
    return start(act(node));
  }

  // ---- files ----------------------------------------------------------------------------------------------------

  open(_request: Request, id: NodeId, flags: number, out: OpenOut, killSuidgid: boolean): Answer {
    const { table, files } = this.#deps;
    const node = table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    const writes = (flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0;
    if (writes && this.#options.readOnly) return -EROFS;
    const file = files.use(node);
    this.#opened(file, flags, out);
    if ((flags & O_TRUNC) === 0) return 0;
    return start(this.#truncate(node, file, out, killSuidgid));
  }

  #opened(file: OpenFile, flags: number, out: OpenOut): void {
    out.handle = this.#deps.table.openFile(file, flags);
    // A reader's close tells us nothing, so the kernel need not wait for it.
    out.openFlags = FOPEN_KEEP_CACHE | ((flags & O_ACCMODE) === 0 ? FOPEN_NOFLUSH : 0);
    if ((flags & O_DIRECT) !== 0) out.openFlags |= FOPEN_DIRECT_IO;
  }

  *#truncate(node: TreeNode, file: OpenFile, out: OpenOut, killSuidgid: boolean): Op<number> {
    const { attributes, table, files } = this.#deps;
    const killed = killSuidgid ? yield* this.#killPrivileges(node, file) : 0;
    const result = killed < 0 ? killed : yield* attributes.setattr(node, { size: 0 }, new FileAttr());
    if (result >= 0) return 0;
    const entry = table.files.get(out.handle);
    if (entry !== undefined) table.closeFile(out.handle, entry);
    yield* files.release(file);
    return result;
  }

  create(
    request: Request,
    parent: NodeId,
    name: ByteString,
    flags: number,
    mode: number,
    umask: number,
    entry: EntryOut,
    out: OpenOut,
  ): Answer {
    const directory = this.#deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#refuse(directory, name);
    if (refused < 0) return refused;
    return start(this.#create(request, directory, name, flags, mode, umask, entry, out));
  }

  *#create(
    request: Request,
    directory: TreeNode,
    name: ByteString,
    flags: number,
    mode: number,
    umask: number,
    entry: EntryOut,
    out: OpenOut,
  ): Op<number> {
    const { names, files } = this.#deps;
    const finalMode = yield* this.#masked(directory, mode & 0o7777, umask);
    const file = yield* names.create(directory, name, finalMode, request, request.resent, entry.attr);
    if (typeof file === "number") return file;
    files.adopt(file);
    const node = this.#enter(directory, name, entry);
    this.#deps.table.tree.unpin(node); // the pin of `create`; `enter` and the handle have their own
    this.#opened(file, flags, out);
    this.#deps.times.note(node);
    return 0;
  }

  tmpfile(
    request: Request,
    parent: NodeId,
    flags: number,
    mode: number,
    umask: number,
    entry: EntryOut,
    out: OpenOut,
  ): Answer {
    const directory = this.#deps.table.get(parent);
    if (directory === undefined || directory.detached) return -ESTALE;
    if (this.#options.readOnly) return -EROFS;
    return start(this.#tmpfile(request, directory, flags, mode, umask, entry, out));
  }

  *#tmpfile(
    request: Request,
    directory: TreeNode,
    flags: number,
    mode: number,
    umask: number,
    entry: EntryOut,
    out: OpenOut,
  ): Op<number> {
    const { names, files, table } = this.#deps;
    const finalMode = yield* this.#masked(directory, mode & 0o7777, umask);
    const node = table.newOrphan();
    const file = yield* names.create(
      table.orphans.directory,
      node.name,
      finalMode,
      request,
      request.resent,
      entry.attr,
    );
    if (typeof file === "number") {
      table.tree.unpin(node);
      return file;
    }
    files.adopt(file);
    node.orphanLinks = 1;
    this.#enter(table.orphans.directory, node.name, entry);
    table.refresh(node);
    table.tree.unpin(node, 2);
    this.#opened(file, flags, out);
    return 0;
  }

  read(_request: Request, _node: NodeId, handle: FileHandle, offset: number, into: Uint8Array): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#deps.files.read(entry.file, into, offset));
  }

  write(
    _request: Request,
    _node: NodeId,
    handle: FileHandle,
    offset: number,
    data: Uint8Array,
    flags: number,
    _cached: boolean,
    killSuidgid: boolean,
  ): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    const admitted = this.#deps.admit(data.length);
    if (admitted < 0) return admitted;
    if (killSuidgid && !entry.file.unprivileged) return start(this.#writeUnprivileged(entry.file, data, offset, flags));
    if ((flags & O_DSYNC) !== 0) return start(this.#writeThrough(entry.file, data, offset));
    return start(this.#deps.files.write(entry.file, data, offset));
  }

  *#writeUnprivileged(file: OpenFile, data: Uint8Array, offset: number, flags: number): Op<number> {
    const killed = yield* this.#killPrivileges(file.node, file);
    if (killed < 0) return killed;
    return yield* (flags & O_DSYNC) !== 0
      ? this.#writeThrough(file, data, offset)
      : this.#deps.files.write(file, data, offset);
  }

  *#writeThrough(file: OpenFile, data: Uint8Array, offset: number): Op<number> {
    const written = yield* this.#deps.files.write(file, data, offset);
    if (written < 0) return written;
    const synced = yield* this.#deps.files.fsync(file, true);
    return synced < 0 ? synced : written;
  }

  flush(_request: Request, _node: NodeId, handle: FileHandle): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#deps.times.settle(entry.file.node));
  }

  release(_request: Request, _node: NodeId, handle: FileHandle): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return 0; // released by an earlier process, which died before it said so
    return start(this.#release(handle, entry.file));
  }

  *#release(handle: FileHandle, file: OpenFile): Op<number> {
    const { files, table, names } = this.#deps;
    const { node } = file;
    node.pins++; // to see the orphan off
    const entry = table.files.get(handle);
    const last = yield* files.release(file);
    if (entry !== undefined) table.closeFile(handle, entry);
    if (last && table.orphans.holds(node)) yield* names.discard(node);
    table.tree.unpin(node);
    return 0;
  }

  fsync(_request: Request, _node: NodeId, handle: FileHandle, dataOnly: boolean): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#deps.files.fsync(entry.file, dataOnly));
  }

  fallocate(
    _request: Request,
    _node: NodeId,
    handle: FileHandle,
    offset: number,
    length: number,
    mode: number,
  ): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    if (!this.#deps.abilities().fallocate(mode)) return -EOPNOTSUPP;
    const admitted = this.#deps.admit(length);
    if (admitted < 0) return admitted;
    return start(this.#deps.files.fallocate(entry.file, mode, offset, length));
  }

  lseek(_request: Request, _node: NodeId, handle: FileHandle, offset: number, whence: number): Answer {
    const entry = this.#deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#deps.files.seek(entry.file, offset, whence));
  }

  copyFileRange(
    _request: Request,
    _node: NodeId,
    handle: FileHandle,
    offset: number,
    _toNode: NodeId,
    toHandle: FileHandle,
    toOffset: number,
    length: number,
  ): Answer {
    const { table, files, admit } = this.#deps;
    const from = table.files.get(handle);
    const to = table.files.get(toHandle);
    if (from === undefined || to === undefined) return -EBADF;
    const admitted = admit(length);
    if (admitted < 0) return admitted;
    return start(files.copyRange(from.file, offset, to.file, toOffset, length));
  }

  // ---- directories ----------------------------------------------------------------------------------------------

  opendir(_request: Request, id: NodeId, _flags: number, out: OpenOut): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined) return -ESTALE;
    out.handle = this.#deps.table.openDirectory(node);
    out.openFlags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR;
    return 0;
  }

  readdir(
    _request: Request,
    _node: NodeId,
    handle: FileHandle,
    cookie: bigint,
    plus: boolean,
    out: DirectoryOut,
  ): Answer {
    const entry = this.#deps.table.directories.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#readdir(entry, cookie, plus, out));
  }

  *#readdir(
    entry: { readonly node: TreeNode; listing: DirectoryListing | null },
    cookie: bigint,
    plus: boolean,
    out: DirectoryOut,
  ): Op<number> {
    const { names, table } = this.#deps;
    const { node } = entry;
    if (node.detached) return 0;
    if (entry.listing === null || cookie === 0n) {
      const entries: DirectoryEntries = { names: [], types: [], inos: [] };
      const result = yield* names.readdir(node, entries);
      if (result < 0) return result;
      entry.listing = new DirectoryListing(entries);
    }
    const listing = entry.listing;
    const parent = node.parent ?? node;
    const dot = (name: string, of: TreeNode, next: bigint): boolean => {
      if (!plus) return out.add(name, of.ino || ROOT_NODE, S_IFDIR, next);
      const entry: EntryOut = { nodeId: 0, attr: new FileAttr(), entryValidSeconds: 0, attrValidSeconds: 0 };
      entry.attr.ino = of.ino || ROOT_NODE;
      return out.addPlus(name, entry, S_IFDIR, next);
    };
    if (cookie < 1n && !dot(".", node, 1n)) return 0;
    if (cookie < 2n && !dot("..", parent, 2n)) return 0;
    let place = listing.placeAfter(cookie);
    if (plus) return yield* this.#readdirPlus(node, listing, place, out);
    for (; place < listing.length; place++) {
      const i = listing.at(place);
      const name = listing.names[i] as ByteString;
      if (this.#reserved(node, name)) continue;
      const ino = table.tree.get(node, name)?.ino || (listing.inos[i] as number);
      if (!out.add(name, ino, listing.types[i] as number, listing.cookieAt(place))) break;
    }
    return 0;
  }

  *#readdirPlus(directory: TreeNode, listing: DirectoryListing, from: number, out: DirectoryOut): Op<number> {
    const { names, table } = this.#deps;
    const batch: { place: number; name: ByteString; entry: EntryOut; answer: Eventual<number> }[] = [];
    for (let place = from; place < listing.length; ) {
      batch.length = 0;
      for (; place < listing.length && batch.length < READ_AHEAD; place++) {
        const name = listing.names[listing.at(place)] as ByteString;
        if (this.#reserved(directory, name)) continue;
        const entry: EntryOut = { nodeId: 0, attr: new FileAttr(), entryValidSeconds: 0, attrValidSeconds: 0 };
        batch.push({ place, name, entry, answer: start(names.lookup(directory, name, entry.attr)) });
      }
      for (const { place: at, name, entry, answer } of batch) {
        const result = yield* wait(answer);
        if (result < 0) continue; // gone since the listing
        const type = listing.types[listing.at(at)] as number;
        const node = this.#enter(directory, name, entry);
        if (!out.addPlus(name, entry, type, listing.cookieAt(at))) {
          table.forget(node.id, 1);
          return 0;
        }
      }
    }
    return 0;
  }

  releasedir(_request: Request, _node: NodeId, handle: FileHandle): Answer {
    this.#deps.table.closeDirectory(handle);
    return 0;
  }

  fsyncdir(_request: Request, id: NodeId): Answer {
    const node = this.#deps.table.get(id);
    if (node === undefined) return -ESTALE;
    if (node.detached) return 0;
    return start(this.#fsyncdir(node));
  }

  *#fsyncdir(node: TreeNode): Op<number> {
    const { times, fanOut } = this.#deps;
    const settled = yield* times.settle(node);
    if (settled < 0) return settled;
    return yield* fanOut.change({ call: (replica) => replica.fsyncdir(node), follows: () => false });
  }

  // ---- the whole ------------------------------------------------------------------------------------------------

  statfs(_request: Request, _node: NodeId, out: StatfsOut): Answer {
    return start(this.#deps.statfs(out));
  }

  syncfs(): Answer {
    return start(this.#syncfs());
  }

  *#syncfs(): Op<number> {
    const { times, fanOut } = this.#deps;
    yield* times.settleAll();
    return yield* fanOut.change({ call: (replica) => replica.sync(), follows: () => false });
  }
}

const O_DIRECT = process.arch === "arm64" ? 0o200000 : 0o40000;
