/**
 * NFS v4.1, and v4.2 where the server has it, for a replica. The session (`nfs4-session.ts`) executes every call exactly
 * once, and is the fence against earlier and later processes. Each open file has an open-owner of its own, asks for no
 * delegation, and is claimed back after a server restart. Owners are numbers.
 */
import { randomUUID } from "node:crypto";
import type { ByteString } from "../util/byte-string.ts";
import {
  EACCES,
  EEXIST,
  EINVAL,
  EIO,
  EISDIR,
  ENODATA,
  ENOENT,
  ENOTCONN,
  ENOTDIR,
  ENXIO,
  EOPNOTSUPP,
  EPROTO,
  ERANGE,
  ESTALE,
  ETIMEDOUT,
  errnoName,
} from "../util/errno.ts";
import { S_IFMT } from "../util/file-attr.ts";
import { decodeDev } from "./nfs3-wire.ts";
import {
  type Compound,
  type CompoundOptions,
  type CompoundResults,
  Nfs4Session,
  type SessionOptions,
} from "./nfs4-session.ts";
import * as wire from "./nfs4-wire.ts";
import {
  type EachEntry,
  type Entries,
  type FileHandle,
  Found,
  type Limits,
  type MountPoint,
  type NewObject,
  NfsError,
  type NfsProtocol,
  type OpenState,
  type ReadResult,
  type SetAttr,
  type Space,
  type WriteResult,
} from "./protocol.ts";
import { carriesMark, newMark, plain, repeated } from "./repeated.ts";
import type { RpcClient } from "./rpc-client.ts";
import { EPROTONOSUPPORT } from "./rpc-message.ts";

export type { SessionLoss } from "./nfs4-session.ts";

const { Op, Nfs4Status } = wire;

const anonymous = Buffer.alloc(wire.stateIdBytes);
const headerBytes = 512;
const maxTransferBytes = 1 << 20;
const dirBytes = 64 * 1024;

const shareRead = 1;
const shareBoth = 3;
const wantNoDelegation = 0x400;

class Nfs4Open implements OpenState {
  readonly owner: number;
  readonly access: "read" | "read-write";
  readonly handle: FileHandle;
  stateid: Buffer;

  constructor(owner: number, access: "read" | "read-write", handle: FileHandle, stateid: Buffer) {
    this.owner = owner;
    this.access = access;
    this.handle = handle;
    this.stateid = stateid;
  }
}

export type Nfs4Options = Omit<SessionOptions, "onRenewed" | "clientOwner">;

/** One mount: what all views of it share. */
interface Mount {
  session: Nfs4Session;
  readonly newSession: (owner: string) => Nfs4Session;
  leaseSeconds: number;
  readonly opens: Set<Nfs4Open>;
  nextOwner: number;
  maxNameBytes: number;
  limits: Limits;
  xattrs: boolean;
}

/** `rpc` is a client of program 100003, version 4. */
export function newNfs4(rpc: RpcClient, options: Nfs4Options): NfsProtocol {
  const newSession = (clientOwner: string) =>
    new Nfs4Session(rpc, { ...options, clientOwner, onRenewed: () => nfs.reclaim() });
  const mount: Mount = {
    session: newSession(`chiron:look:${process.pid}:${randomUUID()}`),
    newSession,
    opens: new Set(),
    nextOwner: 1,
    maxNameBytes: 255,
    leaseSeconds: 90,
    limits: { readBytes: 32 * 1024, writeBytes: 32 * 1024 },
    xattrs: false,
  };
  const nfs = new Nfs4(mount, Number.POSITIVE_INFINITY);
  return nfs;
}

class Nfs4 implements NfsProtocol {
  readonly fences = true;
  readonly #mount: Mount;
  readonly #until: number;

  constructor(mount: Mount, until: number) {
    this.#mount = mount;
    this.#until = until;
  }

  get limits(): Limits {
    return this.#mount.limits;
  }

  get xattrs(): boolean {
    return this.#mount.xattrs;
  }

  get holes(): boolean {
    return this.#mount.session.minor >= 2;
  }

  within(until: number): Nfs4 {
    return new Nfs4(this.#mount, until);
  }

  #call(
    write: (compound: Compound) => void,
    read: (results: CompoundResults) => number,
    options: CompoundOptions = {},
  ): Promise<number> {
    return this.#mount.session.call(write, read, { ...options, until: this.#until });
  }

  get version(): "4.1" | "4.2" {
    return this.#mount.session.minor === 2 ? "4.2" : "4.1";
  }

  async mount(path: readonly ByteString[]): Promise<MountPoint> {
    const started = await this.#begin(this.#mount.session);
    if (started < 0) throw refusal(started);
    const point = await this.#walk(path);
    await this.#askServer(point.handle);
    return point;
  }

  /**
   * The session that this mount began with has an owner of its own, and ends nobody's; it is left to its lease. Files that
   * are open are opened again when they are used.
   */
  async takeOver(owner: string): Promise<number> {
    const session = this.#mount.newSession(owner);
    const started = await this.#begin(session);
    if (started < 0) return settled(started);
    this.#mount.session.retire();
    this.#mount.session = session;
    session.keepAlive(this.#mount.leaseSeconds);
    return 0;
  }

  async #begin(session: Nfs4Session): Promise<number> {
    const started = await session.start();
    if (started < 0) return started;
    const completed = await reclaimComplete(session);
    return completed === Nfs4Status.completeAlready ? 0 : completed;
  }

  close(): void {
    this.#mount.session.close();
  }

  /** As far down the path as there are directories. */
  async #walk(path: readonly ByteString[]): Promise<MountPoint> {
    for (let length = path.length; length >= 0; length--) {
      let handle: FileHandle = Buffer.alloc(0);
      const result = await this.#call(
        (compound) => {
          compound.op(Op.putrootfh);
          for (const name of path.slice(0, length)) compound.op(Op.lookup).string(name);
          compound.op(Op.getfh);
        },
        (results) => {
          const status = results.pass(Op.putrootfh, ...path.slice(0, length).map(() => Op.lookup), Op.getfh);
          if (status === 0) handle = Buffer.from(results.reader.opaque(wire.maxHandleBytes));
          return status;
        },
      );
      if (result === 0) return { handle, rest: path.slice(length) };
      if (result === -EACCES) {
        throw new NfsError(
          `the server refuses to let this host mount /${path.join("/")}: check the export's clients and security`,
          result,
        );
      }
      if (result !== -ENOENT) {
        if (result === -ENOTDIR) throw new NfsError(`/${path.join("/")} on the server is not a directory`, result);
        throw refusal(result);
      }
    }
    throw new NfsError("the server has no root", -ENOENT);
  }

  async #askServer(root: FileHandle): Promise<void> {
    const facts = wire.newServerFacts();
    const result = await this.#call(
      (compound) => {
        compound.putfh(root);
        compound.op(Op.getattr).fixed(wire.serverAttributes);
      },
      (results) => {
        const status = results.pass(Op.putfh, Op.getattr);
        if (status === 0) wire.readAttributes(results.reader, null, null, facts);
        return status;
      },
    );
    if (result < 0) throw refusal(result);
    const { maxRequestBytes, maxResponseBytes } = this.#mount.session;
    this.#mount.limits = {
      readBytes: transfer(facts.maxRead, maxResponseBytes),
      writeBytes: transfer(facts.maxWrite, maxRequestBytes),
    };
    this.#mount.maxNameBytes = Math.min(255, facts.maxName);
    this.#mount.xattrs = facts.xattrs && this.#mount.session.minor >= 2;
    this.#mount.leaseSeconds = facts.leaseSeconds;
    this.#mount.session.keepAlive(facts.leaseSeconds);
  }

  /** After a restart of the server, within its grace period: what is open here is claimed back. */
  async reclaim(): Promise<void> {
    for (const open of this.#mount.opens) {
      const claimed = await this.#openByHandle(open.handle, open.access, open.owner, "previous");
      if (typeof claimed !== "number") open.stateid = claimed;
    }
    await reclaimComplete(this.#mount.session);
  }

  // Objects.

  async getattr(object: FileHandle, found: Found, urgent = false): Promise<number> {
    return plain(
      await this.#call(
        (compound) => {
          compound.putfh(object);
          compound.op(Op.getattr).fixed(wire.fileAttributes);
        },
        (results) => results.pass(Op.putfh) || readAttr(results, found),
        { urgent },
      ),
    );
  }

  async setattr(
    object: FileHandle,
    state: OpenState | null,
    change: SetAttr,
    found: Found,
    urgent = false,
  ): Promise<number> {
    const result = await this.#call(
      (compound) => {
        compound.putfh(object);
        const args = compound.op(Op.setattr).fixed(change.size === undefined ? anonymous : stateidOf(state));
        wire.writeSetAttr4(args, change);
        compound.op(Op.getattr).fixed(wire.fileAttributes);
      },
      (results) => {
        const status = results.pass(Op.putfh, Op.setattr);
        if (status < 0) return status;
        wire.skipBitmap(results.reader);
        return readAttr(results, found);
      },
      { once: true, urgent },
    );
    if (isStateLost(result) && state !== null) return this.setattr(object, null, change, found);
    return plain(result);
  }

  async lookup(directory: FileHandle, name: ByteString, found: Found): Promise<number> {
    return plain(
      await this.#call(
        (compound) => {
          compound.putfh(directory).op(Op.lookup).string(name);
          askFound(compound);
        },
        (results) => results.pass(Op.putfh, Op.lookup) || readFound(results, found),
      ),
    );
  }

  async readlink(object: FileHandle, into: Uint8Array): Promise<number> {
    return plain(
      await this.#call(
        (compound) => compound.putfh(object).op(Op.readlink),
        (results) => {
          const status = results.pass(Op.putfh, Op.readlink);
          if (status < 0) return status;
          const target = results.reader.opaque();
          if (target.length > into.length) return -ERANGE;
          into.set(target);
          return target.length;
        },
      ),
    );
  }

  // Names.

  async create(
    directory: FileHandle,
    name: ByteString,
    want: NewObject,
    found: Found,
  ): Promise<OpenState | null | number> {
    const owner = this.#mount.nextOwner++;
    const mark = newMark();
    let stateid: Buffer = anonymous;
    const result = await this.#call(
      (compound) => {
        const args = this.#openHead(compound.putfh(directory), "read-write", owner).u32(1).u32(1); // GUARDED
        wire.writeSetAttr4(args, { mode: want.mode, uid: want.uid, gid: want.gid, atime: mark });
        args.u32(0).string(name);
        askFound(compound);
      },
      (results) => {
        const status = results.pass(Op.putfh, Op.open);
        if (status < 0) return status;
        stateid = readOpen(results);
        return readFound(results, found);
      },
      { once: true },
    );
    if (result === repeated(-EEXIST)) {
      const looked = await this.lookup(directory, name, found);
      if (looked < 0 || !carriesMark(found.attr, mark)) return looked < 0 ? looked : -EEXIST;
      return this.open(found.handle, "read-write");
    }
    if (result < 0) return plain(result);
    return this.#opened(owner, "read-write", found.handle, stateid);
  }

  mkdir(directory: FileHandle, name: ByteString, want: NewObject, found: Found): Promise<number> {
    return this.#make(directory, name, want, found, () => {});
  }

  symlink(directory: FileHandle, name: ByteString, target: ByteString, want: NewObject, found: Found): Promise<number> {
    return this.#make(directory, name, want, found, (compound) => compound.args.string(target));
  }

  async mknod(directory: FileHandle, name: ByteString, rdev: number, want: NewObject, found: Found): Promise<number> {
    const type = wire.typeOfMode(want.mode);
    if (type < 3) return -EINVAL;
    return this.#make(directory, name, want, found, ({ args }) => {
      const { major, minor } = decodeDev(rdev);
      if (type === 3 || type === 4) args.u32(major).u32(minor);
    });
  }

  async #make(
    directory: FileHandle,
    name: ByteString,
    want: NewObject,
    found: Found,
    writeKind: (compound: Compound) => void,
  ): Promise<number> {
    const result = await this.#call(
      (compound) => {
        compound.putfh(directory).op(Op.create).u32(wire.typeOfMode(want.mode));
        writeKind(compound);
        compound.args.string(name);
        wire.writeSetAttr4(compound.args, { mode: want.mode, uid: want.uid, gid: want.gid });
        askFound(compound);
      },
      (results) => {
        const status = results.pass(Op.putfh, Op.create);
        if (status < 0) return status;
        wire.skipChangeInfo(results.reader);
        wire.skipBitmap(results.reader);
        return readFound(results, found);
      },
      { once: true },
    );
    if (result !== repeated(-EEXIST)) return plain(result);
    const looked = await this.lookup(directory, name, found);
    if (looked < 0) return looked;
    const isOurs = (found.attr.mode & S_IFMT) === (want.mode & S_IFMT) && found.attr.uid === want.uid;
    return isOurs ? 0 : -EEXIST;
  }

  async link(object: FileHandle, directory: FileHandle, name: ByteString): Promise<number> {
    const result = await this.#call(
      (compound) => {
        compound.putfh(object).op(Op.savefh);
        compound.putfh(directory).op(Op.link).string(name);
      },
      (results) => results.pass(Op.putfh, Op.savefh, Op.putfh, Op.link),
      { once: true },
    );
    if (result !== repeated(-EEXIST)) return plain(result);
    const mine = new Found();
    const there = new Found();
    if ((await this.getattr(object, mine)) < 0 || (await this.lookup(directory, name, there)) < 0) return -EEXIST;
    return mine.attr.ino === there.attr.ino ? 0 : -EEXIST;
  }

  /** REMOVE takes files and directories alike; so the type is verified in the same compound. */
  unlink(directory: FileHandle, name: ByteString): Promise<number> {
    return this.#remove(directory, name, Op.nverify, -EISDIR);
  }

  rmdir(directory: FileHandle, name: ByteString): Promise<number> {
    return this.#remove(directory, name, Op.verify, -ENOTDIR);
  }

  async #remove(directory: FileHandle, name: ByteString, test: number, wrongType: number): Promise<number> {
    const result = await this.#call(
      (compound) => {
        compound.putfh(directory).op(Op.savefh);
        compound.op(Op.lookup).string(name);
        wire.writeIsDirectory(compound.op(test));
        compound.op(Op.restorefh);
        compound.op(Op.remove).string(name);
      },
      (results) => results.pass(Op.putfh, Op.savefh, Op.lookup, test, Op.restorefh, Op.remove),
      { once: true },
    );
    if (result === Nfs4Status.same || result === Nfs4Status.notSame) return wrongType;
    return result === repeated(-ENOENT) ? 0 : plain(result);
  }

  async rename(from: FileHandle, fromName: ByteString, to: FileHandle, toName: ByteString): Promise<number> {
    const result = await this.#call(
      (compound) => {
        compound.putfh(from).op(Op.savefh);
        compound.putfh(to).op(Op.rename).string(fromName).string(toName);
      },
      (results) => results.pass(Op.putfh, Op.savefh, Op.putfh, Op.rename),
      { once: true },
    );
    if (result !== repeated(-ENOENT)) return plain(result);
    return this.lookup(to, toName, new Found());
  }

  async readdir(directory: FileHandle, into: Entries, _each: EachEntry): Promise<number> {
    let cookie = 0n;
    let verifier: Uint8Array = Buffer.alloc(8);
    const entry = { type: 0, ino: 0 };
    for (let atEnd = false; !atEnd; ) {
      const result = await this.#call(
        (compound) => {
          const args = compound.putfh(directory).op(Op.readdir).big64(cookie).fixed(verifier);
          args.u32(dirBytes).u32(dirBytes).fixed(wire.entryAttributes);
        },
        (results) => {
          const status = results.pass(Op.putfh, Op.readdir);
          if (status < 0) return status;
          const { reader } = results;
          verifier = Buffer.from(reader.fixed(8));
          let seen = 0;
          while (reader.bool()) {
            cookie = reader.big64();
            const name = reader.string();
            wire.readEntryAttributes(reader, entry);
            seen++;
            if (name === "." || name === "..") continue;
            into.names.push(name);
            into.types.push(entry.type);
            into.inos.push(entry.ino);
          }
          atEnd = reader.bool();
          return seen === 0 && !atEnd ? -EPROTO : 0;
        },
      );
      if (result < 0) return plain(result);
    }
    return 0;
  }

  // Open files.

  async open(object: FileHandle, access: "read" | "read-write"): Promise<OpenState | number> {
    const owner = this.#mount.nextOwner++;
    const stateid = await this.#openByHandle(object, access, owner, "handle");
    return typeof stateid === "number" ? stateid : this.#opened(owner, access, object, stateid);
  }

  #opened(owner: number, access: "read" | "read-write", handle: FileHandle, stateid: Buffer): Nfs4Open {
    const open = new Nfs4Open(owner, access, handle, stateid);
    this.#mount.opens.add(open);
    return open;
  }

  /** OPEN's arguments up to `openhow`. */
  #openHead(compound: Compound, access: "read" | "read-write", owner: number) {
    const share = (access === "read" ? shareRead : shareBoth) | wantNoDelegation;
    const args = compound.op(Op.open).u32(0).u32(share).u32(0).big64(this.#mount.session.clientId);
    return args.u32(4).u32(owner);
  }

  async #openByHandle(
    object: FileHandle,
    access: "read" | "read-write",
    owner: number,
    claim: "handle" | "previous",
  ): Promise<Buffer | number> {
    let stateid: Buffer = anonymous;
    const options: CompoundOptions =
      claim === "previous" ? { once: true, urgent: true, recovering: true } : { once: true };
    const result = await this.#call(
      (compound) => {
        const args = this.#openHead(compound.putfh(object), access, owner).u32(0);
        if (claim === "previous") args.u32(1).u32(0);
        else args.u32(4);
      },
      (results) => {
        const status = results.pass(Op.putfh, Op.open);
        if (status === 0) stateid = readOpen(results);
        return status;
      },
      options,
    );
    return result < 0 ? settled(plain(result)) : stateid;
  }

  async closeFile(object: FileHandle, state: OpenState): Promise<number> {
    const open = state as Nfs4Open;
    this.#mount.opens.delete(open);
    const result = await this.#call(
      (compound) => compound.putfh(object).op(Op.close).u32(0).fixed(open.stateid),
      (results) => results.pass(Op.putfh, Op.close),
      { once: true },
    );
    return isStateLost(result) ? 0 : settled(plain(result));
  }

  /** Runs it with the file's state; if the server has lost that, opens the file again, once. */
  async #withState(
    object: FileHandle,
    state: OpenState | null,
    urgent: boolean,
    run: (stateid: Buffer) => Promise<number>,
  ): Promise<number> {
    const result = await run(stateidOf(state));
    if (!isStateLost(result)) return settled(plain(result));
    const open = state as Nfs4Open | null;
    if (open === null || urgent) return settled(plain(await run(anonymous)));
    const again = await this.#openByHandle(object, open.access, this.#mount.nextOwner++, "handle");
    if (typeof again === "number") return again;
    open.stateid = again;
    return settled(plain(await run(again)));
  }

  read(
    object: FileHandle,
    state: OpenState | null,
    into: Uint8Array,
    position: number,
    result: ReadResult,
  ): Promise<number> {
    return this.#withState(object, state, false, (stateid) =>
      this.#call(
        (compound) => compound.putfh(object).op(Op.read).fixed(stateid).u64(position).u32(into.length),
        (results) => {
          const status = results.pass(Op.putfh, Op.read);
          if (status < 0) return status;
          result.endOfFile = results.reader.bool();
          return results.reader.opaqueInto(into);
        },
        { data: true },
      ),
    );
  }

  write(
    object: FileHandle,
    state: OpenState | null,
    data: Uint8Array,
    position: number,
    result: WriteResult,
    urgent = false,
  ): Promise<number> {
    return this.#withState(object, state, urgent, (stateid) =>
      this.#call(
        (compound) => compound.putfh(object).op(Op.write).fixed(stateid).u64(position).u32(0).payload(data),
        (results) => {
          const status = results.pass(Op.putfh, Op.write);
          if (status < 0) return status;
          const count = results.reader.u32();
          result.stable = results.reader.u32() !== 0;
          result.verifier = results.reader.fixed(8).toString("latin1");
          return count > data.length ? -EPROTO : count;
        },
        { once: true, urgent },
      ),
    );
  }

  async commit(object: FileHandle, result: WriteResult, urgent = false): Promise<number> {
    return plain(
      await this.#call(
        (compound) => compound.putfh(object).op(Op.commit).u64(0).u32(0),
        (results) => {
          const status = results.pass(Op.putfh, Op.commit);
          if (status < 0) return status;
          result.stable = true;
          result.verifier = results.reader.fixed(8).toString("latin1");
          return 0;
        },
        { urgent },
      ),
    );
  }

  deallocate(object: FileHandle, state: OpenState | null, position: number, length: number): Promise<number> {
    return this.#withState(object, state, false, (stateid) =>
      this.#call(
        (compound) => compound.putfh(object).op(Op.deallocate).fixed(stateid).u64(position).u64(length),
        (results) => results.pass(Op.putfh, Op.deallocate),
        { once: true },
      ),
    );
  }

  seek(object: FileHandle, state: OpenState | null, position: number, hole: boolean): Promise<number> {
    return this.#withState(object, state, false, (stateid) =>
      this.#call(
        (compound) =>
          compound
            .putfh(object)
            .op(Op.seek)
            .fixed(stateid)
            .u64(position)
            .u32(hole ? 1 : 0),
        (results) => {
          const status = results.pass(Op.putfh, Op.seek);
          if (status < 0) return status;
          const atEnd = results.reader.bool();
          const offset = results.reader.u64();
          return atEnd && !hole ? -ENXIO : offset; // the end of the file is a hole
        },
      ),
    );
  }

  async statfs(root: FileHandle, into: Space): Promise<number> {
    const facts = wire.newServerFacts();
    const result = await this.#call(
      (compound) => compound.putfh(root).op(Op.getattr).fixed(wire.spaceAttributes),
      (results) => {
        const status = results.pass(Op.putfh, Op.getattr);
        if (status === 0) wire.readAttributes(results.reader, null, null, facts);
        return status;
      },
    );
    if (result < 0) return plain(result);
    into.blockSizeBytes = 4096;
    into.blocks = Math.floor(facts.spaceTotal / 4096);
    into.freeBlocks = Math.floor(facts.spaceFree / 4096);
    into.availableBlocks = Math.floor(facts.spaceAvail / 4096);
    into.files = facts.filesTotal;
    into.freeFiles = facts.filesFree;
    into.maxNameBytes = this.#mount.maxNameBytes;
    return 0;
  }

  // Extended attributes: v4.2 has those of users, without their "user." (RFC 8276).

  async getxattr(object: FileHandle, name: ByteString, into: Uint8Array): Promise<number> {
    const key = this.#xattrKey(name);
    if (key === null) return -EOPNOTSUPP;
    return plain(
      await this.#call(
        (compound) => compound.putfh(object).op(Op.getxattr).string(key),
        (results) => {
          const status = results.pass(Op.putfh, Op.getxattr);
          if (status < 0) return status;
          const value = results.reader.opaque();
          if (into.length === 0) return value.length;
          if (value.length > into.length) return -ERANGE;
          into.set(value);
          return value.length;
        },
      ),
    );
  }

  async setxattr(object: FileHandle, name: ByteString, value: Uint8Array, flags: number): Promise<number> {
    const key = this.#xattrKey(name);
    if (key === null) return -EOPNOTSUPP;
    const result = await this.#call(
      (compound) => compound.putfh(object).op(Op.setxattr).u32(flags).string(key).opaque(value),
      (results) => results.pass(Op.putfh, Op.setxattr),
      { once: true },
    );
    return plain(result) === -ENOENT ? -ENODATA : plain(result);
  }

  async listxattr(object: FileHandle, into: Uint8Array): Promise<number> {
    if (!this.xattrs) return -EOPNOTSUPP;
    let list = "";
    let cookie = 0n;
    for (let atEnd = false; !atEnd; ) {
      const result = await this.#call(
        (compound) =>
          compound
            .putfh(object)
            .op(Op.listxattrs)
            .big64(cookie)
            .u32(64 * 1024),
        (results) => {
          const status = results.pass(Op.putfh, Op.listxattrs);
          if (status < 0) return status;
          const { reader } = results;
          cookie = reader.big64();
          const count = reader.u32();
          for (let i = 0; i < count; i++) list += `user.${reader.string()}\0`;
          atEnd = reader.bool() || count === 0;
          return 0;
        },
      );
      if (result < 0) return plain(result);
    }
    if (into.length === 0) return list.length;
    if (list.length > into.length) return -ERANGE;
    into.set(Buffer.from(list, "latin1"));
    return list.length;
  }

  async removexattr(object: FileHandle, name: ByteString): Promise<number> {
    const key = this.#xattrKey(name);
    if (key === null) return -EOPNOTSUPP;
    const result = await this.#call(
      (compound) => compound.putfh(object).op(Op.removexattr).string(key),
      (results) => results.pass(Op.putfh, Op.removexattr),
      { once: true },
    );
    return result === repeated(-ENODATA) ? 0 : plain(result);
  }

  #xattrKey(name: ByteString): ByteString | null {
    return this.xattrs && name.startsWith("user.") ? name.slice(5) : null;
  }
}

function reclaimComplete(session: Nfs4Session): Promise<number> {
  return session.call(
    (compound) => compound.op(Op.reclaimComplete).bool(false),
    (results) => results.next(Op.reclaimComplete),
    { recovering: true, urgent: true },
  );
}

function stateidOf(state: OpenState | null): Buffer {
  return state === null ? anonymous : state.stateid;
}

function isStateLost(result: number): boolean {
  const status = plain(result);
  return (
    status === Nfs4Status.badStateId ||
    status === Nfs4Status.staleStateId ||
    status === Nfs4Status.expired ||
    status === Nfs4Status.adminRevoked
  );
}

/** What is left of the protocol's own conditions is nothing that a caller knows. */
function settled(result: number): number {
  return result <= -10_000 ? -EIO : result;
}

function askFound(compound: Compound): void {
  compound.op(Op.getfh);
  compound.op(Op.getattr).fixed(wire.fileAttributes);
}

function readFound(results: CompoundResults, found: Found): number {
  const status = results.next(Op.getfh);
  if (status < 0) return status;
  found.handle = Buffer.from(results.reader.opaque(wire.maxHandleBytes));
  return readAttr(results, found);
}

function readAttr(results: CompoundResults, found: Found): number {
  const status = results.next(Op.getattr);
  if (status < 0) return status;
  wire.readAttributes(results.reader, found.attr, found, null);
  return 0;
}

/** OPEN's results; answers the state id, with "the current" as its sequence number. */
function readOpen({ reader }: CompoundResults): Buffer {
  const stateid = Buffer.from(reader.fixed(wire.stateIdBytes));
  stateid.writeUInt32BE(0, 0);
  wire.skipChangeInfo(reader);
  reader.u32();
  wire.skipBitmap(reader);
  const delegation = reader.u32();
  if (delegation === 3) {
    const why = reader.u32();
    if (why === 1 || why === 2) reader.u32();
  } else if (delegation !== 0) {
    reader.skip(wire.stateIdBytes + 4);
    if (delegation === 2) reader.skip(12);
    reader.skip(12);
    reader.opaque();
  }
  return stateid;
}

function transfer(serverBytes: number, channelBytes: number): number {
  const channel = Math.max(4096, channelBytes - headerBytes);
  const most = Math.min(maxTransferBytes, serverBytes > 0 ? serverBytes : maxTransferBytes, channel);
  return most > 4096 ? most - (most % 4096) : most;
}

function refusal(errno: number): NfsError {
  if (errno === -EPROTONOSUPPORT) return new NfsError("the server does not serve NFS v4.1", errno);
  if (errno === -EACCES) return new NfsError("the server refuses this host: check the export's list of clients", errno);
  if (errno === -ESTALE) return new NfsError("another process took the replica over at the same moment", errno);
  if (errno === -ETIMEDOUT || errno === -ENOTCONN) return new NfsError("the server does not answer", errno);
  return new NfsError(`the server refuses an NFS v4.1 session (${errnoName(errno)}): see its log`, settled(errno));
}
