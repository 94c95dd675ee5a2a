/**
 * What a thread of `offload.ts` can be asked: whole operations on a tree by paths from its root. Runs on the thread, on a
 * tree of its own; descriptors of open files belong to the process, so any thread may use them. An answer that is more
 * than a number is a pair.
 */
import { close, fallocate, fdatasync, fsync, lseek, preadAddress, pwriteAddress, syncfs } from "../posix/files.ts";
import { statxFd } from "../posix/statx.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EIO, ENODEV } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import type { WithValue } from "./abandoned.ts";
import { cloneWhole, copyFully } from "./local-files.ts";
import { checkRoot, type LocalRoot, openRoot } from "./local-root.ts";
import { LocalTree } from "./local-tree.ts";
import {
  type AttrChange,
  type DirectoryEntries,
  type FileSystemStats,
  type Owner,
  ReplicaError,
  type TreeObject,
} from "./replica.ts";

/** What the first thread found, and the others must find. */
export interface RootIdentity {
  readonly device: number;
  readonly ino: number;
}
type WithAttr = WithValue<FileAttr>;
type WithBytes = WithValue<Uint8Array>;

const maxPlaces = 4096;

export class OffloadCalls {
  readonly #name: string;
  readonly #path: string;
  #root: LocalRoot | null = null;
  #tree: LocalTree | null = null;
  #epoch = 0;
  readonly #top: TreeObject = { parent: null, name: "" };
  readonly #places = new Map<string, TreeObject>();

  constructor(name: string, path: string) {
    this.#name = name;
    this.#path = path;
  }

  /** Before a call: opens the root if this thread has not; forgets all places if directories have moved since. */
  prepare(epoch: number, identity: RootIdentity | null): number {
    if (this.#tree === null && identity !== null) {
      const opened = this.#open();
      if (typeof opened === "string") return -ENODEV;
      if (opened.device !== identity.device || opened.ino !== identity.ino) {
        this.end();
        return -ENODEV;
      }
    }
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#places.clear();
      this.#tree?.forgetAll();
    }
    return 0;
  }

  /** The thread ends. */
  end(): void {
    this.#tree?.close();
    this.#tree = null;
    this.#root = null;
  }

  #open(): LocalRoot | string {
    try {
      const root = openRoot(this.#name, this.#path);
      this.#root = root;
      this.#tree = new LocalTree(root.fd);
      return root;
    } catch (error) {
      if (error instanceof ReplicaError) return error.message;
      throw error;
    }
  }

  #at(path: string): TreeObject {
    if (path === "") return this.#top;
    const there = this.#places.get(path);
    if (there !== undefined) return there;
    if (this.#places.size >= maxPlaces) {
      this.#places.clear();
      this.#tree?.forgetAll();
    }
    const slash = path.lastIndexOf("/");
    const parent = slash < 0 ? this.#top : this.#at(path.slice(0, slash));
    const place = { parent, name: path.slice(slash + 1) };
    this.#places.set(path, place);
    return place;
  }

  get #opened(): LocalTree {
    if (this.#tree === null) throw new Error(`The thread of replica "${this.#name}" has no root`);
    return this.#tree;
  }

  /** The root's identity, or why there is none. */
  connect(): RootIdentity | string {
    this.end();
    const root = this.#open();
    return typeof root === "string" ? root : { device: root.device, ino: root.ino };
  }

  check(): number {
    return this.#root === null ? -ENODEV : checkRoot(this.#root);
  }

  lookup(directory: string, name: ByteString, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.lookup(this.#at(directory), name, attr));
  }

  create(directory: string, name: ByteString, mode: number, owner: Owner, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.create(this.#at(directory), name, mode, owner, attr));
  }

  mkdir(directory: string, name: ByteString, mode: number, owner: Owner, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.mkdir(this.#at(directory), name, mode, owner, attr));
  }

  mknod(directory: string, name: ByteString, mode: number, rdev: number, owner: Owner, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.mknod(this.#at(directory), name, mode, rdev, owner, attr));
  }

  symlink(directory: string, name: ByteString, target: ByteString, owner: Owner, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.symlink(this.#at(directory), name, target, owner, attr));
  }

  link(object: string, directory: string, name: ByteString, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.link(this.#at(object), this.#at(directory), name, attr));
  }

  unlink(directory: string, name: ByteString): number {
    return this.#opened.unlink(this.#at(directory), name);
  }

  rmdir(directory: string, name: ByteString): number {
    return this.#opened.rmdir(this.#at(directory), name);
  }

  rename(from: string, fromName: ByteString, to: string, toName: ByteString, flags: number): number {
    return this.#opened.rename(this.#at(from), fromName, this.#at(to), toName, flags);
  }

  readdir(directory: string): WithValue<DirectoryEntries> {
    const entries: DirectoryEntries = { names: [], types: [], inos: [] };
    const result = this.#opened.readdir(this.#at(directory), entries);
    return result < 0 ? result : [result, entries];
  }

  getattr(object: string): WithAttr {
    return withAttr(true, (attr) => this.#opened.getattr(this.#at(object), attr as FileAttr));
  }

  setattr(object: string, fd: number, change: AttrChange, wanted: boolean): WithAttr {
    return withAttr(wanted, (attr) => this.#opened.setattr(this.#at(object), fd, change, attr));
  }

  readlink(object: string, length: number): WithBytes {
    return withBytes(length, (into) => this.#opened.readlink(this.#at(object), into));
  }

  getxattr(object: string, name: ByteString, length: number): WithBytes {
    return withBytes(length, (into) => this.#opened.getxattr(this.#at(object), name, into));
  }

  setxattr(object: string, name: ByteString, value: Uint8Array, flags: number): number {
    return this.#opened.setxattr(this.#at(object), name, value, flags);
  }

  listxattr(object: string, length: number): WithBytes {
    return withBytes(length, (into) => this.#opened.listxattr(this.#at(object), into));
  }

  removexattr(object: string, name: ByteString): number {
    return this.#opened.removexattr(this.#at(object), name);
  }

  fsyncdir(object: string): number {
    const fd = this.#opened.openDirectory(this.#at(object));
    if (fd < 0) return fd;
    const result = fsync(fd);
    close(fd);
    return result;
  }

  open(object: string, access: "read" | "read-write"): number {
    return this.#opened.open(this.#at(object), access);
  }

  close(fds: readonly number[]): number {
    let result = 0;
    for (const fd of fds) result = close(fd);
    return result;
  }

  fgetattr(fd: number): WithAttr {
    return withAttr(true, (attr) => statxFd(fd, attr as FileAttr));
  }

  read(fd: number, address: number, length: number, position: number): number {
    return transfer(length, (done) => preadAddress(fd, address + done, length - done, position + done));
  }

  write(fd: number, address: number, length: number, position: number): number {
    const done = transfer(length, (done) => pwriteAddress(fd, address + done, length - done, position + done));
    return done >= 0 && done < length ? -EIO : done;
  }

  fsync(fd: number, dataOnly: boolean): number {
    return dataOnly ? fdatasync(fd) : fsync(fd);
  }

  fallocate(fd: number, mode: number, position: number, length: number): number {
    return fallocate(fd, mode, position, length);
  }

  seek(fd: number, position: number, whence: number): number {
    return lseek(fd, position, whence);
  }

  copyRange(from: number, fromPosition: number, to: number, toPosition: number, length: number): number {
    return copyFully(from, fromPosition, to, toPosition, length);
  }

  clone(from: number, to: number): number {
    return cloneWhole(from, to);
  }

  statfs(): WithValue<FileSystemStats> {
    const stats: FileSystemStats = {
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    };
    const result = this.#opened.statfs(stats);
    return result < 0 ? result : [result, stats];
  }

  sync(): number {
    return syncfs(this.#opened.rootFd);
  }
}

const scratch = new FileAttr();

function withAttr(wanted: boolean, call: (attr: FileAttr | null) => number): WithAttr {
  if (!wanted) return call(null);
  const result = call(scratch);
  return result < 0 ? result : [result, scratch];
}

function withBytes(length: number, call: (into: Uint8Array) => number): WithBytes {
  const into = Buffer.allocUnsafeSlow(length);
  const result = call(into);
  return result <= 0 || length === 0 ? result : [result, into.subarray(0, result)];
}

/** Goes on until all is done, nothing more comes, or an error. */
function transfer(length: number, call: (done: number) => number): number {
  let done = 0;
  while (done < length) {
    const bytes = call(done);
    if (bytes < 0) return bytes;
    if (bytes === 0) break;
    done += bytes;
  }
  return done;
}
