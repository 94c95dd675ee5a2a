/**
 * A replica behind a server of ours (`src/backend`), reached over TLS with certificates on both sides. A call that was
 * sent when the connection breaks answers ENOTCONN, and may have happened; the next connection begins when all calls of
 * the last one have ended.
 */
import { randomUUID } from "node:crypto";
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from "node:tls";
import type { ByteString } from "../util/byte-string.ts";
import { EINVAL, ENODEV, ENOENT, ENOTCONN, ENOTDIR, errnoName } from "../util/errno.ts";
import { FileAttr, isDirectory } from "../util/file-attr.ts";
import { deliverUnlessAbandoned, type WithValue } from "./abandoned.ts";
import { LocalHandles } from "./local-handles.ts";
import { probeCapabilities } from "./probe.ts";
import {
  encodeFrame,
  type Frame,
  FrameReader,
  type Names,
  namesOf,
  REMOTE_VERSION,
  type RemoteCall,
  type RemoteCalls,
  type ReplyHead,
  unpackAttr,
} from "./remote-wire.ts";
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

export interface RemoteReplicaOptions {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  /** The client's key and certificate, and whose certificates it accepts; asked anew for each connection. */
  readonly tls: () => Pick<ConnectionOptions, "key" | "cert" | "ca" | "servername">;
  /** Where the replica is below the served directory. */
  readonly path?: Names;
}

type Reply = Frame<ReplyHead>;
const writeBytes = 1 << 20;

export class RemoteReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly fences = true;
  readonly #options: RemoteReplicaOptions;
  readonly #client = randomUUID();
  readonly #path: Names;
  #rootIno = 0;
  readonly #handles: LocalHandles;
  readonly #pending = new Map<number, (reply: Reply | number) => void>();
  #socket: TLSSocket | null = null;
  #nextId = 1;

  constructor(options: RemoteReplicaOptions) {
    this.name = options.name;
    this.#path = options.path ?? [];
    this.url = `chiron://${options.host}:${options.port}/${this.#path.join("/")}`;
    this.#options = options;
    this.#handles = new LocalHandles((handle) => {
      void this.#ask("close", [handle]);
      return 0;
    });
  }

  async connect({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    if (this.#socket !== null) await this.disconnect();
    const { host, port, tls } = this.#options;
    const socket = tlsConnect({ host, port, ...tls(), minVersion: "TLSv1.3", rejectUnauthorized: true });
    const abort = () => socket.destroy(signal.reason instanceof Error ? signal.reason : new Error("aborted"));
    signal.addEventListener("abort", abort, { once: true });
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once("secureConnect", resolve).once("error", reject);
        socket.once("close", () => reject(new Error("the server closed the connection")));
      });
      this.#serve(socket);
      const hello = await this.#ask("hello", [REMOTE_VERSION, this.#client]);
      const result = typeof hello === "number" ? hello : hello.head.result;
      if (result < 0)
        throw new Error(result === -EINVAL ? "its version is another one" : `it refuses (${errnoName(result)})`);
      this.#handles.connected();
      const root = new FileAttr();
      const found = await this.getattr({ parent: null, name: "" }, root);
      if (found < 0 || !isDirectory(root.mode)) throw new Error(found < 0 ? errnoName(found) : "it is no directory");
      this.#rootIno = root.ino;
    } catch (error) {
      socket.destroy();
      this.#socket = null;
      await this.#handles.disconnected();
      signal.throwIfAborted();
      const message = `${this.url} cannot be used: ${(error as Error).message}; check that its pod runs`;
      throw new ReplicaError(this.name, message);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  #names(object: TreeObject): Names {
    return this.#path.length === 0 ? namesOf(object) : [...this.#path, ...namesOf(object)];
  }

  #serve(socket: TLSSocket): void {
    const frames = new FrameReader<ReplyHead>();
    socket.removeAllListeners("error").removeAllListeners("close");
    socket.setNoDelay(true).setKeepAlive(true, 10_000);
    socket.on("error", () => socket.destroy());
    socket.on("data", (piece: Buffer) => {
      try {
        for (const reply of frames.push(piece)) {
          const answer = this.#pending.get(reply.head.id);
          this.#pending.delete(reply.head.id);
          answer?.(reply);
        }
      } catch {
        socket.destroy();
      }
    });
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      const waiting = [...this.#pending.values()];
      this.#pending.clear();
      for (const answer of waiting) answer(-ENOTCONN);
    });
    this.#socket = socket;
  }

  async disconnect(): Promise<void> {
    const ended = this.#handles.disconnected();
    const socket = this.#socket;
    await ended;
    if (socket !== null && this.#socket === socket) {
      this.#socket = null;
      this.#pending.clear();
      socket.end();
    }
  }

  async takeOver(volumeId: string): Promise<void> {
    const result = await this.#result(this.#ask("takeOver", [volumeId]));
    if (result < 0)
      throw new ReplicaError(this.name, `${this.url} cannot be taken over (${errnoName(result)})`, { errno: result });
  }

  #ask<C extends RemoteCall>(call: C, args: RemoteCalls[C], bytes?: Uint8Array): Promise<Reply | number> {
    const socket = this.#socket;
    if (socket === null || socket.destroyed) return Promise.resolve(-ENOTCONN);
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#pending.set(id, resolve);
      socket.write(encodeFrame({ id, call, args }, bytes));
    });
  }

  async #result(reply: Promise<Reply | number>): Promise<number> {
    const answer = await reply;
    return typeof answer === "number" ? answer : answer.head.result;
  }

  /** By names, while there is a connection. */
  #call<C extends RemoteCall>(call: C, args: RemoteCalls[C], bytes?: Uint8Array): Promise<Reply | number> {
    if (!this.#handles.isConnected) return Promise.resolve(-ENOTCONN);
    return this.#handles.during(this.#ask(call, args, bytes), -1);
  }

  #number<C extends RemoteCall>(call: C, args: RemoteCalls[C], bytes?: Uint8Array): Promise<number> {
    return this.#result(this.#call(call, args, bytes));
  }

  #withAttr(reply: Promise<Reply | number>, attr: FileAttr | null): Promise<number> {
    const found = reply.then((answer): WithValue<readonly number[]> => {
      if (typeof answer === "number") return answer;
      return answer.head.attr === undefined ? answer.head.result : [answer.head.result, answer.head.attr];
    });
    return deliverUnlessAbandoned(found, (values) => {
      if (attr !== null) unpackAttr(values, attr);
    });
  }

  #into(reply: Promise<Reply | number>, into: Uint8Array): Promise<number> {
    const found = reply.then((answer): WithValue<Uint8Array> => {
      return typeof answer === "number" ? answer : [answer.head.result, answer.bytes];
    });
    return deliverUnlessAbandoned(found, (bytes) => into.set(bytes.subarray(0, into.length)));
  }

  #on<C extends RemoteCall>(handle: ReplicaHandle, call: C, args: (own: number) => RemoteCalls[C], bytes?: Uint8Array) {
    const own = this.#handles.descriptor(handle);
    if (own < 0) return Promise.resolve(this.#handles.why(handle));
    return this.#handles.during(this.#ask(call, args(own), bytes), own);
  }

  async check(): Promise<number> {
    const result = await this.#number("check", []);
    if (result < 0 || this.#path.length === 0) return result;
    const root = new FileAttr();
    const found = await this.getattr({ parent: null, name: "" }, root);
    return found === -ENOENT || found === -ENOTDIR || (found >= 0 && root.ino !== this.#rootIno) ? -ENODEV : found;
  }

  probe(): Promise<Capabilities> {
    return probeCapabilities(this);
  }

  /** The server finds objects by their names each time. */
  forget(_object: TreeObject): void {}

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#withAttr(this.#call("lookup", [this.#names(directory), name, attr !== null]), attr);
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    const reply = this.#call("create", [this.#names(directory), name, mode, plain(owner), attr !== null]);
    return this.#withAttr(reply, attr).then((handle) => this.#handles.opened(handle));
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#withAttr(this.#call("mkdir", [this.#names(directory), name, mode, plain(owner), attr !== null]), attr);
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer {
    const reply = this.#call("mknod", [this.#names(directory), name, mode, rdev, plain(owner), attr !== null]);
    return this.#withAttr(reply, attr);
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer {
    return this.#withAttr(
      this.#call("symlink", [this.#names(directory), name, target, plain(owner), attr !== null]),
      attr,
    );
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#withAttr(this.#call("link", [this.#names(object), this.#names(directory), name, attr !== null]), attr);
  }

  unlink(directory: TreeObject, name: ByteString): Answer {
    return this.#number("unlink", [this.#names(directory), name]);
  }

  rmdir(directory: TreeObject, name: ByteString): Answer {
    return this.#number("rmdir", [this.#names(directory), name]);
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer {
    return this.#number("rename", [this.#names(from), fromName, this.#names(to), toName, flags]);
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Answer {
    const found = this.#call("readdir", [this.#names(directory)]).then(
      (answer): WithValue<NonNullable<ReplyHead["entries"]>> =>
        typeof answer === "number"
          ? answer
          : answer.head.entries === undefined
            ? answer.head.result
            : [answer.head.result, answer.head.entries],
    );
    return deliverUnlessAbandoned(found, ({ names, types, inos }) => {
      for (const [index, name] of names.entries()) {
        into.names.push(name);
        into.types.push(types[index] ?? 0);
        into.inos.push(inos[index] ?? 0);
      }
    });
  }

  getattr(object: TreeObject, attr: FileAttr): Answer {
    return this.#withAttr(this.#call("getattr", [this.#names(object)]), attr);
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer {
    const names = this.#names(object);
    if (handle < 0) return this.#withAttr(this.#call("setattr", [names, -1, change, attr !== null]), attr);
    return this.#withAttr(
      this.#on(handle, "setattr", (own) => [names, own, change, attr !== null]),
      attr,
    );
  }

  readlink(object: TreeObject, into: Uint8Array): Answer {
    return this.#into(this.#call("readlink", [this.#names(object), into.length]), into);
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer {
    return this.#into(this.#call("getxattr", [this.#names(object), name, into.length]), into);
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer {
    return this.#number("setxattr", [this.#names(object), name, flags], value);
  }

  listxattr(object: TreeObject, into: Uint8Array): Answer {
    return this.#into(this.#call("listxattr", [this.#names(object), into.length]), into);
  }

  removexattr(object: TreeObject, name: ByteString): Answer {
    return this.#number("removexattr", [this.#names(object), name]);
  }

  fsyncdir(object: TreeObject): Answer {
    return this.#number("fsyncdir", [this.#names(object)]);
  }

  async open(object: TreeObject, access: "read" | "read-write"): Promise<number> {
    return this.#handles.opened(await this.#number("open", [this.#names(object), access]));
  }

  close(handle: ReplicaHandle): Answer {
    return this.#handles.close(handle);
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer {
    return this.#withAttr(
      this.#on(handle, "fgetattr", (own) => [own]),
      attr,
    );
  }

  async read(handle: ReplicaHandle, into: Uint8Array, position: number): Promise<number> {
    return await this.#into(
      this.#on(handle, "read", (own) => [own, into.length, position]),
      into,
    );
  }

  async write(handle: ReplicaHandle, data: Uint8Array, position: number): Promise<number> {
    for (let done = 0; ; ) {
      const piece = data.subarray(done, done + writeBytes);
      const at = position + done;
      const result = await this.#result(this.#on(handle, "write", (own) => [own, at], piece));
      if (result < 0) return result;
      done += piece.length;
      if (done >= data.length) return data.length;
    }
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer {
    return this.#result(this.#on(handle, "fsync", (own) => [own, dataOnly]));
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer {
    return this.#result(this.#on(handle, "fallocate", (own) => [own, mode, position, length]));
  }

  seek(handle: ReplicaHandle, position: number, whence: number): Answer {
    return this.#result(this.#on(handle, "seek", (own) => [own, position, whence]));
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer {
    const target = this.#handles.descriptor(to);
    if (target < 0) return this.#handles.why(to);
    return this.#result(this.#on(from, "copyRange", (own) => [own, fromPosition, target, toPosition, length]));
  }

  clone(from: ReplicaHandle, to: ReplicaHandle): Answer {
    const target = this.#handles.descriptor(to);
    if (target < 0) return this.#handles.why(to);
    return this.#result(this.#on(from, "clone", (own) => [own, target]));
  }

  statfs(into: FileSystemStats): Answer {
    const found = this.#call("statfs", []).then(
      (answer): WithValue<FileSystemStats> =>
        typeof answer === "number"
          ? answer
          : answer.head.stats === undefined
            ? answer.head.result
            : [answer.head.result, answer.head.stats],
    );
    return deliverUnlessAbandoned(found, (stats) => Object.assign(into, stats));
  }

  sync(): Answer {
    return this.#number("sync", []);
  }
}

const plain = ({ uid, gid }: Owner): Owner => ({ uid, gid });
