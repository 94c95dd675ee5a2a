/**
 * Requests of the kernel. A `Frame` is the buffer that one read(2) fills, and what is known of it after `parse`.
 *
 * - `parse` checks the whole request against its layout: nothing shorter, longer, unterminated or out of bounds passes,
 *   so fields are then read from `words` and `quads` by fixed places, without further checks.
 * - A name that passes is one path component: not empty, not "." or "..", without a slash or NUL. Whoever uses it in a
 *   directory cannot be led out of that directory.
 * - Nothing is copied: `data` is a part of the buffer. Names become strings, so only requests with data need the buffer
 *   beyond `parse` and the reading of their fields.
 */
import type { ByteString } from "../util/byte-string.ts";
import * as abi from "./abi.ts";

/** `struct fuse_in_header`; the places of its fields in 32-bit words. */
export const IN_HEADER_BYTES = 40;
export const WORD_LENGTH = 0;
export const WORD_OPCODE = 1;
export const WORD_UNIQUE = 2;
export const WORD_NODE = 4;
export const WORD_UID = 6;
export const WORD_GID = 7;
export const WORD_PID = 8;
const WORD_EXTENSIONS = 9;
/** Where the fields of a request itself begin. */
export const WORD_BODY = 10;
/** The same as a place in 64-bit words. */
export const QUAD_BODY = 5;

/** What follows the fixed fields of a request. */
const NOTHING = 0;
/** One component. */
const NAME = 1;
/** Two components. */
const TWO_NAMES = 2;
/** A component, and a path of any form. */
const NAME_AND_TARGET = 3;
/** The name of an attribute. */
const ATTRIBUTE = 4;
/** The name of an attribute and as many bytes as the first field says. */
const ATTRIBUTE_AND_VALUE = 5;
/** As many bytes as `fuse_write_in.size` says. */
const DATA = 6;
/** As many `struct fuse_forget_one` as the first field says. */
const FORGETS = 7;
/** Not looked at. */
const ANYTHING = 8;

const opcodes = 64;
const fixedBytes = new Int16Array(opcodes).fill(-1);
const tails = new Uint8Array(opcodes);

function layout(opcode: number, bytes: number, tail: number): void {
  fixedBytes[opcode] = bytes;
  tails[opcode] = tail;
}
layout(abi.FUSE_LOOKUP, 0, NAME);
layout(abi.FUSE_FORGET, 8, NOTHING);
layout(abi.FUSE_GETATTR, 16, NOTHING);
layout(abi.FUSE_SETATTR, 88, NOTHING);
layout(abi.FUSE_READLINK, 0, NOTHING);
layout(abi.FUSE_SYMLINK, 0, NAME_AND_TARGET);
layout(abi.FUSE_MKNOD, 16, NAME);
layout(abi.FUSE_MKDIR, 8, NAME);
layout(abi.FUSE_UNLINK, 0, NAME);
layout(abi.FUSE_RMDIR, 0, NAME);
layout(abi.FUSE_RENAME, 8, TWO_NAMES);
layout(abi.FUSE_RENAME2, 16, TWO_NAMES);
layout(abi.FUSE_LINK, 8, NAME);
layout(abi.FUSE_OPEN, 8, NOTHING);
layout(abi.FUSE_OPENDIR, 8, NOTHING);
layout(abi.FUSE_READ, 40, NOTHING);
layout(abi.FUSE_READDIR, 40, NOTHING);
layout(abi.FUSE_READDIRPLUS, 40, NOTHING);
layout(abi.FUSE_WRITE, 40, DATA);
layout(abi.FUSE_STATFS, 0, NOTHING);
layout(abi.FUSE_RELEASE, 24, NOTHING);
layout(abi.FUSE_RELEASEDIR, 24, NOTHING);
layout(abi.FUSE_FSYNC, 16, NOTHING);
layout(abi.FUSE_FSYNCDIR, 16, NOTHING);
layout(abi.FUSE_SETXATTR, 8, ATTRIBUTE_AND_VALUE); // 16 with FUSE_SETXATTR_EXT
layout(abi.FUSE_GETXATTR, 8, ATTRIBUTE);
layout(abi.FUSE_LISTXATTR, 8, NOTHING);
layout(abi.FUSE_REMOVEXATTR, 0, ATTRIBUTE);
layout(abi.FUSE_FLUSH, 24, NOTHING);
layout(abi.FUSE_INIT, 16, ANYTHING); // grows with the protocol
layout(abi.FUSE_GETLK, 48, NOTHING);
layout(abi.FUSE_SETLK, 48, NOTHING);
layout(abi.FUSE_SETLKW, 48, NOTHING);
layout(abi.FUSE_ACCESS, 8, NOTHING);
layout(abi.FUSE_CREATE, 16, NAME);
layout(abi.FUSE_TMPFILE, 16, ANYTHING); // the kernel sends the name "/"
layout(abi.FUSE_INTERRUPT, 8, NOTHING);
layout(abi.FUSE_BMAP, 16, NOTHING);
layout(abi.FUSE_DESTROY, 0, NOTHING);
layout(abi.FUSE_IOCTL, 32, ANYTHING);
layout(abi.FUSE_POLL, 24, NOTHING);
layout(abi.FUSE_BATCH_FORGET, 8, FORGETS);
layout(abi.FUSE_FALLOCATE, 32, NOTHING);
layout(abi.FUSE_LSEEK, 24, NOTHING);
layout(abi.FUSE_COPY_FILE_RANGE, 56, NOTHING);
layout(abi.FUSE_COPY_FILE_RANGE_64, 56, NOTHING);
layout(abi.FUSE_SYNCFS, 8, NOTHING);
layout(abi.FUSE_STATX, 24, NOTHING);

const empty = new Uint8Array(0);

export class Frame {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  readonly quads: BigUint64Array;
  /** The first name of the request. */
  name: ByteString = "";
  /** The second name, or the target of a symbolic link. */
  secondName: ByteString = "";
  /** SETXATTR comes in its longer form (FUSE_SETXATTR_EXT). */
  extendedSetxattr = false;
  #data: Uint8Array = empty;

  /** `bytes` must hold the largest request: the kernel refuses to be read into less (EINVAL). */
  constructor(bytes: number) {
    const aligned = Math.ceil(bytes / 8) * 8;
    this.bytes = Buffer.allocUnsafeSlow(aligned);
    this.words = new Uint32Array(this.bytes.buffer, 0, aligned / 4);
    this.quads = new BigUint64Array(this.bytes.buffer, 0, aligned / 8);
  }

  /** What WRITE writes, or the value of SETXATTR: a part of this buffer, good until the buffer is read into again. */
  get data(): Uint8Array {
    return this.#data;
  }

  /** Checks a request of `received` bytes and takes it apart. Answers what is wrong with it, null if nothing is. */
  parse(received: number): string | null {
    const { words } = this;
    if (received < IN_HEADER_BYTES) return "shorter than a header";
    if (word(words, WORD_LENGTH) !== received) return "its length is not what was read";
    const opcode = word(words, WORD_OPCODE);
    const extensionBytes = (word(words, WORD_EXTENSIONS) & 0xffff) * 8;
    const end = received - extensionBytes;
    if (end < IN_HEADER_BYTES) return "its extensions are longer than itself";
    let fixed = opcode < opcodes ? (fixedBytes[opcode] as number) : -1;
    if (fixed < 0) return null; // unknown: answered ENOSYS, whatever it holds
    if (opcode === abi.FUSE_SETXATTR && this.extendedSetxattr) fixed = 16;
    const start = IN_HEADER_BYTES + fixed;
    if (start > end) return "shorter than its fields";
    switch (tails[opcode] as number) {
      case NOTHING:
        return start === end ? null : "longer than its fields";
      case NAME:
        return this.#oneName(start, end);
      case TWO_NAMES:
        return this.#twoNames(start, end, true);
      case NAME_AND_TARGET:
        return this.#twoNames(start, end, false);
      case ATTRIBUTE:
        return this.#attribute(start, end, end);
      case ATTRIBUTE_AND_VALUE: {
        const valueStart = end - word(words, WORD_BODY);
        const problem = this.#attribute(start, valueStart, end);
        if (problem === null) this.#takeData(valueStart, end - valueStart);
        return problem;
      }
      case DATA: {
        const size = word(words, WORD_BODY + 4);
        if (size !== end - start) return "as many bytes of data as it says are not there";
        this.#takeData(start, size);
        return null;
      }
      case FORGETS:
        return start + word(words, WORD_BODY) * 16 === end ? null : "as many nodes as it says are not there";
      default:
        return null;
    }
  }

  #oneName(start: number, end: number): string | null {
    if (start >= end || this.bytes[end - 1] !== 0) return "a name does not end";
    const name = this.bytes.toString("latin1", start, end - 1);
    this.name = name;
    return isComponent(name) ? null : "a name is not one path component";
  }

  #twoNames(start: number, end: number, secondIsComponent: boolean): string | null {
    if (start >= end || this.bytes[end - 1] !== 0) return "a name does not end";
    const middle = this.bytes.indexOf(0, start);
    if (middle >= end - 1) return "a name is missing";
    const name = this.bytes.toString("latin1", start, middle);
    const second = this.bytes.toString("latin1", middle + 1, end - 1);
    this.name = name;
    this.secondName = second;
    if (!isComponent(name)) return "a name is not one path component";
    if (secondIsComponent) return isComponent(second) ? null : "a name is not one path component";
    return second === "" || second.includes("\0") ? "a target is empty or goes on after its end" : null;
  }

  #attribute(start: number, end: number, limit: number): string | null {
    if (start >= end || end > limit || this.bytes[end - 1] !== 0) return "the name of an attribute does not end";
    const name = this.bytes.toString("latin1", start, end - 1);
    this.name = name;
    return name === "" || name.includes("\0") ? "the name of an attribute is empty or goes on after its end" : null;
  }

  /** A view is made only where the last one had another place or size: writes of one size make none. */
  #takeData(start: number, bytes: number): void {
    const data = this.#data;
    if (data.byteLength === bytes && data.byteOffset === start) return;
    this.#data = bytes === 0 ? empty : this.bytes.subarray(start, start + bytes);
  }
}

function isComponent(name: ByteString): boolean {
  const length = name.length;
  if (length === 0) return false;
  if (length <= 2 && name.charCodeAt(0) === 0x2e && (length === 1 || name.charCodeAt(1) === 0x2e)) return false;
  for (let i = 0; i < length; i++) {
    const byte = name.charCodeAt(i);
    if (byte === 0x2f || byte === 0) return false;
  }
  return true;
}

export function word(words: Uint32Array, at: number): number {
  return words[at] as number;
}

export function quad(quads: BigUint64Array, at: number): bigint {
  return quads[at] as bigint;
}

/** A node id or a handle: numbers of ours, which are exact. */
export function number64(words: Uint32Array, at: number): number {
  return word(words, at + 1) * 2 ** 32 + word(words, at);
}

/** An offset or a length. Those past 2^53 - 1 become just that, which no file system takes either (EFBIG). */
export function offset64(words: Uint32Array, at: number): number {
  const high = word(words, at + 1);
  return high >= 0x20_0000 ? Number.MAX_SAFE_INTEGER : high * 2 ** 32 + word(words, at);
}

/** Seconds, which can be negative. */
export function signed64(words: Uint32Array, at: number): number {
  return (word(words, at + 1) | 0) * 2 ** 32 + word(words, at);
}
