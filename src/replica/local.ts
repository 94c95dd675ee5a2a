/**
 * One directory as a replica, its calls run on the loop. Invariants:
 *
 * - What the page cache or memory can answer is answered at once; what waits for a disk (cold reads, fsync, syncfs,
 *   allocation, large truncations and copies) goes to the kernel's or the replica's own threads, and so do names that are
 *   not in memory while the disk is busy or slow (`disk-pace.ts`). On a file system in memory nothing does.
 * - Handles are those of `LocalHandles`: one of an earlier connection answers ENOTCONN, and touches nothing.
 */
import { O_WRONLY, RWF_NOWAIT } from "../posix/constants.ts";
import { close, fallocate, fdatasync, fsync, ftruncate, lseek, preadv2, syncfs } from "../posix/files.ts";
import { IoVectors } from "../posix/io-vectors.ts";
import { raiseDescriptorLimit } from "../posix/processes.ts";
import { statxFd } from "../posix/statx.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EAGAIN, EINVAL, ENOSYS, ENOTCONN, EOPNOTSUPP } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { deliverUnlessAbandoned } from "./abandoned.ts";
import { BufferPool } from "./buffer-pool.ts";
import { DiskPace } from "./disk-pace.ts";
import { LocalDiskCalls } from "./local-disk-calls.ts";
import { cloneWhole, copyFully, readFully, writeFully } from "./local-files.ts";
import { LocalHandles } from "./local-handles.ts";
import { checkRoot, type LocalRoot, openRoot } from "./local-root.ts";
import { LocalTree } from "./local-tree.ts";
import { pathOf } from "./object-path.ts";
import { probeCapabilities } from "./probe.ts";
import type {
  Answer,
  AttrChange,
  Capabilities,
  DirectoryEntries,
  FileSystemStats,
  Owner,
  Replica,
  ReplicaHandle,
  TreeObject,
} from "./replica.ts";

export interface LocalReplicaOptions {
  readonly name: string;
  /** Of the root directory. */
  readonly path: string;
  /** Element 0 is 1 while a system call of this replica is running on the loop: a word of the status page. */
  readonly busy?: Int32Array;
  /** False: threads even where io_uring works. */
  readonly ioUring?: boolean;
  /** Hears how many calls run off the loop: they outlive the process if they hang in the kernel. */
  readonly onThreadCalls?: (calls: number) => void;
  /** How quick its disk is; for tests. */
  readonly pace?: Pick<DiskPace, "slow" | "took">;
  readonly maxThreads?: number;
  /** Threads without work end after this time. */
  readonly threadIdleMs?: number;
}

/** Reading so many entries of a directory takes as long as a call on one name. */
const entriesPerCall = 50;
/** Longer paths are walked in steps, on the loop. */
const maxPathBytes = 4000;
const largeTruncationBytes = 64 << 20;
const largeCopyBytes = 1 << 20;

export class LocalReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly #busy: Int32Array;
  readonly #disk: LocalDiskCalls;
  #tree = new LocalTree(-ENOTCONN);
  #root: LocalRoot | null = null;
  readonly #handles: LocalHandles;
  #inMemory = true;
  #canTellCold = true;
  readonly #pace: Pick<DiskPace, "slow" | "took">;

  constructor(options: LocalReplicaOptions) {
    this.name = options.name;
    this.url = options.path;
    this.#handles = new LocalHandles(close, options.onThreadCalls);
    this.#pace = options.pace ?? new DiskPace();
    this.#busy = options.busy ?? new Int32Array(1);
    this.#disk = new LocalDiskCalls({
      ioUring: options.ioUring ?? true,
      maxThreads: options.maxThreads ?? 8,
      idleMs: options.threadIdleMs ?? 10_000,
    });
  }

  async connect({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    if (this.#root !== null) await this.disconnect();
    this.#busy[0] = 1;
    let root: LocalRoot;
    try {
      root = openRoot(this.name, this.url);
    } finally {
      this.#busy[0] = 0;
    }
    raiseDescriptorLimit(); // each file that is open on the volume is open here
    this.#root = root;
    this.#tree = new LocalTree(root.fd);
    this.#handles.connected();
    this.#inMemory = root.inMemory;
    this.#canTellCold = !root.inMemory;
    if (!root.inMemory) this.#disk.start();
  }

  async disconnect(): Promise<void> {
    this.#disk.stop();
    const root = this.#root;
    this.#root = null;
    this.#tree.forgetAll();
    this.#tree = new LocalTree(-ENOTCONN);
    if (root !== null) this.#handles.closeDescriptor(root.fd);
    await this.#handles.disconnected();
  }

  check(): Answer {
    return this.#root === null ? -ENOTCONN : this.#leave(checkRoot(this.#root));
  }

  probe(): Promise<Capabilities> {
    return probeCapabilities(this);
  }

  forget(object: TreeObject): void {
    this.#tree.forget(object);
  }

  /** Around each system call, so that whoever watches the page knows whose call it is that does not come back. */
  #enter(): LocalTree {
    this.#busy[0] = 1;
    return this.#tree;
  }

  #leave(result: number): number {
    this.#busy[0] = 0;
    return result;
  }

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    if (this.#inMemory) return this.#leave(this.#enter().lookup(directory, name, attr));
    if (!this.#mayWait()) return this.#timed(performance.now(), this.#enter().lookup(directory, name, attr));
    const cached = this.#leave(this.#enter().lookupCached(directory, name, attr ?? scratch));
    if (cached !== -EAGAIN) return cached;
    const reply = this.#find({ parent: directory, name }).then(() => {
      const own = new FileAttr();
      const result = this.#leave(this.#enter().lookup(directory, name, own));
      return result < 0 ? result : ([result, own] as const);
    });
    return deliverUnlessAbandoned(reply, (own) => attr?.copyFrom(own));
  }

  /** Is something going on, or likely to, that a call on the disk would keep from going on? */
  #mayWait(): boolean {
    return (this.#handles.busy || this.#pace.slow) && this.#disk.finds;
  }

  /** The end of a call on names that ran on the loop, and may have waited for the disk. */
  #timed(began: number, result: number): number {
    this.#busy[0] = 0;
    this.#pace.took(performance.now() - began);
    return result;
  }

  /** Has what the object's name leads to brought into memory. The name may lead elsewhere by then, or nowhere. */
  #find(object: TreeObject): Promise<void> {
    const { rootFd } = this.#tree;
    const path = pathOf(object);
    if (rootFd < 0 || path.length > maxPathBytes) return Promise.resolve();
    const began = performance.now();
    const found = this.#disk.find(rootFd, path).then(() => this.#pace.took(performance.now() - began));
    return this.#handles.during(found, rootFd);
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#handles.opened(this.#leave(this.#enter().create(directory, name, mode, owner, attr)));
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#leave(this.#enter().mkdir(directory, name, mode, owner, attr));
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer {
    return this.#leave(this.#enter().mknod(directory, name, mode, rdev, owner, attr));
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer {
    return this.#leave(this.#enter().symlink(directory, name, target, owner, attr));
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#leave(this.#enter().link(object, directory, name, attr));
  }

  unlink(directory: TreeObject, name: ByteString): Answer {
    return this.#leave(this.#enter().unlink(directory, name));
  }

  rmdir(directory: TreeObject, name: ByteString): Answer {
    return this.#leave(this.#enter().rmdir(directory, name));
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer {
    return this.#leave(this.#enter().rename(from, fromName, to, toName, flags));
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Answer {
    if (this.#inMemory) return this.#leave(this.#enter().readdir(directory, into));
    if (this.#pace.slow) return this.#readdirCold(directory, into);
    const began = performance.now();
    const result = this.#leave(this.#enter().readdir(directory, into));
    this.#pace.took((performance.now() - began) / (1 + into.names.length / entriesPerCall));
    return result;
  }

  /** A thread reads the directory first, so that it is in memory. */
  #readdirCold(directory: TreeObject, into: DirectoryEntries): Answer {
    const fd = this.#leave(this.#enter().openDirectory(directory));
    if (fd < 0) return fd;
    const reply = this.#handles.during(this.#disk.readDirectory(fd), fd).then(() => {
      close(fd);
      const own: DirectoryEntries = { names: [], types: [], inos: [] };
      const result = this.#leave(this.#enter().readdir(directory, own));
      return result < 0 ? result : ([result, own] as const);
    });
    return deliverUnlessAbandoned(reply, ({ names, types, inos }) => {
      for (const name of names) into.names.push(name);
      for (const type of types) into.types.push(type);
      for (const ino of inos) into.inos.push(ino);
    });
  }

  getattr(object: TreeObject, attr: FileAttr): Answer {
    if (object.parent !== null) return this.lookup(object.parent, object.name, attr);
    return this.#leave(this.#enter().getattr(object, attr));
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer {
    if (change.size !== undefined && !this.#inMemory) return this.#resize(object, handle, change, change.size, attr);
    const fd = handle < 0 ? -1 : this.#handles.descriptor(handle);
    if (handle >= 0 && fd < 0) return this.#handles.why(handle);
    return this.#leave(this.#enter().setattr(object, fd, change, attr));
  }

  /** Freeing much space takes long: then on a thread. */
  #resize(object: TreeObject, handle: ReplicaHandle, change: AttrChange, size: number, attr: FileAttr | null): Answer {
    const own = handle < 0;
    const fd = own ? this.#leave(this.#enter().openFor(object, O_WRONLY)) : this.#handles.descriptor(handle);
    if (fd < 0) return own ? fd : this.#handles.why(handle);
    const finish = (result: number): Answer => {
      if (result === -EINVAL && !own) return this.#resize(object, -1, change, size, attr); // opened for reading only
      const { size: _, ...rest } = change;
      const answer = result < 0 ? result : this.#leave(this.#enter().setattr(object, fd, rest, attr));
      if (own) close(fd);
      return answer;
    };
    this.#enter();
    const large = this.#leave(statxFd(fd, scratch)) === 0 && scratch.size - size > largeTruncationBytes;
    if (!large) {
      this.#enter();
      return finish(this.#leave(ftruncate(fd, size)));
    }
    return this.#handles.during(this.#disk.ftruncate(fd, size).then(finish), fd);
  }

  readlink(object: TreeObject, into: Uint8Array): Answer {
    return this.#leave(this.#enter().readlink(object, into));
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer {
    return this.#leave(this.#enter().getxattr(object, name, into));
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer {
    return this.#leave(this.#enter().setxattr(object, name, value, flags));
  }

  listxattr(object: TreeObject, into: Uint8Array): Answer {
    return this.#leave(this.#enter().listxattr(object, into));
  }

  removexattr(object: TreeObject, name: ByteString): Answer {
    return this.#leave(this.#enter().removexattr(object, name));
  }

  fsyncdir(object: TreeObject): Answer {
    const fd = this.#leave(this.#enter().openDirectory(object));
    if (fd < 0) return fd;
    const finish = (result: number): number => {
      close(fd);
      return result;
    };
    return this.#inMemory ? finish(fsync(fd)) : this.#handles.during(this.#disk.fsync(fd, false).then(finish), fd);
  }

  open(object: TreeObject, access: "read" | "read-write"): Answer {
    if (!this.#inMemory && this.#mayWait()) {
      const cached = this.#leave(this.#enter().openCached(object, access));
      if (cached !== -EAGAIN) return this.#handles.opened(cached);
      return this.#find(object).then(() => this.#openNow(object, access));
    }
    return this.#openNow(object, access);
  }

  #openNow(object: TreeObject, access: "read" | "read-write"): number {
    return this.#handles.opened(this.#leave(this.#enter().open(object, access)));
  }

  close(handle: ReplicaHandle): Answer {
    this.#enter();
    return this.#leave(this.#handles.close(handle));
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    this.#enter();
    return this.#leave(statxFd(fd, attr));
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    this.#enter();
    if (!this.#canTellCold) return this.#leave(readFully(fd, into, position));
    let done = 0;
    do {
      vectors.set(0, done === 0 ? into : into.subarray(done));
      const bytes = preadv2(fd, vectors.raw, 1, position + done, RWF_NOWAIT);
      if (bytes === 0) break;
      if (bytes < 0) {
        this.#leave(0);
        return bytes === -EAGAIN
          ? this.#readCold(fd, into, position, done)
          : this.#readPlainly(bytes, fd, into, position);
      }
      done += bytes;
    } while (done < into.byteLength);
    return this.#leave(done);
  }

  #readCold(fd: number, into: Uint8Array, position: number, done: number): Promise<number> {
    const bytes = into.byteLength - done;
    const buffer = buffers.take(bytes);
    const reading = this.#handles.during(this.#disk.read(fd, buffer, bytes, position + done), fd);
    const reply = reading.then((result) => (result < 0 ? result : ([done + result, result] as const)));
    const answer = deliverUnlessAbandoned(reply, (result) => into.set(buffer.subarray(0, result), done));
    void answer.finally(() => buffers.give(buffer));
    return answer;
  }

  /** The file system does not know RWF_NOWAIT: never asked again. Or a real error. */
  #readPlainly(result: number, fd: number, into: Uint8Array, position: number): number {
    if (result !== -EOPNOTSUPP && result !== -ENOSYS && result !== -EINVAL) return result;
    this.#canTellCold = false;
    this.#enter();
    return this.#leave(readFully(fd, into, position));
  }

  write(handle: ReplicaHandle, data: Uint8Array, position: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    this.#enter();
    return this.#leave(writeFully(fd, data, position));
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    if (!this.#inMemory) return this.#handles.during(this.#disk.fsync(fd, dataOnly), fd);
    return dataOnly ? fdatasync(fd) : fsync(fd);
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    if (!this.#inMemory) return this.#handles.during(this.#disk.fallocate(fd, mode, position, length), fd);
    this.#enter();
    return this.#leave(fallocate(fd, mode, position, length));
  }

  seek(handle: ReplicaHandle, position: number, whence: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    this.#enter();
    return this.#leave(lseek(fd, position, whence));
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer {
    const fromFd = this.#handles.descriptor(from);
    const toFd = this.#handles.descriptor(to);
    if (fromFd < 0) return this.#handles.why(from);
    if (toFd < 0) return this.#handles.why(to);
    if (!this.#inMemory && length > largeCopyBytes) {
      return this.#handles.during(this.#disk.copy(fromFd, fromPosition, toFd, toPosition, length), fromFd, toFd);
    }
    this.#enter();
    return this.#leave(copyFully(fromFd, fromPosition, toFd, toPosition, length));
  }

  clone(from: ReplicaHandle, to: ReplicaHandle): Answer {
    const fromFd = this.#handles.descriptor(from);
    const toFd = this.#handles.descriptor(to);
    if (fromFd < 0) return this.#handles.why(from);
    if (toFd < 0) return this.#handles.why(to);
    this.#enter();
    return this.#leave(cloneWhole(fromFd, toFd));
  }

  statfs(into: FileSystemStats): Answer {
    return this.#leave(this.#enter().statfs(into));
  }

  sync(): Answer {
    const fd = this.#tree.rootFd;
    if (fd < 0) return fd;
    return this.#inMemory ? syncfs(fd) : this.#handles.during(this.#disk.syncfs(fd), fd);
  }
}

const vectors = new IoVectors(1);
/** For reads on threads, kept for the next ones. */
const buffers = new BufferPool(2 << 20);
const scratch = new FileAttr();
