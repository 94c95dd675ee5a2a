/**
 * Serves a `FileSystem` over an open and mounted /dev/fuse: reads requests, has the file system carry them out, replies.
 *
 * - Each request is replied to exactly once; FORGET, BATCH_FORGET and INTERRUPT not at all. A method that throws or
 *   rejects is logged and answered EIO, and so is a request that does not parse.
 * - A request whose method answers at once costs no allocation: one `Call`, one `Frame` and one payload are used again
 *   and again. Where a method has to wait, its request takes the call, and the buffers that it needs, with it.
 * - `stop` leaves the descriptor open: another session, in this process or the next, goes on with it by `resume`.
 */
import { read, setNonBlocking, write } from "../posix/files.ts";
import { EAGAIN, ECONNABORTED, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOSYS, EPROTO, errnoName } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import * as abi from "./abi.ts";
import * as replies from "./call.ts";
import { Call, uniqueKey } from "./call.ts";
import { Frame, number64, WORD_BODY, WORD_NODE, WORD_OPCODE, WORD_UNIQUE, word } from "./decode.ts";
import { DeviceLoop, GONE, NOTHING, TAKEN } from "./device-loop.ts";
import { dispatch } from "./dispatch.ts";
import * as encode from "./encode.ts";
import { OUT_HEADER_BYTES, ReplyBuffer, WORD_REPLY } from "./encode.ts";
import type { FileSystem, Negotiated } from "./filesystem.ts";
import {
  decodeInit,
  defaultSessionOptions,
  INIT_OUT_BYTES,
  negotiate,
  putInit,
  type SessionOptions,
} from "./negotiate.ts";
import { Notifier } from "./notify.ts";
import { Pool } from "./pool.ts";

export interface SessionDeps {
  /** /dev/fuse, mounted (see `device.ts`). The session makes it non-blocking and never closes it. */
  readonly fd: number;
  readonly fileSystem: FileSystem;
  readonly logger: Logger;
  /** Called when there is nothing to do, before sleeping; true if it did something and may do more. */
  readonly onIdle?: () => boolean;
  /** Called in each turn of the loop and when it wakes, for whoever watches whether it moves. */
  readonly onAwake?: () => void;
}

export type SessionEnd = "unmounted" | "stopped";

/** Beyond the data of a WRITE: its header and fields, and room for what else the kernel sends. */
const frameMarginBytes = 4096;
/** Buffers hold at least this much: attributes and listings are up to 64 KiB, whatever was agreed for data. */
const leastBytes = 1 << 17;
/** How many buffers stay when nothing is pending. */
const keptBuffers = 2;
/** INTERRUPTs that nothing was pending for, remembered in case they overtook their requests. */
const maxEarlyInterrupts = 64;

export class FuseSession {
  readonly notify: Notifier;
  /** When the file system is unmounted, or the session stopped. */
  readonly ended: Promise<SessionEnd>;
  readonly #fd: number;
  readonly #fs: FileSystem;
  readonly #logger: Logger;
  readonly #options: SessionOptions;
  readonly #loop: DeviceLoop;
  readonly #onIdle: () => boolean;
  readonly #end: (end: SessionEnd) => void;
  readonly #pending = new Map<number, Call>();
  readonly #small = new ReplyBuffer(512);
  readonly #calls = new Pool(() => new Call(), keptBuffers);
  readonly #frames = new Pool(() => new Frame(this.#maxWriteBytes + frameMarginBytes), keptBuffers);
  readonly #payloads = new Pool(() => new ReplyBuffer(this.#maxWriteBytes), keptBuffers);
  readonly #early = new Set<number>();
  #onDrained: (() => void) | null = null;
  #negotiated: Negotiated | null = null;
  #taken = 0;
  #maxWriteBytes: number;
  #dontMask = false;
  #extendedSetxattr = false;
  #destroyed = false;
  #call = new Call();
  #frame: Frame;
  #payload: ReplyBuffer;

  constructor(deps: SessionDeps, options: Partial<SessionOptions> = {}) {
    this.#fd = deps.fd;
    this.#fs = deps.fileSystem;
    this.#logger = deps.logger;
    this.#options = { ...defaultSessionOptions, ...options };
    this.#onIdle = deps.onIdle ?? (() => false);
    this.notify = new Notifier(deps.fd);
    const { promise, resolve } = Promise.withResolvers<SessionEnd>();
    this.ended = promise;
    this.#end = resolve;
    this.#maxWriteBytes = Math.max(this.#options.maxWriteBytes, leastBytes);
    this.#frame = this.#frames.take();
    this.#payload = this.#payloads.take();
    const session = this;
    this.#loop = new DeviceLoop(
      deps.fd,
      {
        take: () => session.#take(),
        idle: () => session.#onIdle(),
        awake: deps.onAwake ?? (() => {}),
        get pending() {
          return session.#pending.size;
        },
      },
      this.#options.spinMicroseconds,
    );
  }

  /** What was agreed with the kernel: for `resume` in a later process. Null before FUSE_INIT. */
  get negotiated(): Negotiated | null {
    return this.#negotiated;
  }

  /** How many requests have been read so far. */
  get taken(): number {
    return this.#taken;
  }

  /** Requests whose methods have not answered yet. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Serves a mount that nobody has served yet. */
  start(): void {
    setNonBlocking(this.#fd, true);
    this.#loop.start();
  }

  /**
   * Goes on where an earlier session ended, in whatever way. `negotiated`: what that had agreed; null only if it never
   * came to that (the kernel then sends FUSE_INIT again). Answers whether requests that were in flight come again; "unsupported": kernels before 6.9 keep them, and
   * those who wait for them, until `fail` answers them.
   */
  resume(negotiated: Negotiated | null): "resent" | "unsupported" {
    if (negotiated !== null) this.#agree(negotiated);
    this.start();
    const result = this.notify.resend();
    if (result === -EINVAL || result === -ENOSYS) return "unsupported";
    if (result < 0 && result !== -ENODEV)
      this.#logger.error("cannot have requests resent", { errno: errnoName(result) });
    return "resent";
  }

  /**
   * Reads no more requests, waits up to `graceMs` for those under way, and answers how many are left (a successor gets
   * them again). The descriptor stays open.
   */
  async stop(graceMs: number): Promise<number> {
    this.#loop.stop();
    if (this.#pending.size > 0 && graceMs > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#onDrained = resolve;
      const timer = setTimeout(resolve, graceMs);
      await promise;
      clearTimeout(timer);
    }
    this.#end("stopped");
    return this.#pending.size;
  }

  /** Answers a request with an error that another process read and can answer no more. */
  fail(unique: bigint, errno: number): void {
    this.#sendError(Number(unique & 0xffff_ffffn), Number(unique >> 32n), -errno);
  }

  #take(): typeof TAKEN | typeof NOTHING | typeof GONE {
    const frame = this.#frame;
    const received = read(this.#fd, frame.bytes);
    if (received > 0) {
      this.#taken++;
      this.#handle(frame, received);
      return TAKEN;
    }
    // ENOENT: the request was given up just before it was read
    if (received === -EAGAIN) return NOTHING;
    if (received === -EINTR || received === -ENOENT) return TAKEN;
    if (received === -ENODEV || received === -ECONNABORTED || received === 0) {
      this.#destroy();
      this.#end("unmounted");
      return GONE;
    }
    throw new Error(`Cannot read from the FUSE device: ${errnoName(received)}`);
  }

  #handle(frame: Frame, received: number): void {
    frame.extendedSetxattr = this.#extendedSetxattr;
    const problem = frame.parse(received);
    const { words } = frame;
    if (problem !== null) {
      this.#malformed(words, received, problem);
      return;
    }
    switch (word(words, WORD_OPCODE)) {
      case abi.FUSE_FORGET:
        this.#forget(number64(words, WORD_NODE), number64(words, WORD_BODY));
        return;
      case abi.FUSE_BATCH_FORGET: {
        const end = WORD_BODY + 2 + word(words, WORD_BODY) * 4;
        for (let at = WORD_BODY + 2; at < end; at += 4) this.#forget(number64(words, at), number64(words, at + 2));
        return;
      }
      case abi.FUSE_INTERRUPT:
        this.#interrupt(uniqueKey(word(words, WORD_BODY), word(words, WORD_BODY + 1)));
        return;
      case abi.FUSE_INIT:
        this.#init(words);
        return;
      case abi.FUSE_DESTROY:
        this.#destroy();
        this.#sendError(word(words, WORD_UNIQUE), word(words, WORD_UNIQUE + 1), 0);
        return;
    }
    const call = this.#call;
    if (this.#early.size > 0) {
      const key = uniqueKey(word(words, WORD_UNIQUE), word(words, WORD_UNIQUE + 1));
      call.interrupted = this.#early.delete(key);
    }
    let answer: number | Promise<number>;
    try {
      answer = dispatch(this.#fs, call, frame, this.#payload, this.#dontMask);
    } catch (error) {
      answer = this.#bug(call, error);
    }
    if (typeof answer === "number") this.#reply(call, answer, this.#payload);
    else this.#park(call, answer);
  }

  #forget(node: number, lookups: number): void {
    try {
      this.#fs.forget(node, lookups);
    } catch (error) {
      this.#logger.error("a request failed by a bug", { request: "FORGET", node, cause: stackOf(error) });
    }
  }

  #malformed(words: Uint32Array, received: number, problem: string): void {
    const opcode = received >= 8 ? word(words, WORD_OPCODE) : -1;
    this.#logger.error("malformed request", { problem, opcode: abi.opcodeName(opcode), received });
    const silent = opcode === abi.FUSE_FORGET || opcode === abi.FUSE_BATCH_FORGET || opcode === abi.FUSE_INTERRUPT;
    if (received >= 16 && !silent) this.#sendError(word(words, WORD_UNIQUE), word(words, WORD_UNIQUE + 1), -EPROTO);
  }

  #init(words: Uint32Array): void {
    const offer = decodeInit(words);
    const taken = negotiate(offer, this.#options, this.#fs.getlk !== undefined && this.#fs.setlk !== undefined);
    const low = word(words, WORD_UNIQUE);
    const high = word(words, WORD_UNIQUE + 1);
    if (typeof taken === "string") {
      this.#logger.error("cannot speak with this kernel", { reason: taken });
      this.#sendError(low, high, -EPROTO);
      return;
    }
    this.#agree(taken);
    this.#fs.init?.(taken);
    putInit(this.#small, offer, taken, this.#options);
    this.#send(this.#small, INIT_OUT_BYTES, low, high);
  }

  #agree(negotiated: Negotiated): void {
    this.#negotiated = negotiated;
    this.#dontMask = (negotiated.flags & abi.FUSE_DONT_MASK) !== 0n;
    this.#extendedSetxattr = (negotiated.flags & abi.FUSE_SETXATTR_EXT) !== 0n;
    if (negotiated.maxWriteBytes <= this.#maxWriteBytes) return;
    this.#maxWriteBytes = negotiated.maxWriteBytes;
    this.#frame = this.#frames.take();
    this.#payload = this.#payloads.take();
  }

  /** The method has to wait: its request leaves with the call and the buffers that it still needs. */
  #park(call: Call, answer: Promise<number>): void {
    if (call.opcode === abi.FUSE_WRITE || call.opcode === abi.FUSE_SETXATTR) {
      call.frame = this.#frame;
      this.#frame = this.#frames.take();
    }
    if (call.reply === replies.REPLY_BYTES || call.reply === replies.REPLY_DIRECTORY) {
      call.payload = this.#payload;
      this.#payload = this.#payloads.take();
    }
    this.#call = this.#calls.take();
    this.#pending.set(uniqueKey(call.uniqueLow, call.uniqueHigh), call);
    answer.then(
      (result) => this.#finish(call, result),
      (error) => this.#finish(call, this.#bug(call, error)),
    );
  }

  #finish(call: Call, result: number): void {
    this.#pending.delete(uniqueKey(call.uniqueLow, call.uniqueHigh));
    this.#reply(call, result, call.payload ?? this.#payload);
    if (call.frame !== null) this.#frames.give(call.frame);
    if (call.payload !== null) this.#payloads.give(call.payload);
    call.frame = null;
    call.payload = null;
    this.#calls.give(call);
    if (this.#pending.size === 0) {
      this.#onDrained?.();
      this.#onDrained = null;
    }
  }

  #reply(call: Call, result: number, payload: ReplyBuffer): void {
    if (!(result >= 0)) {
      this.#sendError(call.uniqueLow, call.uniqueHigh, this.#validErrno(call, result));
      return;
    }
    const small = this.#small;
    const { words } = small;
    let bytes = 0;
    switch (call.reply) {
      case replies.REPLY_ENTRY:
        encode.putEntry(words, WORD_REPLY, call.entry);
        bytes = encode.ENTRY_BYTES;
        break;
      case replies.REPLY_ATTR:
        encode.putAttr(words, WORD_REPLY, call.attributes);
        bytes = encode.ATTR_BYTES;
        break;
      case replies.REPLY_OPEN:
        encode.putOpen(words, WORD_REPLY, call.open);
        bytes = encode.OPEN_BYTES;
        break;
      case replies.REPLY_CREATE:
        encode.putEntry(words, WORD_REPLY, call.entry);
        encode.putOpen(words, WORD_REPLY + encode.ENTRY_BYTES / 4, call.open);
        bytes = encode.ENTRY_BYTES + encode.OPEN_BYTES;
        break;
      case replies.REPLY_BYTES:
        if (result > call.wanted) {
          const error = this.#bug(call, new Error(`${result} bytes answered where ${call.wanted} fit`));
          this.#sendError(call.uniqueLow, call.uniqueHigh, error);
        } else this.#send(payload, result, call.uniqueLow, call.uniqueHigh);
        return;
      case replies.REPLY_DIRECTORY:
        this.#send(payload, call.directory.bytes, call.uniqueLow, call.uniqueHigh);
        return;
      case replies.REPLY_NUMBER:
      case replies.REPLY_NUMBER_64:
        encode.put64(words, WORD_REPLY, result);
        bytes = 8;
        break;
      case replies.REPLY_STATFS:
        encode.putStatfs(words, WORD_REPLY, call.statfs);
        bytes = encode.STATFS_BYTES;
        break;
      case replies.REPLY_LOCK:
        encode.putLock(small, WORD_REPLY, call.lockOut);
        bytes = encode.LOCK_BYTES;
        break;
      case replies.REPLY_STATX:
        encode.putStatx(words, WORD_REPLY, call.statx);
        bytes = encode.STATX_BYTES;
        break;
    }
    this.#send(small, bytes, call.uniqueLow, call.uniqueHigh);
  }

  #send(buffer: ReplyBuffer, bytes: number, uniqueLow: number, uniqueHigh: number): void {
    buffer.header(OUT_HEADER_BYTES + bytes, 0, uniqueLow, uniqueHigh);
    const written = write(this.#fd, buffer.bytes, OUT_HEADER_BYTES + bytes);
    if (written < 0) this.#unsent(written, uniqueLow, uniqueHigh, true);
  }

  /** `error`: 0 or a negative errno. */
  #sendError(uniqueLow: number, uniqueHigh: number, error: number): void {
    const small = this.#small;
    small.header(OUT_HEADER_BYTES, error, uniqueLow, uniqueHigh);
    const written = write(this.#fd, small.bytes, OUT_HEADER_BYTES);
    if (written < 0) this.#unsent(written, uniqueLow, uniqueHigh, false);
  }

  #unsent(result: number, uniqueLow: number, uniqueHigh: number, again: boolean): void {
    // ENOENT: whoever asked has gone. After an unmount the next read says so.
    if (result === -ENOENT || result === -ENODEV || result === -ECONNABORTED) return;
    const unique = uniqueKey(uniqueLow, uniqueHigh);
    this.#logger.error("the kernel refused a reply", { unique, errno: errnoName(result) });
    if (again) this.#sendError(uniqueLow, uniqueHigh, -EIO);
  }

  /** The kernel takes errors from -511 to -1 only. */
  #validErrno(call: Call, result: number): number {
    if (result < 0 && result > -512 && Number.isInteger(result)) return result;
    return this.#bug(call, new Error(`${result} is no errno`));
  }

  #bug(call: Call, error: unknown): number {
    const cause = stackOf(error);
    this.#logger.error("a request failed by a bug", {
      request: abi.opcodeName(call.opcode),
      unique: call.unique,
      cause,
    });
    return -EIO;
  }

  #interrupt(key: number): void {
    const call = this.#pending.get(key);
    if (call !== undefined) {
      call.abort();
      return;
    }
    // answered already, or about to come (a request that is sent again, with its INTERRUPT)
    if (this.#early.size >= maxEarlyInterrupts) this.#early.clear();
    this.#early.add(key);
  }

  #destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#fs.destroy?.();
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
