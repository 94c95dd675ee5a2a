/**
 * An NFS export as a replica, over our own client: v3 or v4.1, the same rules for both.
 *
 * - Objects are reached by file handles, which are kept (`nfs-handles.ts`); a stale one is found again by its names once.
 * - All calls are made as root; who owns a new object is said in the call and checked in the answer. A server that
 *   squashes root therefore answers EPERM instead of making objects that belong to somebody else.
 * - Writes are not stable until `fsync` or `sync`; what a restarted server lost is written again (`nfs-unstable.ts`).
 * - NFS has no rename flags and no way to make or find holes; RENAME_NOREPLACE answers EINVAL, because a lookup and a
 *   rename are two calls and another client may come in between.
 */
import { connectNfs, type NfsConnection, type NfsConnectOptions } from "../nfs/connect.ts";
import { type EachEntry, type FileHandle, Found, type NewObject, NfsError, type NfsProtocol } from "../nfs/protocol.ts";
import { formatNfsUrl, type NfsUrl } from "../nfs/url.ts";
import { type ByteString, printable } from "../util/byte-string.ts";
import {
  EBADF,
  EINVAL,
  EISDIR,
  ELOOP,
  ENAMETOOLONG,
  ENODEV,
  ENOENT,
  ENOTCONN,
  ENOTDIR,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  ESTALE,
  ETIMEDOUT,
  EXDEV,
  errnoName,
} from "../util/errno.ts";
import {
  type FileAttr,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../util/file-attr.ts";
import { attrSteps, dress, newObject } from "./nfs-attributes.ts";
import { inParts, punch, readFully, writeFully } from "./nfs-data.ts";
import { type NfsFile, NfsFiles } from "./nfs-files.ts";
import { type KnownObject, NfsHandles } from "./nfs-handles.ts";
import { LateCalls } from "./nfs-late-calls.ts";
import { probeNfs } from "./nfs-probe.ts";
import { replaceFile } from "./nfs-replace.ts";
import { NfsUnstable } from "./nfs-unstable.ts";
import {
  type AttrChange,
  type Capabilities,
  type DirectoryEntries,
  type FileSystemStats,
  type LateCall,
  type Owner,
  type Replica,
  ReplicaError,
  type ReplicaHandle,
  type TreeObject,
} from "./replica.ts";

export interface NfsReplicaOptions extends NfsConnectOptions {
  /** For tests: makes the URL's directory if it does not exist, at every `connect`. */
  readonly makeDirectory?: { readonly mode: number };
}

const maxNameBytes = 255;
const timeoutShare = 0.95;
/** FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
const punchHole = 3;
const seekData = 3;
const seekHole = 4;
const copyBytes = 1 << 20;
/** Of a root directory that is made: 0777 less the usual umask; this process has none. */
const newRootMode = 0o755;

/** Everything that ends with the connection. */
interface Session {
  readonly connection: NfsConnection;
  readonly protocol: NfsProtocol;
  readonly handles: NfsHandles;
  readonly unstable: NfsUnstable;
  readonly files: NfsFiles;
  readonly rootIno: number;
  /** `takeOver` has shut out everybody before. */
  fenced: boolean;
}

export class NfsReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly #target: NfsUrl;
  readonly #options: NfsReplicaOptions;
  readonly #late = new LateCalls();
  #session: Session | null = null;

  constructor(name: string, target: NfsUrl, options: NfsReplicaOptions = {}) {
    this.name = name;
    this.url = formatNfsUrl(target);
    // Earlier than whoever waits: its buffers are ours until we have answered.
    const timeoutMs = Math.min(target.timeoutMs, options.deadlineMs ?? target.timeoutMs) * timeoutShare;
    this.#target = { ...target, timeoutMs };
    this.#options = options;
  }

  /** "session": the server refuses whatever an earlier process or connection sent; so it is after `takeOver` on v4.1. */
  get fence(): "session" | "none" {
    return this.#session?.fenced === true ? "session" : "none";
  }

  get fences(): boolean {
    return this.#session?.protocol.fences ?? false;
  }

  /** The protocol that is spoken: "3", "4.1" or "4.2"; null while not connected. */
  get protocolVersion(): string | null {
    return this.#session?.protocol.version ?? null;
  }

  /** Changes that were sent, had no answer, and are not fenced off: each may still happen. */
  get lateCalls(): readonly LateCall[] {
    return this.#late.list;
  }

  /** The caller has dealt with these: their files were replaced, their names compared again. */
  settleLateCalls(calls: readonly LateCall[]): void {
    this.#late.settle(calls);
  }

  async connect({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    if (this.#session !== null) return;
    try {
      const connection = await connectNfs(this.#target, {
        ...this.#options,
        signal,
        onReconnected: () => this.#session?.unstable.recover() ?? Promise.resolve(),
      });
      try {
        this.#session = await this.#begin(connection, this.#options.makeDirectory?.mode ?? null);
      } catch (error) {
        connection.protocol.close();
        throw error;
      }
      if (!connection.protocol.fences) await this.#replaceLateFiles(signal);
    } catch (error) {
      await this.disconnect();
      if (error instanceof NfsError) throw new ReplicaError(this.name, `${this.url}: ${error.message}`, error);
      throw error;
    }
  }

  async makeRoot({ signal }: { readonly signal: AbortSignal }): Promise<boolean> {
    if (!this.#target.makeDirectory || this.#session !== null) return false;
    try {
      const connection = await connectNfs(this.#target, { ...this.#options, signal, onReconnected: async () => {} });
      try {
        await this.#begin(connection, newRootMode);
      } finally {
        connection.protocol.close();
      }
      return true;
    } catch (error) {
      if (error instanceof NfsError) throw new ReplicaError(this.name, `${this.url}: ${error.message}`, error);
      throw error;
    }
  }

  async takeOver(volumeId: string): Promise<void> {
    const session = this.#session;
    if (session === null) throw new ReplicaError(this.name, "not connected", { errno: -ENOTCONN });
    if (!session.protocol.fences) return;
    const result = await session.protocol.takeOver(`chiron:${volumeId}:${this.name}`);
    if (result < 0) {
      const message = `${this.url}: it cannot be taken over from earlier processes (${errnoName(result)})`;
      throw new ReplicaError(this.name, message, { errno: result });
    }
    session.fenced = true;
    this.#late.clear();
  }

  /**
   * Puts a copy in the place of each file that has unanswered writes: when these come after all they meet a stale handle.
   * A file that has other names, or is not where it was, stays on the list.
   */
  async #replaceLateFiles(signal: AbortSignal): Promise<void> {
    for (const call of this.#late.list) {
      if (call.kind !== "data") continue;
      signal.throwIfAborted();
      if (await replaceFile(this, call, signal)) this.#late.settle([call]);
      else {
        const file = printable(call.object.name);
        this.#options.logger?.warn("A late write may still change a file with several names", { file });
      }
    }
  }

  /** `mode`: of directories that are made where they do not exist; null: they must. */
  async #begin(connection: NfsConnection, mode: number | null): Promise<Session> {
    const { protocol, mountPoint } = connection;
    const root = new Found();
    root.handle = mountPoint.handle;
    let walked = "";
    let answer = await protocol.getattr(root.handle, root);
    for (const name of mountPoint.rest) {
      if (answer < 0) break;
      walked += `/${name}`;
      const parent = root.handle;
      answer = await protocol.lookup(parent, name, root);
      if (answer === -ENOENT && mode !== null) {
        const want = { mode: S_IFDIR | mode, uid: 0, gid: 0 };
        answer = await protocol.mkdir(parent, name, want, root);
      }
    }
    if (answer === 0 && !root.hasAttr) answer = await protocol.getattr(root.handle, root);
    if (answer === -ENOENT)
      throw new NfsError(`the directory ${walked} does not exist in the export: make it first, or add mkdir=1`, answer);
    if (answer === -13) {
      throw new NfsError("the server lets root not in: check that the export has no_root_squash", answer);
    }
    if (answer < 0) throw new NfsError("the server does not answer for its root directory", answer);
    if ((root.attr.mode & S_IFMT) !== S_IFDIR) throw new NfsError("that is not a directory", -ENOTDIR);
    return {
      connection,
      protocol,
      handles: new NfsHandles(root),
      unstable: new NfsUnstable(protocol),
      files: new NfsFiles(),
      rootIno: root.attr.ino,
      fenced: false,
    };
  }

  async disconnect(): Promise<void> {
    const session = this.#session;
    if (session === null) return;
    this.#session = null;
    session.protocol.close();
  }

  async check(): Promise<number> {
    const session = this.#session;
    if (session === null) return -ENOTCONN;
    const found = new Found();
    const result = await session.protocol.getattr(session.handles.root.handle, found);
    if (result === -ESTALE) return -ENODEV;
    if (result < 0) return result;
    return session.handles.isElsewhere(found) || found.attr.ino !== session.rootIno ? -ENODEV : 0;
  }

  async probe(): Promise<Capabilities> {
    const session = this.#session;
    if (session === null) throw new ReplicaError(this.name, "not connected", { errno: -ENOTCONN });
    try {
      return await probeNfs(session.protocol, session.handles.root.handle);
    } catch (error) {
      if (error instanceof NfsError) throw new ReplicaError(this.name, `${this.url}: ${error.message}`, error);
      throw error;
    }
  }

  /** Is this object's file still the one behind that handle? */
  async isStill(object: TreeObject, handle: FileHandle): Promise<boolean> {
    const session = this.#operation();
    if (session === null) return false;
    session.handles.distrust(object);
    const known = await session.handles.find(session.protocol, object);
    return typeof known !== "number" && known.handle.equals(handle);
  }

  forget(object: TreeObject): void {
    this.#session?.handles.forget(object);
  }

  // Finding objects.

  /** The session for one operation: all of its calls have answered by the same deadline. */
  #operation(): Session | null {
    const session = this.#session;
    if (session === null) return null;
    return { ...session, protocol: session.protocol.within(performance.now() + this.#target.timeoutMs) };
  }

  /** Runs a call on an object's handle; if that is stale, finds the object again by its names and runs it once more. */
  async #on(
    object: TreeObject,
    run: (session: Session, known: KnownObject) => Promise<number>,
    session = this.#operation(),
  ): Promise<number> {
    if (session === null) return -ENOTCONN;
    const { handles, protocol } = session;
    const known = handles.known(object) ?? (await handles.find(protocol, object));
    const first = typeof known === "number" ? known : await run(session, known);
    if (first !== -ESTALE || object.parent === null) return first;
    handles.distrust(object);
    const again = await handles.find(protocol, object);
    const second = typeof again === "number" ? again : await run(session, again);
    if (second !== -ESTALE) return second;
    // What was found a moment ago is gone already: somebody removes it just now. Unless all of the tree is gone.
    const root = await protocol.getattr(handles.root.handle, new Found());
    return root === 0 ? -ENOENT : -ESTALE;
  }

  #onTwo(
    a: TreeObject,
    b: TreeObject,
    run: (session: Session, a: KnownObject, b: KnownObject) => Promise<number>,
  ): Promise<number> {
    return this.#on(a, (session, knownA) =>
      // The inner one has its own second try; a stale `a` is the outer one's to find again.
      this.#on(b, (_session, knownB) => run(session, knownA, knownB), session),
    );
  }

  // Names.

  async lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Promise<number> {
    if (name.length > maxNameBytes) return this.#session === null ? -ENOTCONN : -ENAMETOOLONG;
    return this.#on(directory, async ({ protocol, handles }, known) => {
      const found = new Found();
      const result = await protocol.lookup(known.handle, name, found);
      if (result < 0) {
        handles.unname(known, name);
        return result;
      }
      return this.#found(known, name, found, attr);
    });
  }

  /** Remembers what a name leads to, and gives its attributes. */
  async #found(directory: KnownObject, name: ByteString, found: Found, attr: FileAttr | null): Promise<number> {
    const session = this.#session;
    if (session === null) return -ENOTCONN;
    if (attr !== null && !found.hasAttr) {
      const result = await session.protocol.getattr(found.handle, found);
      if (result < 0) return result;
    }
    if (session.handles.isElsewhere(found)) return -EXDEV;
    session.handles.named(directory, name, found);
    attr?.copyFrom(found.attr);
    return 0;
  }

  async create(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Promise<number> {
    return this.#make(directory, name, S_IFREG | mode, owner, attr, async (session, parent, want, found) => {
      const state = await session.protocol.create(parent.handle, name, want, found);
      if (typeof state === "number") return state;
      return session.files.created(directory, name, found.handle, state);
    });
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Promise<number> {
    return this.#make(directory, name, S_IFDIR | mode, owner, attr, ({ protocol }, parent, want, found) =>
      protocol.mkdir(parent.handle, name, want, found),
    );
  }

  async mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Promise<number> {
    const type = mode & S_IFMT;
    if (type === S_IFREG || type === 0) {
      const handle = await this.create(directory, name, mode & 0o7777, owner, attr);
      return handle < 0 ? handle : this.close(handle);
    }
    if (![S_IFIFO, S_IFSOCK, S_IFBLK, S_IFCHR].includes(type)) return -EINVAL;
    return this.#make(directory, name, mode, owner, attr, ({ protocol }, parent, want, found) =>
      protocol.mknod(parent.handle, name, rdev, want, found),
    );
  }

  symlink(
    directory: TreeObject,
    name: ByteString,
    target: ByteString,
    owner: Owner,
    attr: FileAttr | null,
  ): Promise<number> {
    return this.#make(directory, name, S_IFLNK | 0o777, owner, attr, ({ protocol }, parent, want, found) =>
      protocol.symlink(parent.handle, name, target, want, found),
    );
  }

  /** Makes an object with the owner and mode that it must have, whatever the server made of them at first. */
  async #make(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    owner: Owner,
    attr: FileAttr | null,
    run: (session: Session, parent: KnownObject, want: NewObject, found: Found) => Promise<number>,
  ): Promise<number> {
    const result = await this.#on(directory, async (session, parent) => {
      const { protocol, handles } = session;
      if (name.length > maxNameBytes) return -ENAMETOOLONG;
      if (parent.mode === 0) {
        const found = new Found();
        const got = await protocol.getattr(parent.handle, found);
        if (got < 0) return got;
        parent.learn(found.attr);
      }
      const want = newObject(parent, mode, owner);
      const found = new Found();
      const made = await run(session, parent, want, found);
      if (made < 0) {
        if (made !== -17) handles.unname(parent, name);
        return made;
      }
      const dressed = await dress(protocol, want, found);
      if (dressed < 0) {
        if ((mode & S_IFMT) === S_IFDIR) await protocol.rmdir(parent.handle, name);
        else await protocol.unlink(parent.handle, name);
        return dressed;
      }
      handles.named(parent, name, found);
      attr?.copyFrom(found.attr);
      return made;
    });
    return this.#noteEntry(result, directory, name);
  }

  async link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Promise<number> {
    const result = await this.#onTwo(object, directory, async (session, known, parent) => {
      const { protocol, handles } = session;
      if (name.length > maxNameBytes) return -ENAMETOOLONG;
      handles.unname(parent, name);
      const linked = await protocol.link(known.handle, parent.handle, name);
      // Servers differ in how they refuse to link a directory; Linux says EPERM.
      if (linked === -EINVAL && (await this.#type(session, known)) === S_IFDIR) return -EPERM;
      if (linked < 0 || attr === null) return linked;
      const found = new Found();
      const got = await protocol.getattr(known.handle, found);
      if (got === 0) attr.copyFrom(found.attr);
      return got;
    });
    return this.#noteEntry(result, directory, name);
  }

  async unlink(directory: TreeObject, name: ByteString): Promise<number> {
    const result = await this.#on(directory, async ({ protocol, handles }, known) => {
      if (name.length > maxNameBytes) return -ENAMETOOLONG;
      handles.unname(known, name);
      return protocol.unlink(known.handle, name);
    });
    return this.#noteEntry(result, directory, name);
  }

  async rmdir(directory: TreeObject, name: ByteString): Promise<number> {
    const result = await this.#on(directory, async ({ protocol, handles }, known) => {
      if (name.length > maxNameBytes) return -ENAMETOOLONG;
      handles.unname(known, name);
      return protocol.rmdir(known.handle, name);
    });
    return this.#noteEntry(result, directory, name);
  }

  async rename(
    from: TreeObject,
    fromName: ByteString,
    to: TreeObject,
    toName: ByteString,
    flags: number,
  ): Promise<number> {
    if (this.#session === null) return -ENOTCONN;
    if (flags !== 0) return -EINVAL;
    if (fromName.length > maxNameBytes || toName.length > maxNameBytes) return -ENAMETOOLONG;
    const result = await this.#onTwo(from, to, async ({ protocol, handles }, source, target) => {
      const renamed = await protocol.rename(source.handle, fromName, target.handle, toName);
      if (renamed === 0) handles.moved(source, fromName, target, toName);
      else {
        handles.unname(source, fromName);
        handles.unname(target, toName);
      }
      return renamed;
    });
    this.#noteEntry(result, from, fromName);
    return this.#noteEntry(result, to, toName);
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Promise<number> {
    return this.#on(directory, ({ protocol, handles }, known) => {
      const each: EachEntry = (name, handle, attr) => handles.listed(known, name, handle, attr);
      return protocol.readdir(known.handle, into, each);
    });
  }

  // Objects.

  getattr(object: TreeObject, attr: FileAttr): Promise<number> {
    return this.#on(object, async ({ protocol }, known) => {
      const found = new Found();
      const result = await protocol.getattr(known.handle, found);
      if (result < 0) return result;
      if (found.attr.nlink === 0) return -ESTALE; // removed behind our back, and something keeps it alive
      known.learn(found.attr);
      attr.copyFrom(found.attr);
      return 0;
    });
  }

  async setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Promise<number> {
    const result = await this.#on(object, async (session, known) => {
      const { protocol } = session;
      const found = new Found();
      const file = handle < 0 ? undefined : session.files.get(handle);
      const state = file?.access === "read-write" ? file.state : null;
      if (change.size !== undefined) {
        const refused = await this.#mayHaveSize(session, known);
        if (refused < 0) return refused;
      }
      for (const step of attrSteps(change, known.mode)) {
        found.hasAttr = false;
        const run = () => protocol.setattr(known.handle, state, step, found);
        const set = await (step.size === undefined ? run() : session.unstable.truncate(known.handle, step.size, run));
        if (set < 0) return set;
      }
      if (!found.hasAttr) {
        const got = await protocol.getattr(known.handle, found);
        if (got < 0) return got;
      }
      if (found.attr.nlink === 0 && file === undefined) return -ESTALE;
      known.learn(found.attr);
      attr?.copyFrom(found.attr);
      return 0;
    });
    if (isUnanswered(result)) {
      this.#late.note({ kind: "attributes", object });
      const known = change.size === undefined ? undefined : this.#session?.handles.known(object);
      if (known !== undefined) this.#late.note({ kind: "data", object, handle: known.handle }); // it may be cut late
    }
    return result;
  }

  async #mayHaveSize(session: Session, known: KnownObject): Promise<number> {
    const type = await this.#type(session, known);
    if (type < 0 || type === S_IFREG) return type;
    return type === S_IFDIR ? -EISDIR : -EINVAL;
  }

  /** The type bits of an object, from what is known if possible. */
  async #type({ protocol }: Session, known: KnownObject): Promise<number> {
    if (known.mode === 0) {
      const found = new Found();
      const result = await protocol.getattr(known.handle, found);
      if (result < 0) return result;
      known.learn(found.attr);
    }
    return known.mode & S_IFMT;
  }

  readlink(object: TreeObject, into: Uint8Array): Promise<number> {
    return this.#on(object, async ({ protocol }, known) => {
      const result = await protocol.readlink(known.handle, into);
      return result === -EISDIR ? -EINVAL : result; // Linux's server says so of a directory
    });
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Promise<number> {
    return this.#on(object, ({ protocol }, known) => protocol.getxattr(known.handle, name, into));
  }

  async setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Promise<number> {
    const result = await this.#on(object, ({ protocol }, known) => protocol.setxattr(known.handle, name, value, flags));
    if (isUnanswered(result)) this.#late.note({ kind: "attributes", object });
    return result;
  }

  listxattr(object: TreeObject, into: Uint8Array): Promise<number> {
    return this.#on(object, ({ protocol }, known) => protocol.listxattr(known.handle, into));
  }

  async removexattr(object: TreeObject, name: ByteString): Promise<number> {
    const result = await this.#on(object, ({ protocol }, known) => protocol.removexattr(known.handle, name));
    if (isUnanswered(result)) this.#late.note({ kind: "attributes", object });
    return result;
  }

  /** A metadata operation is on stable storage when the server answers it (RFC 1813, 1.1; RFC 8881, 1.7.3.1). */
  fsyncdir(object: TreeObject): Promise<number> {
    return this.#on(object, async (session, known) => {
      const type = await this.#type(session, known);
      if (type < 0) return type;
      return type === S_IFDIR ? 0 : -ENOTDIR;
    });
  }

  // Open files.

  open(object: TreeObject, access: "read" | "read-write"): Promise<number> {
    return this.#on(object, async (session, known) => {
      const type = await this.#type(session, known);
      if (type < 0) return type;
      if (type === S_IFDIR) return -EISDIR;
      if (type === S_IFLNK) return -ELOOP;
      if (type !== S_IFREG) return -ENXIO;
      const state = await session.protocol.open(known.handle, access);
      if (typeof state === "number") return state;
      return session.files.opened(object, known.handle, state, access);
    });
  }

  /** The server is told in the background: nothing depends on its answer. */
  close(handle: ReplicaHandle): number {
    const session = this.#session;
    if (session === null) return -ENOTCONN;
    const file = session.files.remove(handle);
    if (file === undefined) return -EBADF;
    if (file.state !== null) void session.protocol.closeFile(file.handle, file.state);
    return 0;
  }

  /** Runs a call on an open file; if its handle is stale, on the file that has its name now. */
  async #onFile(handle: ReplicaHandle, run: (session: Session, file: NfsFile) => Promise<number>): Promise<number> {
    const session = this.#operation();
    if (session === null) return -ENOTCONN;
    const file = session.files.get(handle);
    if (file === undefined) return -EBADF;
    const result = await run(session, file);
    if (result !== -ESTALE || !file.followed) return result;
    session.handles.distrust(file.object);
    const known = await session.handles.find(session.protocol, file.object);
    if (typeof known === "number" || known.handle.equals(file.handle)) return -ESTALE;
    const state = await session.protocol.open(known.handle, file.access);
    if (typeof state === "number") return state;
    file.handle = known.handle;
    file.state = state;
    return run(session, file);
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Promise<number> {
    return this.#onFile(handle, async ({ protocol }, file) => {
      const found = new Found();
      const result = await protocol.getattr(file.handle, found);
      if (result === 0) attr.copyFrom(found.attr);
      return result;
    });
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): Promise<number> {
    return this.#onFile(handle, ({ protocol }, file) => {
      const { readBytes } = protocol.limits;
      if (into.length <= readBytes) return readFully(protocol, file, into, position);
      return inParts(into.length, readBytes, (start, end) =>
        readFully(protocol, file, into.subarray(start, end), position + start),
      );
    });
  }

  async write(handle: ReplicaHandle, data: Uint8Array, position: number): Promise<number> {
    const result = await this.#onFile(handle, ({ protocol, unstable }, file) => {
      if (file.access === "read") return Promise.resolve(-EBADF);
      file.committed = false;
      const { writeBytes } = protocol.limits;
      if (data.length <= writeBytes) return writeFully(protocol, unstable, file, data, position);
      return inParts(data.length, writeBytes, (start, end) =>
        writeFully(protocol, unstable, file, data.subarray(start, end), position + start),
      );
    });
    if (isUnanswered(result)) this.#noteData(handle);
    return result;
  }

  fsync(handle: ReplicaHandle, _dataOnly: boolean): Promise<number> {
    return this.#onFile(handle, async ({ protocol, unstable }, file) => {
      const result = await unstable.commit(file.handle);
      if (result < 0 || file.committed) return result;
      // Not only what this process wrote: an earlier one may have left something uncommitted.
      const committed = await protocol.commit(file.handle, { stable: false, verifier: "" });
      if (committed === 0) file.committed = true;
      return committed;
    });
  }

  /** v4.2 punches holes; room beyond the size cannot be asked for, so nothing else is offered. */
  async fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Promise<number> {
    const result = await this.#onFile(handle, async ({ protocol, unstable }, file) => {
      if (file.access === "read") return -EBADF;
      if (length <= 0 || position < 0) return -EINVAL;
      if (mode !== punchHole || !protocol.holes) return -EOPNOTSUPP;
      const found = new Found();
      const got = await protocol.getattr(file.handle, found);
      if (got < 0) return got;
      // Linux ignores what is beyond the end, servers need not.
      const end = Math.min(position + length, found.attr.size);
      return end <= position ? 0 : punch(protocol, unstable, file, position, end - position);
    });
    if (isUnanswered(result)) this.#noteData(handle);
    return result;
  }

  /** Without v4.2 as a file system without holes answers: all is data, and the one hole is at the end. */
  seek(handle: ReplicaHandle, position: number, whence: number): Promise<number> {
    return this.#onFile(handle, async ({ protocol }, file) => {
      if (whence !== seekData && whence !== seekHole) return -EINVAL;
      if (protocol.holes) return protocol.seek(file.handle, file.state, position, whence === seekHole);
      const found = new Found();
      const result = await protocol.getattr(file.handle, found);
      if (result < 0) return result;
      if (position < 0 || position >= found.attr.size) return -ENXIO;
      return whence === seekData ? position : found.attr.size;
    });
  }

  async copyRange(
    from: ReplicaHandle,
    fromPosition: number,
    to: ReplicaHandle,
    toPosition: number,
    length: number,
  ): Promise<number> {
    const buffer = Buffer.allocUnsafe(Math.min(copyBytes, length));
    let copied = 0;
    while (copied < length) {
      const part = buffer.subarray(0, Math.min(buffer.length, length - copied));
      const count = await this.read(from, part, fromPosition + copied);
      if (count < 0) return count;
      if (count === 0) break;
      const written = await this.write(to, part.subarray(0, count), toPosition + copied);
      if (written < 0) return written;
      copied += written;
      if (count < part.length) break;
    }
    return this.#session === null ? -ENOTCONN : copied;
  }

  // The whole.

  async statfs(into: FileSystemStats): Promise<number> {
    const session = this.#session;
    if (session === null) return -ENOTCONN;
    return session.protocol.statfs(session.handles.root.handle, into);
  }

  async sync(): Promise<number> {
    const session = this.#session;
    return session === null ? -ENOTCONN : session.unstable.commitAll();
  }

  // Calls without an answer.

  #noteEntry(result: number, directory: TreeObject, name: ByteString): number {
    if (isUnanswered(result)) this.#late.note({ kind: "entry", directory, name });
    return result;
  }

  #noteData(handle: ReplicaHandle): void {
    const file = this.#session?.files.get(handle);
    if (file !== undefined) this.#late.note({ kind: "data", object: file.object, handle: file.handle });
  }
}

/** No answer came: the call may have happened, and may still. */
function isUnanswered(result: number): boolean {
  return result === -ETIMEDOUT || result === -ENOTCONN;
}
