/**
 * NFS v3 (RFC 1813) for a replica.
 *
 * - Changes that cannot be repeated are sent again after a broken connection, so an "exists" or "no such name" to a call
 *   that was sent twice may be about its own first execution: each is looked into before it is believed. A file is made
 *   GUARDED, with an access time of our own choosing as its mark (what EXCLUSIVE does inside the server, in one call
 *   instead of two).
 * - There is no fence: what was sent and not answered may happen at any later time.
 */
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, EPROTO, ERANGE, ETIMEDOUT } from "../util/errno.ts";
import { FileAttr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFSOCK } from "../util/file-attr.ts";
import { type MountOptions, mountExport, mountPort } from "./mount3.ts";
import * as wire from "./nfs3-wire.ts";
import {
  type EachEntry,
  type Entries,
  type FileHandle,
  Found,
  type Limits,
  type MountPoint,
  type NewObject,
  type NfsProtocol,
  type OpenState,
  type ReadResult,
  type SetAttr,
  type Space,
  type WriteResult,
} from "./protocol.ts";
import { carriesMark, newMark, plain, repeated } from "./repeated.ts";
import type { CallOptions, Decode, RpcClient } from "./rpc-client.ts";
import type { XdrReader, XdrWriter } from "./xdr.ts";

const { Proc } = wire;

/** Hints for directory reading: bytes of names and cookies, and of the whole answer. */
const dirBytes = 64 * 1024;
const maxTransferBytes = 1024 * 1024;

export interface Nfs3Options extends Omit<MountOptions, "port"> {
  /** 0: ask the portmapper. */
  readonly mountPort: number;
}

/** One mount: what all views of it share. */
interface Mount {
  /** A client of program 100003, version 3. */
  readonly rpc: RpcClient;
  readonly options: Nfs3Options;
  limits: Limits;
  maxNameBytes: number;
  readdirPlus: boolean;
}

export function newNfs3(rpc: RpcClient, options: Nfs3Options): NfsProtocol {
  const limits = { readBytes: 32 * 1024, writeBytes: 32 * 1024 };
  return new Nfs3({ rpc, options, limits, maxNameBytes: 255, readdirPlus: true }, Number.POSITIVE_INFINITY);
}

class Nfs3 implements NfsProtocol {
  readonly version = "3";
  readonly fences = false;
  readonly xattrs = false;
  readonly holes = false;
  readonly #mount: Mount;
  readonly #until: number;

  constructor(mount: Mount, until: number) {
    this.#mount = mount;
    this.#until = until;
  }

  get limits(): Limits {
    return this.#mount.limits;
  }

  async takeOver(): Promise<number> {
    return 0;
  }

  within(until: number): Nfs3 {
    return new Nfs3(this.#mount, until);
  }

  async mount(path: readonly ByteString[], { signal }: { readonly signal: AbortSignal }): Promise<MountPoint> {
    const { options } = this.#mount;
    const { addresses, timeoutMs } = options;
    const port = await mountPort(addresses, options.mountPort, timeoutMs, signal);
    const point = await mountExport(path, { ...options, port }, signal);
    await this.#fsinfo(point.handle);
    return point;
  }

  close(): void {
    this.#mount.rpc.close();
  }

  // One call.

  /** Sends it, and again as long as the server says that it needs time, within the deadline. */
  async #call(
    procedure: number,
    write: (args: XdrWriter) => void,
    read: (results: XdrReader, resent: boolean) => number,
    options?: CallOptions,
  ): Promise<number> {
    let twice = false;
    const decode: Decode = (results, resent) => {
      twice ||= resent;
      const status = results.u32();
      if (status === 0) return read(results, twice);
      return twice ? repeated(wire.errnoOfStatus(status)) : wire.errnoOfStatus(status);
    };
    const until = Math.min(this.#until, performance.now() + this.#mount.options.timeoutMs);
    for (let pauseMs = 50; ; pauseMs = Math.min(1_000, pauseMs * 2)) {
      const call = this.#mount.rpc.prepare(procedure);
      write(call.args);
      const timeoutMs = until - performance.now();
      const result = await this.#mount.rpc.send(call, decode, { ...options, timeoutMs });
      if (plain(result) !== -wire.tryLater) return result;
      if (performance.now() + pauseMs > until) return -ETIMEDOUT;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  async #fsinfo(root: FileHandle): Promise<void> {
    const info = await this.#call(
      Proc.fsinfo,
      (args) => args.opaque(root),
      (reader) => {
        wire.readPostOp(reader, null);
        const readMax = reader.u32();
        reader.skip(8);
        const writeMax = reader.u32();
        this.#mount.limits = {
          readBytes: Math.max(512, Math.min(maxTransferBytes, readMax)),
          writeBytes: Math.max(512, Math.min(maxTransferBytes, writeMax)),
        };
        return 0;
      },
    );
    if (info < 0) return;
    await this.#call(
      Proc.pathconf,
      (args) => args.opaque(root),
      (reader) => {
        wire.readPostOp(reader, null);
        reader.u32();
        this.#mount.maxNameBytes = Math.min(255, reader.u32());
        return 0;
      },
    );
  }

  // Objects.

  async getattr(object: FileHandle, found: Found, urgent = false): Promise<number> {
    return plain(
      await this.#call(
        Proc.getattr,
        (args) => args.opaque(object),
        (reader) => {
          wire.readAttr(reader, found.attr, found);
          found.hasAttr = true;
          return 0;
        },
        { urgent },
      ),
    );
  }

  async setattr(
    object: FileHandle,
    _state: OpenState | null,
    change: SetAttr,
    found: Found,
    urgent = false,
  ): Promise<number> {
    return plain(
      await this.#call(
        Proc.setattr,
        (args) => {
          args.opaque(object);
          wire.writeSetAttr(args, change);
          args.u32(0);
        },
        (reader) => {
          wire.readWcc(reader, found);
          return 0;
        },
        { urgent },
      ),
    );
  }

  async lookup(directory: FileHandle, name: ByteString, found: Found): Promise<number> {
    return plain(
      await this.#call(
        Proc.lookup,
        (args) => args.opaque(directory).string(name),
        (reader) => {
          found.handle = wire.readHandle(reader);
          wire.readPostOp(reader, found);
          return 0;
        },
      ),
    );
  }

  async readlink(object: FileHandle, into: Uint8Array): Promise<number> {
    return plain(
      await this.#call(
        Proc.readlink,
        (args) => args.opaque(object),
        (reader) => {
          wire.readPostOp(reader, null);
          const target = reader.opaque();
          if (target.length > into.length) return -ERANGE;
          into.set(target);
          return target.length;
        },
      ),
    );
  }

  // Names.

  async create(directory: FileHandle, name: ByteString, want: NewObject, found: Found): Promise<null | number> {
    const mark = newMark();
    const result = await this.#call(
      Proc.create,
      (args) => {
        args.opaque(directory).string(name).u32(1); // GUARDED
        wire.writeSetAttr(args, { mode: want.mode, uid: want.uid, gid: want.gid, atime: mark });
      },
      (reader) => readNew(reader, found),
    );
    const made = await this.#settleMade(result, directory, name, found, (attr) => carriesMark(attr, mark));
    return made === 0 ? null : made;
  }

  async mkdir(directory: FileHandle, name: ByteString, want: NewObject, found: Found): Promise<number> {
    const result = await this.#call(
      Proc.mkdir,
      (args) => {
        args.opaque(directory).string(name);
        wire.writeSetAttr(args, { mode: want.mode, uid: want.uid, gid: want.gid });
      },
      (reader) => readNew(reader, found),
    );
    const isOurs = (attr: FileAttr) => (attr.mode & S_IFMT) === S_IFDIR && attr.uid === want.uid && attr.nlink <= 2;
    return this.#settleMade(result, directory, name, found, isOurs);
  }

  async symlink(
    directory: FileHandle,
    name: ByteString,
    target: ByteString,
    want: NewObject,
    found: Found,
  ): Promise<number> {
    const result = await this.#call(
      Proc.symlink,
      (args) => {
        args.opaque(directory).string(name);
        wire.writeSetAttr(args, { mode: 0o777, uid: want.uid, gid: want.gid });
        args.string(target);
      },
      (reader) => readNew(reader, found),
    );
    const isLink = (attr: FileAttr) => (attr.mode & S_IFMT) === S_IFLNK && attr.size === target.length;
    const made = await this.#settleMade(result, directory, name, found, isLink);
    if (made !== 0 || result >= 0) return made;
    const into = Buffer.alloc(target.length);
    const length = await this.readlink(found.handle, into);
    return length === target.length && into.toString("latin1") === target ? 0 : -EEXIST;
  }

  async mknod(directory: FileHandle, name: ByteString, rdev: number, want: NewObject, found: Found): Promise<number> {
    const type = nodeTypes.get(want.mode & S_IFMT);
    if (type === undefined) return -EINVAL;
    const result = await this.#call(
      Proc.mknod,
      (args) => {
        args.opaque(directory).string(name).u32(type);
        wire.writeSetAttr(args, { mode: want.mode, uid: want.uid, gid: want.gid });
        const { major, minor } = wire.decodeDev(rdev);
        if (type === 3 || type === 4) args.u32(major).u32(minor);
      },
      (reader) => readNew(reader, found),
    );
    const isOurs = (attr: FileAttr) => (attr.mode & S_IFMT) === (want.mode & S_IFMT) && attr.uid === want.uid;
    return this.#settleMade(result, directory, name, found, isOurs);
  }

  /** Completes what the server left out, and decides whether an "exists" to a repeated call is the call's own work. */
  async #settleMade(
    result: number,
    directory: FileHandle,
    name: ByteString,
    found: Found,
    isOurs: (attr: FileAttr) => boolean,
  ): Promise<number> {
    if (result === 0 && found.handle.length > 0 && found.hasAttr) return 0;
    if (result < 0 && result !== repeated(-EEXIST)) return plain(result);
    const looked = await this.lookup(directory, name, found);
    if (looked < 0) return looked;
    if (!found.hasAttr) {
      const got = await this.getattr(found.handle, found);
      if (got < 0) return got;
    }
    return result === 0 || isOurs(found.attr) ? 0 : -EEXIST;
  }

  async link(object: FileHandle, directory: FileHandle, name: ByteString): Promise<number> {
    const result = await this.#call(
      Proc.link,
      (args) => args.opaque(object).opaque(directory).string(name),
      (reader) => {
        wire.readPostOp(reader, null);
        return 0;
      },
    );
    if (result !== repeated(-EEXIST)) return plain(result);
    return (await this.#isSame(object, directory, name)) ? 0 : -EEXIST;
  }

  async unlink(directory: FileHandle, name: ByteString): Promise<number> {
    const result = await this.#remove(Proc.remove, directory, name);
    if (result === repeated(-ENOENT)) return 0;
    if (result !== -EINVAL && result !== -1) return plain(result);
    // Servers differ in how they refuse to unlink a directory; Linux says EISDIR.
    const found = new Found();
    const looked = await this.lookup(directory, name, found);
    return looked === 0 && found.hasAttr && (found.attr.mode & S_IFMT) === S_IFDIR ? -EISDIR : plain(result);
  }

  async rmdir(directory: FileHandle, name: ByteString): Promise<number> {
    const result = await this.#remove(Proc.rmdir, directory, name);
    return result === repeated(-ENOENT) ? 0 : plain(result);
  }

  #remove(procedure: number, directory: FileHandle, name: ByteString): Promise<number> {
    return this.#call(
      procedure,
      (args) => args.opaque(directory).string(name),
      () => 0,
    );
  }

  async rename(from: FileHandle, fromName: ByteString, to: FileHandle, toName: ByteString): Promise<number> {
    const result = await this.#call(
      Proc.rename,
      (args) => args.opaque(from).string(fromName).opaque(to).string(toName),
      () => 0,
    );
    if (result !== repeated(-ENOENT)) return plain(result);
    // Sent twice and the old name is gone: the first one did it, if the new name is there.
    return plain(await this.lookup(to, toName, new Found()));
  }

  async #isSame(object: FileHandle, directory: FileHandle, name: ByteString): Promise<boolean> {
    const mine = new Found();
    const there = new Found();
    if ((await this.getattr(object, mine)) < 0 || (await this.lookup(directory, name, there)) < 0) return false;
    return there.hasAttr && there.attr.ino === mine.attr.ino;
  }

  async readdir(directory: FileHandle, into: Entries, each: EachEntry): Promise<number> {
    if (this.#mount.readdirPlus) {
      const result = await this.#list(directory, into, each, true);
      if (result !== -EOPNOTSUPP) return result;
      this.#mount.readdirPlus = false;
    }
    return this.#list(directory, into, each, false);
  }

  async #list(directory: FileHandle, into: Entries, each: EachEntry, plus: boolean): Promise<number> {
    let cookie: Uint8Array = Buffer.alloc(8);
    let verifier: Uint8Array = Buffer.alloc(8);
    let atEnd = false;
    const attr = new FileAttr();
    const found = new Found();
    while (!atEnd) {
      const result = await this.#call(
        plus ? Proc.readdirplus : Proc.readdir,
        (args) => {
          args.opaque(directory).fixed(cookie).fixed(verifier).u32(dirBytes);
          if (plus) args.u32(dirBytes * 4);
        },
        (reader) => {
          wire.readPostOp(reader, null);
          verifier = Buffer.from(reader.fixed(8));
          let seen = 0;
          while (reader.bool()) {
            const high = reader.u32();
            const low = reader.u32();
            const name = reader.string();
            cookie = reader.fixed(8);
            found.hasAttr = false;
            found.handle = Buffer.alloc(0);
            if (plus) {
              wire.readPostOp(reader, found);
              found.handle = wire.readPostOpHandle(reader);
            }
            seen++;
            if (name === "." || name === "..") continue;
            into.names.push(name);
            into.types.push(found.hasAttr ? found.attr.mode & S_IFMT : 0);
            into.inos.push(found.hasAttr ? found.attr.ino : low + high * 2 ** 32);
            if (found.handle.length > 0) each(name, found.handle, found.hasAttr ? attr.copyFrom(found.attr) : null);
          }
          cookie = Buffer.from(cookie);
          atEnd = reader.bool();
          return seen === 0 && !atEnd ? -EPROTO : 0;
        },
      );
      if (result < 0) return plain(result);
    }
    return 0;
  }

  // Open files. The server knows of none.

  async open(): Promise<null> {
    return null;
  }

  async closeFile(): Promise<number> {
    return 0;
  }

  async read(
    object: FileHandle,
    _state: OpenState | null,
    into: Uint8Array,
    position: number,
    result: ReadResult,
  ): Promise<number> {
    return plain(
      await this.#call(
        Proc.read,
        (args) => args.opaque(object).u64(position).u32(into.length),
        (reader) => {
          wire.readPostOp(reader, null);
          reader.u32();
          result.endOfFile = reader.bool();
          return reader.opaqueInto(into);
        },
        { data: true },
      ),
    );
  }

  async write(
    object: FileHandle,
    _state: OpenState | null,
    data: Uint8Array,
    position: number,
    result: WriteResult,
    urgent = false,
  ): Promise<number> {
    return plain(
      await this.#call(
        Proc.write,
        (args) => args.opaque(object).u64(position).u32(data.length).u32(0).payload(data),
        (reader) => {
          wire.readWcc(reader, null);
          const count = reader.u32();
          result.stable = reader.u32() !== 0;
          result.verifier = reader.fixed(8).toString("latin1");
          return count > data.length ? -EPROTO : count;
        },
        { urgent },
      ),
    );
  }

  async commit(object: FileHandle, result: WriteResult, urgent = false): Promise<number> {
    return plain(
      await this.#call(
        Proc.commit,
        (args) => args.opaque(object).u64(0).u32(0),
        (reader) => {
          wire.readWcc(reader, null);
          result.stable = true;
          result.verifier = reader.fixed(8).toString("latin1");
          return 0;
        },
        { urgent },
      ),
    );
  }

  async statfs(root: FileHandle, into: Space): Promise<number> {
    return plain(
      await this.#call(
        Proc.fsstat,
        (args) => args.opaque(root),
        (reader) => {
          wire.readPostOp(reader, null);
          into.blockSizeBytes = 4096;
          into.blocks = Math.floor(reader.u64() / 4096);
          into.freeBlocks = Math.floor(reader.u64() / 4096);
          into.availableBlocks = Math.floor(reader.u64() / 4096);
          into.files = reader.u64();
          into.freeFiles = reader.u64();
          into.maxNameBytes = this.#mount.maxNameBytes;
          return 0;
        },
      ),
    );
  }

  // What v3 does not have.

  async deallocate(): Promise<number> {
    return -EOPNOTSUPP;
  }
  async seek(): Promise<number> {
    return -EOPNOTSUPP;
  }
  async getxattr(): Promise<number> {
    return -EOPNOTSUPP;
  }
  async setxattr(): Promise<number> {
    return -EOPNOTSUPP;
  }
  async listxattr(): Promise<number> {
    return -EOPNOTSUPP;
  }
  async removexattr(): Promise<number> {
    return -EOPNOTSUPP;
  }
}

const nodeTypes: ReadonlyMap<number, number> = new Map([
  [S_IFBLK, 3],
  [S_IFCHR, 4],
  [S_IFSOCK, 6],
  [S_IFIFO, 7],
]);

/** The results of CREATE, MKDIR, SYMLINK and MKNOD. */
function readNew(reader: XdrReader, found: Found): number {
  found.handle = wire.readPostOpHandle(reader);
  wire.readPostOp(reader, found);
  return 0;
}
