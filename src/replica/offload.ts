/**
 * One directory as a replica, each operation run whole on a thread of its own: for mounts that may hang (FUSE, NFS, SMB).
 * Nothing here ever waits for the directory on the loop. Invariants:
 *
 * - One hop for each operation. Objects go as paths from the root; each thread keeps descriptors for them and forgets
 *   them all when a directory may have moved or gone (`epoch`).
 * - A stuck call keeps its thread, its buffers and its descriptors until it ends; `disconnect` waits for it.
 */
import { addressOf } from "../posix/memory.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOTCONN } from "../util/errno.ts";
import type { FileAttr } from "../util/file-attr.ts";
import { deliverUnlessAbandoned, type WithValue } from "./abandoned.ts";
import { BufferPool } from "./buffer-pool.ts";
import { LocalHandles } from "./local-handles.ts";
import { pathOf } from "./object-path.ts";
import type { OffloadCalls, RootIdentity } from "./offload-calls.ts";
import { probeCapabilities } from "./probe.ts";
import {
  type Answer,
  type AttrChange,
  type Capabilities,
  type DirectoryEntries,
  type FileSystemStats,
  type Owner,
  type Replica,
  ReplicaError,
  type ReplicaHandle,
  type TreeObject,
} from "./replica.ts";
import { Threads } from "./threads.ts";

export interface OffloadedReplicaOptions {
  readonly name: string;
  readonly path: string;
  /** For people, where the path is not what they know it by. */
  readonly url?: string;
  /** Hears how many calls run off the loop: they outlive the process if they hang in the kernel. */
  readonly onThreadCalls?: (calls: number) => void;
  readonly maxThreads?: number;
  readonly threadIdleMs?: number;
}

export interface OffloadWorkerData {
  readonly name: string;
  readonly path: string;
}

type Method = Exclude<keyof OffloadCalls, "prepare" | "end">;
type Args<M extends Method> = Parameters<OffloadCalls[M]>;
type Reply<M extends Method> = ReturnType<OffloadCalls[M]>;
export type OffloadRequest = readonly [
  epoch: number,
  identity: RootIdentity | null,
  call: Method,
  args: readonly unknown[],
];

export class OffloadedReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly #threads: Threads<OffloadRequest, unknown>;
  readonly #handles: LocalHandles;
  /** A call that is given up must not read or fill what its caller uses for something else by then. */
  readonly #buffers = new BufferPool(2 << 20);
  #identity: RootIdentity | null = null;
  #epoch = 0;

  constructor(options: OffloadedReplicaOptions) {
    const { name, path } = options;
    this.name = name;
    this.url = options.url ?? path;
    this.#threads = new Threads({
      module: "offload-worker",
      workerData: { name, path } satisfies OffloadWorkerData,
      maxThreads: options.maxThreads ?? 8,
      idleMs: options.threadIdleMs ?? 10_000,
    });
    this.#handles = new LocalHandles((fd) => {
      void this.#ask("close", [[fd]]);
      return 0;
    }, options.onThreadCalls);
  }

  async connect({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    await this.disconnect();
    signal.throwIfAborted();
    this.#threads.restart();
    const answer = this.#ask("connect", []);
    const found = await Promise.race([answer, aborted(signal)]);
    if (found === null) {
      this.#threads.stop();
      throw new ReplicaError(this.name, `${this.url} does not answer; check the server behind it`);
    }
    if (typeof found === "string") throw new ReplicaError(this.name, found.replace(/^Replica "[^"]*": /, ""));
    if (typeof found === "number") throw new ReplicaError(this.name, "its thread has ended", { errno: found });
    this.#identity = found;
    this.#handles.connected();
  }

  async disconnect(): Promise<void> {
    this.#identity = null;
    this.#threads.dropQueue();
    await this.#handles.disconnected();
    await this.#threads.idle();
    this.#threads.stop();
  }

  check(): Answer {
    return this.#call("check", []);
  }

  probe(): Promise<Capabilities> {
    return probeCapabilities(this);
  }

  /** Threads keep places for a short time only. */
  forget(_object: TreeObject): void {}

  /** Asks a thread, connected or not. */
  #ask<M extends Method>(call: M, args: Args<M>, keep: unknown = null): Promise<Reply<M> | number> {
    return this.#threads.run([this.#epoch, this.#identity, call, args], keep) as Promise<Reply<M> | number>;
  }

  #call<M extends Method>(call: M, args: Args<M>, keep: unknown = null): Promise<Reply<M> | number> {
    if (this.#identity === null) return Promise.resolve(-ENOTCONN);
    return this.#handles.during(this.#ask(call, args, keep), -1);
  }

  #callWith<M extends Method>(
    call: M,
    args: Args<M>,
    fd: number,
    other = fd,
    keep: unknown = null,
  ): Promise<Reply<M> | number> {
    return this.#handles.during(this.#ask(call, args, keep), fd, other);
  }

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return intoAttr(this.#call("lookup", [pathOf(directory), name, attr !== null]), attr);
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    const call = this.#call("create", [pathOf(directory), name, mode, plainOwner(owner), attr !== null]);
    const opened = call.then((reply) => {
      if (typeof reply === "number") return this.#handles.opened(reply);
      return [this.#handles.opened(reply[0]), reply[1]] as const;
    });
    return intoAttr(opened, attr);
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return intoAttr(this.#call("mkdir", [pathOf(directory), name, mode, plainOwner(owner), attr !== null]), attr);
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer {
    return intoAttr(this.#call("mknod", [pathOf(directory), name, mode, rdev, plainOwner(owner), attr !== null]), attr);
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer {
    return intoAttr(this.#call("symlink", [pathOf(directory), name, target, plainOwner(owner), attr !== null]), attr);
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return intoAttr(this.#call("link", [pathOf(object), pathOf(directory), name, attr !== null]), attr);
  }

  unlink(directory: TreeObject, name: ByteString): Answer {
    return this.#call("unlink", [pathOf(directory), name]);
  }

  rmdir(directory: TreeObject, name: ByteString): Answer {
    return this.#moving(this.#call("rmdir", [pathOf(directory), name]));
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer {
    return this.#moving(this.#call("rename", [pathOf(from), fromName, pathOf(to), toName, flags]));
  }

  /** Descriptors that threads keep by path are worth nothing after this. */
  async #moving(answer: Promise<number>): Promise<number> {
    const result = await answer;
    this.#epoch++;
    return result;
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Answer {
    return deliverUnlessAbandoned(this.#call("readdir", [pathOf(directory)]), ({ names, types, inos }) => {
      for (let i = 0; i < names.length; i++) {
        into.names.push(names[i] as ByteString);
        into.types.push(types[i] as number);
        into.inos.push(inos[i] as number);
      }
    });
  }

  getattr(object: TreeObject, attr: FileAttr): Answer {
    return intoAttr(this.#call("getattr", [pathOf(object)]), attr);
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer {
    const fd = handle < 0 ? -1 : this.#handles.descriptor(handle);
    if (handle >= 0 && fd < 0) return this.#handles.why(handle);
    if (this.#identity === null) return -ENOTCONN;
    return intoAttr(this.#callWith("setattr", [pathOf(object), fd, { ...change }, attr !== null], fd), attr);
  }

  readlink(object: TreeObject, into: Uint8Array): Answer {
    return intoBytes(this.#call("readlink", [pathOf(object), into.byteLength]), into);
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer {
    return intoBytes(this.#call("getxattr", [pathOf(object), name, into.byteLength]), into);
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer {
    return this.#call("setxattr", [pathOf(object), name, value.slice(), flags]);
  }

  listxattr(object: TreeObject, into: Uint8Array): Answer {
    return intoBytes(this.#call("listxattr", [pathOf(object), into.byteLength]), into);
  }

  removexattr(object: TreeObject, name: ByteString): Answer {
    return this.#call("removexattr", [pathOf(object), name]);
  }

  fsyncdir(object: TreeObject): Answer {
    return this.#call("fsyncdir", [pathOf(object)]);
  }

  async open(object: TreeObject, access: "read" | "read-write"): Promise<number> {
    return this.#handles.opened(await this.#call("open", [pathOf(object), access]));
  }

  close(handle: ReplicaHandle): Answer {
    return this.#handles.close(handle);
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    return intoAttr(this.#callWith("fgetattr", [fd], fd), attr);
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    const buffer = this.#buffers.take(into.byteLength);
    const reading = this.#callWith("read", [fd, addressOf(buffer), into.byteLength, position], fd, fd, buffer);
    const reply = reading.then((result) => (result < 0 ? result : ([result, result] as const)));
    const answer = deliverUnlessAbandoned(reply, (result) => into.set(buffer.subarray(0, result)));
    void answer.finally(() => this.#buffers.give(buffer));
    return answer;
  }

  write(handle: ReplicaHandle, data: Uint8Array, position: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    const buffer = this.#buffers.take(data.byteLength);
    buffer.set(data);
    const answer = this.#callWith("write", [fd, addressOf(buffer), data.byteLength, position], fd, fd, buffer);
    void answer.finally(() => this.#buffers.give(buffer));
    return answer;
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    return this.#callWith("fsync", [fd, dataOnly], fd);
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    return this.#callWith("fallocate", [fd, mode, position, length], fd);
  }

  seek(handle: ReplicaHandle, position: number, whence: number): Answer {
    const fd = this.#handles.descriptor(handle);
    if (fd < 0) return this.#handles.why(handle);
    return this.#callWith("seek", [fd, position, whence], fd);
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer {
    const fromFd = this.#handles.descriptor(from);
    const toFd = this.#handles.descriptor(to);
    if (fromFd < 0) return this.#handles.why(from);
    if (toFd < 0) return this.#handles.why(to);
    return this.#callWith("copyRange", [fromFd, fromPosition, toFd, toPosition, length], fromFd, toFd);
  }

  clone(from: ReplicaHandle, to: ReplicaHandle): Answer {
    const fromFd = this.#handles.descriptor(from);
    const toFd = this.#handles.descriptor(to);
    if (fromFd < 0) return this.#handles.why(from);
    if (toFd < 0) return this.#handles.why(to);
    return this.#callWith("clone", [fromFd, toFd], fromFd, toFd);
  }

  statfs(into: FileSystemStats): Answer {
    return deliverUnlessAbandoned(this.#call("statfs", []), (stats) => Object.assign(into, stats));
  }

  sync(): Answer {
    return this.#call("sync", []);
  }
}

/** Only what a message should carry. */
function plainOwner({ uid, gid }: Owner): Owner {
  return { uid, gid };
}

function intoAttr(answer: Promise<WithValue<FileAttr>>, attr: FileAttr | null): Promise<number> {
  return deliverUnlessAbandoned(answer, (value) => attr?.copyFrom(value));
}

function intoBytes(answer: Promise<WithValue<Uint8Array>>, into: Uint8Array): Promise<number> {
  return deliverUnlessAbandoned(answer, (value) => into.set(value));
}

function aborted(signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(null);
    else signal.addEventListener("abort", () => resolve(null), { once: true });
  });
}
