/** Requests on open files. */
import type { Answer, EntryOut, FileHandle, NodeId, OpenOut, Request } from "../fuse/filesystem.ts";
import { mayWritePastCache } from "../fuse/negotiate.ts";
import type { OpenFile } from "../replication/open-file.ts";
import type { TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EBADF, EOPNOTSUPP, EROFS, ESTALE } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { type Op, start } from "../util/op.ts";

import type { VolumeContext } from "./requests.ts";

const O_ACCMODE = 3;
const O_WRONLY = 1;
const O_TRUNC = 0o1000;
const O_DSYNC = 0o10000;
const FOPEN_DIRECT_IO = 1 << 0;
const FOPEN_KEEP_CACHE = 1 << 1;
const FOPEN_NOFLUSH = 1 << 5;
const O_DIRECT = process.arch === "arm64" ? 0o200000 : 0o40000;

export class FileRequests {
  readonly #c: VolumeContext;
  /** null until the first file is opened. */
  #writesPastCache: boolean | null = null;

  constructor(context: VolumeContext) {
    this.#c = context;
  }

  open(_request: Request, id: NodeId, flags: number, out: OpenOut, killSuidgid: boolean): Answer {
    const { table, files } = this.#c.deps;
    const node = table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    const writes = (flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0;
    if (writes && this.#c.options.readOnly) return -EROFS;
    const file = files.use(node);
    this.#opened(file, flags, out);
    if ((flags & O_TRUNC) === 0) return 0;
    return start(this.#truncate(node, file, out, killSuidgid));
  }

  #opened(file: OpenFile, flags: number, out: OpenOut): void {
    out.handle = this.#c.deps.table.openFile(file, flags);
    // A reader's close tells us nothing, so the kernel need not wait for it.
    out.openFlags = FOPEN_KEEP_CACHE | ((flags & O_ACCMODE) === 0 ? FOPEN_NOFLUSH : 0);
    if ((flags & O_DIRECT) !== 0 || this.#pastCache(file, flags)) out.openFlags |= FOPEN_DIRECT_IO;
  }

  /**
   * Who only writes needs no pages here: each replica has its own, and filling the kernel's as well costs a third of a large
   * write. Not where others have the file open: readers should find pages.
   */
  #pastCache(file: OpenFile, flags: number): boolean {
    if ((flags & O_ACCMODE) !== O_WRONLY || file.users > 1) return false;
    if (this.#writesPastCache === null) {
      const negotiated = this.#c.deps.negotiated();
      this.#writesPastCache = negotiated !== null && mayWritePastCache(negotiated);
    }
    return this.#writesPastCache;
  }

  *#truncate(node: TreeNode, file: OpenFile, out: OpenOut, killSuidgid: boolean): Op<number> {
    const { attributes, table, files } = this.#c.deps;
    const killed = killSuidgid ? yield* this.#c.killPrivileges(node, file) : 0;
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
    const directory = this.#c.deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#c.refuse(directory, name);
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
    const { names, files } = this.#c.deps;
    const finalMode = yield* this.#c.masked(directory, mode & 0o7777, umask);
    const file = yield* names.create(directory, name, finalMode, request, request.resent, entry.attr);
    if (typeof file === "number") return file;
    files.adopt(file);
    const node = this.#c.enter(directory, name, entry);
    this.#c.deps.table.tree.unpin(node); // the pin of `create`; `enter` and the handle have their own
    this.#opened(file, flags, out);
    this.#c.deps.times.note(node);
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
    const directory = this.#c.deps.table.get(parent);
    if (directory === undefined || directory.detached) return -ESTALE;
    if (this.#c.options.readOnly) return -EROFS;
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
    const { names, files, table } = this.#c.deps;
    const finalMode = yield* this.#c.masked(directory, mode & 0o7777, umask);
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
    this.#c.enter(table.orphans.directory, node.name, entry);
    table.refresh(node);
    table.tree.unpin(node, 2);
    this.#opened(file, flags, out);
    return 0;
  }

  read(_request: Request, _node: NodeId, handle: FileHandle, offset: number, into: Uint8Array): Answer {
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#c.deps.files.read(entry.file, into, offset));
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
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    const admitted = this.#c.deps.admit(data.length);
    if (admitted < 0) return admitted;
    if (killSuidgid && !entry.file.unprivileged) return start(this.#writeUnprivileged(entry.file, data, offset, flags));
    if ((flags & O_DSYNC) !== 0) return start(this.#writeThrough(entry.file, data, offset));
    return start(this.#c.deps.files.write(entry.file, data, offset));
  }

  *#writeUnprivileged(file: OpenFile, data: Uint8Array, offset: number, flags: number): Op<number> {
    const killed = yield* this.#c.killPrivileges(file.node, file);
    if (killed < 0) return killed;
    return yield* (flags & O_DSYNC) !== 0
      ? this.#writeThrough(file, data, offset)
      : this.#c.deps.files.write(file, data, offset);
  }

  *#writeThrough(file: OpenFile, data: Uint8Array, offset: number): Op<number> {
    const written = yield* this.#c.deps.files.write(file, data, offset);
    if (written < 0) return written;
    const synced = yield* this.#c.deps.files.fsync(file, true);
    return synced < 0 ? synced : written;
  }

  flush(_request: Request, _node: NodeId, handle: FileHandle): Answer {
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#c.deps.times.settle(entry.file.node));
  }

  release(_request: Request, _node: NodeId, handle: FileHandle): Answer {
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return 0; // released by an earlier process, which died before it said so
    return start(this.#release(handle, entry.file));
  }

  *#release(handle: FileHandle, file: OpenFile): Op<number> {
    const { files, table, names } = this.#c.deps;
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
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#c.deps.files.fsync(entry.file, dataOnly));
  }

  fallocate(
    _request: Request,
    _node: NodeId,
    handle: FileHandle,
    offset: number,
    length: number,
    mode: number,
  ): Answer {
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    if (!this.#c.deps.abilities().fallocate(mode)) return -EOPNOTSUPP;
    const admitted = this.#c.deps.admit(length);
    if (admitted < 0) return admitted;
    return start(this.#c.deps.files.fallocate(entry.file, mode, offset, length));
  }

  lseek(_request: Request, _node: NodeId, handle: FileHandle, offset: number, whence: number): Answer {
    const entry = this.#c.deps.table.files.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#c.deps.files.seek(entry.file, offset, whence));
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
    const { table, files, admit } = this.#c.deps;
    const from = table.files.get(handle);
    const to = table.files.get(toHandle);
    if (from === undefined || to === undefined) return -EBADF;
    const admitted = admit(length);
    if (admitted < 0) return admitted;
    return start(files.copyRange(from.file, offset, to.file, toOffset, length));
  }
}
