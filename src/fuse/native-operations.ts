/**
 * A `FileSystem` as operations of fuse-native: from paths to nodes, and from callbacks to answers.
 *
 * - A path is looked up from the root for each operation, and each lookup is forgotten at its end; an open file keeps
 *   the lookup of its node until it is released.
 * - The caller is not known here: every request is by the process itself.
 */
import { type ByteString, byteString } from "../util/byte-string.ts";
import { EIO, ENOENT } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import type { Logger } from "../util/logger.ts";
import type * as fuse from "./filesystem.ts";
import { type FileHandle, type NodeId, ROOT_NODE } from "./filesystem.ts";
import type { NativeDone, NativeOperations, NativeStat } from "./native-binding.ts";

interface OpenNode {
  readonly node: NodeId;
  readonly handle: FileHandle;
  readonly flags: number;
}

const O_RDWR = 2;
const O_CREAT = 0o100;
const unchanged: fuse.SetAttrIn = {
  handle: null,
  mode: null,
  uid: null,
  gid: null,
  size: null,
  atime: null,
  mtime: null,
  ctime: null,
  killSuidgid: false,
};
const unset = 0xffff_ffff;

export class NativeRequests {
  readonly #fs: fuse.FileSystem;
  readonly #logger: Logger;
  readonly #open = new Map<number, OpenNode>();
  #nextOpen = 1;
  #nextUnique = 2n;

  constructor(fs: fuse.FileSystem, logger: Logger) {
    this.#fs = fs;
    this.#logger = logger;
  }

  /** How many files and directories are open. */
  get openCount(): number {
    return this.#open.size;
  }

  operations(): NativeOperations {
    const fs = this.#fs;
    return {
      getattr: (path: string, done: NativeDone<NativeStat>) =>
        this.#value(done, async (request) => {
          const out = attrOut();
          const result = await this.#at(path, (node) => fs.getattr(request, node, null, out));
          return [result, statOf(out.attr)];
        }),
      fgetattr: (path: string, _: number, done: NativeDone<NativeStat>) =>
        this.#value(done, async (request) => {
          const out = attrOut();
          const result = await this.#at(path, (node) => fs.getattr(request, node, null, out));
          return [result, statOf(out.attr)];
        }),
      readdir: (path: string, done: NativeDone<string[]>) => this.#value(done, (request) => this.#list(request, path)),
      readlink: (path: string, done: NativeDone<string>) =>
        this.#value(done, async (request) => {
          const into = Buffer.alloc(4096);
          const result = await this.#at(path, (node) => fs.readlink(request, node, into));
          return [Math.min(result, 0), result < 0 ? "" : into.toString("utf8", 0, result)];
        }),
      statfs: (path: string, done: NativeDone<object>) =>
        this.#value(done, async (request) => {
          const out: fuse.StatfsOut = {
            blocks: 0,
            freeBlocks: 0,
            availableBlocks: 0,
            files: 0,
            freeFiles: 0,
            blockSizeBytes: 4096,
            maxNameBytes: 255,
          };
          const result = await this.#at(path, (node) => fs.statfs(request, node, out));
          return [result, statvfsOf(out)];
        }),

      chmod: (path: string, mode: number, done: NativeDone) => this.#change(done, path, { mode }),
      chown: (path: string, uid: number, gid: number, done: NativeDone) =>
        this.#change(done, path, { uid: uid === unset ? null : uid, gid: gid === unset ? null : gid }),
      truncate: (path: string, size: number, done: NativeDone) => this.#change(done, path, { size }),
      ftruncate: (path: string, _: number, size: number, done: NativeDone) => this.#change(done, path, { size }),
      utimens: (path: string, atimeMs: number, mtimeMs: number, done: NativeDone) =>
        this.#change(done, path, { atime: timeOf(atimeMs), mtime: timeOf(mtimeMs) }),

      mkdir: (path: string, mode: number, done: NativeDone) =>
        this.#make(done, path, (request, parent, name, out) => fs.mkdir(request, parent, name, mode, 0, out)),
      mknod: (path: string, mode: number, rdev: number, done: NativeDone) =>
        this.#make(done, path, (request, parent, name, out) => fs.mknod(request, parent, name, mode, rdev, 0, out)),
      symlink: (target: string, path: string, done: NativeDone) =>
        this.#make(done, path, (request, parent, name, out) =>
          fs.symlink(request, parent, name, byteString(target), out),
        ),
      link: (from: string, path: string, done: NativeDone) =>
        this.#make(done, path, (request, parent, name, out) =>
          this.#at(from, (node) => fs.link(request, node, parent, name, out)),
        ),
      unlink: (path: string, done: NativeDone) =>
        this.#plain(done, (request) => this.#in(path, (parent, name) => fs.unlink(request, parent, name))),
      rmdir: (path: string, done: NativeDone) =>
        this.#plain(done, (request) => this.#in(path, (parent, name) => fs.rmdir(request, parent, name))),
      rename: (from: string, to: string, done: NativeDone) =>
        this.#plain(done, (request) =>
          this.#in(from, (parent, name) =>
            this.#in(to, (newParent, newName) => fs.rename(request, parent, name, newParent, newName, 0)),
          ),
        ),

      open: (path: string, flags: number, done: NativeDone<number>) =>
        this.#value(done, (request) =>
          this.#opened(path, flags, (node, out) => fs.open(request, node, flags, out, false)),
        ),
      opendir: (path: string, flags: number, done: NativeDone<number>) =>
        this.#value(done, (request) => this.#opened(path, flags, (node, out) => fs.opendir(request, node, flags, out))),
      create: (path: string, mode: number, done: NativeDone<number>) =>
        this.#value(done, async (request) => {
          const entry = entryOut();
          const out = { handle: 0, openFlags: 0 };
          const flags = O_RDWR | O_CREAT; // what was asked for is lost on the way
          const result = await this.#in(path, (parent, name) =>
            fs.create(request, parent, name, flags, mode, 0, entry, out, false),
          );
          return result < 0 ? [result, 0] : [0, this.#keep(entry.nodeId, out.handle, flags)];
        }),
      read: (_: string, id: number, into: Buffer, length: number, offset: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle, flags }) =>
          fs.read(request, node, handle, offset, into.subarray(0, length), flags),
        ),
      write: (_: string, id: number, data: Buffer, length: number, offset: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle, flags }) =>
          fs.write(request, node, handle, offset, data.subarray(0, length), flags, false, false),
        ),
      flush: (_: string, id: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle }) => fs.flush(request, node, handle, 0n)),
      fsync: (_: string, dataOnly: number, id: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle }) => fs.fsync(request, node, handle, dataOnly !== 0)),
      fsyncdir: (_: string, dataOnly: number, id: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle }) => fs.fsyncdir(request, node, handle, dataOnly !== 0)),
      release: (_: string, id: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle, flags }) => {
          this.#open.delete(id);
          return this.#thenForget(node, fs.release(request, node, handle, flags, null));
        }),
      releasedir: (_: string, id: number, done: NativeDone) =>
        this.#file(done, id, (request, { node, handle }) => {
          this.#open.delete(id);
          return this.#thenForget(node, fs.releasedir(request, node, handle));
        }),
    };
  }

  #request(): fuse.Request {
    const unique = this.#nextUnique;
    this.#nextUnique += 2n;
    const never = new AbortController();
    return {
      unique,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      pid: 0,
      resent: false,
      signal: never.signal,
    };
  }

  #value<T>(done: NativeDone<T>, work: (request: fuse.Request) => Promise<readonly [number, T]>): void {
    work(this.#request()).then(
      ([result, value]) => (result < 0 ? done(result) : done(0, value)),
      (error) => done(this.#bug(error)),
    );
  }

  #plain(done: NativeDone, work: (request: fuse.Request) => Promise<number>): void {
    work(this.#request()).then(done, (error) => done(this.#bug(error)));
  }

  #bug(error: unknown): number {
    this.#logger.error("a request failed by a bug", { cause: error instanceof Error ? error.stack : String(error) });
    return -EIO;
  }

  #change(done: NativeDone, path: string, change: Partial<fuse.SetAttrIn>): void {
    this.#plain(done, (request) =>
      this.#at(path, (node) => this.#fs.setattr(request, node, { ...unchanged, ...change }, attrOut())),
    );
  }

  #make(
    done: NativeDone,
    path: string,
    make: (request: fuse.Request, parent: NodeId, name: ByteString, out: fuse.EntryOut) => fuse.Answer,
  ): void {
    this.#plain(done, async (request) => {
      const out = entryOut();
      const result = await this.#in(path, (parent, name) => make(request, parent, name, out));
      if (result >= 0) this.#forget(out.nodeId);
      return Math.min(result, 0);
    });
  }

  #file(done: NativeDone, id: number, work: (request: fuse.Request, file: OpenNode) => fuse.Answer): void {
    this.#plain(done, async (request) => {
      const file = this.#open.get(id);
      return file === undefined ? -EIO : work(request, file);
    });
  }

  async #opened(
    path: string,
    flags: number,
    open: (node: NodeId, out: fuse.OpenOut) => fuse.Answer,
  ): Promise<readonly [number, number]> {
    const out = { handle: 0, openFlags: 0 };
    const node = await this.#walk(path);
    if (node < 0) return [node, 0];
    const result = await open(node, out);
    if (result >= 0) return [0, this.#keep(node, out.handle, flags)];
    this.#forget(node);
    return [result, 0];
  }

  #keep(node: NodeId, handle: FileHandle, flags: number): number {
    const id = this.#nextOpen++;
    this.#open.set(id, { node, handle, flags });
    return id;
  }

  async #list(request: fuse.Request, path: string): Promise<readonly [number, string[]]> {
    const names: string[] = [];
    let last = 0n;
    const take = (name: ByteString, cookie: bigint): true => {
      names.push(Buffer.from(name, "latin1").toString("utf8"));
      last = cookie;
      return true;
    };
    const out: fuse.DirectoryOut = {
      add: (name, _ino, _type, cookie) => take(name, cookie),
      addPlus: (name, _entry, _type, cookie) => take(name, cookie),
    };
    const opened = { handle: 0, openFlags: 0 };
    const result = await this.#at(path, async (node) => {
      const open = await this.#fs.opendir(request, node, 0, opened);
      if (open < 0) return open;
      let listed = 0;
      for (let before = -1n; listed >= 0 && before !== last; ) {
        before = last;
        listed = await this.#fs.readdir(request, node, opened.handle, last, false, out);
      }
      await this.#fs.releasedir(request, node, opened.handle);
      return listed;
    });
    return [Math.min(result, 0), names];
  }

  /** Runs something on the node of a path. */
  async #at(path: string, work: (node: NodeId) => fuse.Answer): Promise<number> {
    const node = await this.#walk(path);
    return node < 0 ? node : this.#thenForget(node, work(node));
  }

  /** Runs something on the directory and the name that a path ends with. */
  #in(path: string, work: (parent: NodeId, name: ByteString) => fuse.Answer): Promise<number> {
    const slash = path.lastIndexOf("/");
    return this.#at(path.slice(0, slash), (parent) => work(parent, byteString(path.slice(slash + 1))));
  }

  /** The node of a path, looked up once, to be forgotten; or a negative errno. */
  async #walk(path: string): Promise<NodeId> {
    let node = ROOT_NODE;
    for (const name of path.split("/")) {
      if (name === "") continue;
      const out = entryOut();
      const result = await this.#thenForget(node, this.#fs.lookup(this.#request(), node, byteString(name), out));
      if (result < 0) return result;
      if (out.nodeId === 0) return -ENOENT;
      node = out.nodeId;
    }
    return node;
  }

  async #thenForget(node: NodeId, answer: fuse.Answer): Promise<number> {
    try {
      return await answer;
    } finally {
      this.#forget(node);
    }
  }

  #forget(node: NodeId): void {
    if (node !== ROOT_NODE) this.#fs.forget(node, 1);
  }
}

function attrOut(): fuse.AttrOut {
  return { attr: new FileAttr(), attrValidSeconds: 0 };
}

function entryOut(): fuse.EntryOut {
  return { nodeId: 0, attr: new FileAttr(), entryValidSeconds: 0, attrValidSeconds: 0 };
}

function timeOf(ms: number): fuse.TimeIn {
  const seconds = Math.floor(ms / 1000);
  return { seconds, nsec: (ms - seconds * 1000) * 1e6 };
}

function msOf(seconds: number, nsec: number): number {
  return Math.max(0, seconds * 1000 + Math.floor(nsec / 1e6));
}

function statOf(attr: FileAttr): NativeStat {
  return {
    mode: attr.mode,
    uid: attr.uid,
    gid: attr.gid,
    size: attr.size,
    dev: 0,
    nlink: attr.nlink,
    ino: attr.ino % 2 ** 32,
    rdev: attr.rdev,
    blksize: attr.blksize,
    blocks: attr.blocks,
    atime: msOf(attr.atime, attr.atimeNsec),
    mtime: msOf(attr.mtime, attr.mtimeNsec),
    ctime: msOf(attr.ctime, attr.ctimeNsec),
  };
}

function statvfsOf(out: fuse.StatfsOut): object {
  return {
    bsize: out.blockSizeBytes,
    frsize: out.blockSizeBytes,
    blocks: out.blocks,
    bfree: out.freeBlocks,
    bavail: out.availableBlocks,
    files: out.files,
    ffree: out.freeFiles,
    favail: out.freeFiles,
    fsid: 0,
    flag: 0,
    namemax: out.maxNameBytes,
  };
}
