/**
 * One request under way: who asks, and where the file system puts its answer. The session has one for requests that
 * are answered at once and uses it again and again; one whose handler has to wait leaves the session with it, until
 * its reply is written.
 */
import { type FileAttr, FileAttr as FileAttrValues } from "../util/file-attr.ts";
import * as abi from "./abi.ts";
import {
  type Frame,
  number64,
  offset64,
  QUAD_BODY,
  quad,
  signed64,
  WORD_BODY,
  WORD_GID,
  WORD_OPCODE,
  WORD_PID,
  WORD_UID,
  WORD_UNIQUE,
  word,
} from "./decode.ts";
import { DirectoryWriter, type ReplyBuffer } from "./encode.ts";
import type {
  AttrOut,
  EntryOut,
  LockIn,
  LockOut,
  OpenOut,
  Request,
  SetAttrIn,
  StatfsOut,
  StatxOut,
  TimeIn,
} from "./filesystem.ts";

/** How a result >= 0 becomes a reply. */
export const REPLY_EMPTY = 0;
export const REPLY_ENTRY = 1;
export const REPLY_ATTR = 2;
export const REPLY_OPEN = 3;
/** An entry and an open file. */
export const REPLY_CREATE = 4;
/** As many bytes of the payload as the result says, at most `wanted`. */
export const REPLY_BYTES = 5;
/** The result itself in 32 bits, and padding. */
export const REPLY_NUMBER = 6;
/** The result itself in 64 bits. */
export const REPLY_NUMBER_64 = 7;
export const REPLY_STATFS = 8;
export const REPLY_LOCK = 9;
export const REPLY_DIRECTORY = 10;
export const REPLY_STATX = 11;

export class Call implements Request {
  opcode = 0;
  reply = REPLY_EMPTY;
  /** At most so many bytes are the result of REPLY_BYTES. */
  wanted = 0;
  uid = 0;
  gid = 0;
  pid = 0;
  resent = false;
  /** Its INTERRUPT came before it. */
  interrupted = false;
  /** As the kernel sent it, resend bit included: the reply must echo just that (`request_find` in `fs/fuse/dev.c`). */
  uniqueLow = 0;
  uniqueHigh = 0;
  /** The buffers that this call keeps while its handler waits; null if it needs none. */
  frame: Frame | null = null;
  payload: ReplyBuffer | null = null;

  readonly entry: EntryOut & { readonly attr: FileAttr } = {
    nodeId: 0,
    attr: new FileAttrValues(),
    entryValidSeconds: 0,
    attrValidSeconds: 0,
  };
  readonly attributes: AttrOut = { attr: this.entry.attr, attrValidSeconds: 0 };
  readonly open: OpenOut = { handle: 0, openFlags: 0 };
  readonly change = new AttrChange();
  readonly directory = new DirectoryWriter();
  readonly lockOut: LockOut = { start: 0n, end: 0n, type: "unlock", pid: 0 };
  readonly statfs: StatfsOut = {
    blocks: 0,
    freeBlocks: 0,
    availableBlocks: 0,
    files: 0,
    freeFiles: 0,
    blockSizeBytes: 4096,
    maxNameBytes: 255,
  };
  #statx: StatxOut | null = null;
  #abort: AbortController | null = null;

  begin(frame: Frame, reply: number): void {
    const { words } = frame;
    this.opcode = word(words, WORD_OPCODE);
    this.reply = reply;
    this.uniqueLow = word(words, WORD_UNIQUE);
    this.uniqueHigh = word(words, WORD_UNIQUE + 1);
    this.uid = word(words, WORD_UID);
    this.gid = word(words, WORD_GID);
    this.pid = word(words, WORD_PID);
    this.resent = this.uniqueHigh >= abi.FUSE_UNIQUE_RESEND_HIGH;
    this.#abort = null;
    if (this.interrupted) {
      this.interrupted = false;
      this.abort();
    }
  }

  get unique(): bigint {
    return (BigInt(this.uniqueHigh & 0x7fff_ffff) << 32n) | BigInt(this.uniqueLow);
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    return this.#abort.signal;
  }

  /** The kernel interrupted the request. */
  abort(): void {
    this.#abort ??= new AbortController();
    this.#abort.abort();
  }

  get statx(): StatxOut {
    this.#statx ??= { attr: this.entry.attr, attrValidSeconds: 0, btime: null };
    return this.#statx;
  }
}

/** The number by which pending requests are found: `unique` without the resend bit (exact: it counts up from 2). */
export function uniqueKey(low: number, high: number): number {
  return (high & 0x7fff_ffff) * 2 ** 32 + low;
}

class Time implements TimeIn {
  seconds = 0;
  nsec = 0;
}

/** `struct fuse_setattr_in`. */
class AttrChange implements SetAttrIn {
  handle: number | null = null;
  mode: number | null = null;
  uid: number | null = null;
  gid: number | null = null;
  size: number | null = null;
  atime: TimeIn | "now" | null = null;
  mtime: TimeIn | "now" | null = null;
  ctime: TimeIn | null = null;
  killSuidgid = false;
  readonly #atime = new Time();
  readonly #mtime = new Time();
  readonly #ctime = new Time();

  decode(words: Uint32Array): this {
    const valid = word(words, WORD_BODY);
    this.handle = (valid & abi.FATTR_FH) !== 0 ? number64(words, WORD_BODY + 2) : null;
    this.size = (valid & abi.FATTR_SIZE) !== 0 ? offset64(words, WORD_BODY + 4) : null;
    this.mode = (valid & abi.FATTR_MODE) !== 0 ? word(words, WORD_BODY + 17) : null;
    this.uid = (valid & abi.FATTR_UID) !== 0 ? word(words, WORD_BODY + 19) : null;
    this.gid = (valid & abi.FATTR_GID) !== 0 ? word(words, WORD_BODY + 20) : null;
    this.atime = null;
    if ((valid & abi.FATTR_ATIME_NOW) !== 0) this.atime = "now";
    else if ((valid & abi.FATTR_ATIME) !== 0) this.atime = time(this.#atime, words, 8, 14);
    this.mtime = null;
    if ((valid & abi.FATTR_MTIME_NOW) !== 0) this.mtime = "now";
    else if ((valid & abi.FATTR_MTIME) !== 0) this.mtime = time(this.#mtime, words, 10, 15);
    this.ctime = (valid & abi.FATTR_CTIME) !== 0 ? time(this.#ctime, words, 12, 16) : null;
    this.killSuidgid = (valid & abi.FATTR_KILL_SUIDGID) !== 0;
    return this;
  }
}

function time(into: Time, words: Uint32Array, secondsAt: number, nsecAt: number): TimeIn {
  into.seconds = signed64(words, WORD_BODY + secondsAt);
  into.nsec = word(words, WORD_BODY + nsecAt);
  return into;
}

const lockTypes = ["read", "write", "unlock"] as const;

/** `struct fuse_lk_in`; null if the type of lock is none. */
export function decodeLock(frame: Frame): LockIn | null {
  const { words, quads } = frame;
  const type = lockTypes[word(words, WORD_BODY + 8)];
  if (type === undefined) return null;
  return {
    handle: number64(words, WORD_BODY),
    owner: quad(quads, QUAD_BODY + 1),
    start: quad(quads, QUAD_BODY + 2),
    end: quad(quads, QUAD_BODY + 3),
    type,
    pid: word(words, WORD_BODY + 9),
    flock: (word(words, WORD_BODY + 10) & abi.FUSE_LK_FLOCK) !== 0,
  };
}
