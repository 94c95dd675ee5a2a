/**
 * Replies to the kernel, written into buffers that are used again. The functions take the place of a structure in
 * 32-bit words and answer nothing; whoever calls them knows its size.
 */
import type { ByteString } from "../util/byte-string.ts";
import { type FileAttr, S_IFMT } from "../util/file-attr.ts";
import { STATX_BASIC_STATS, STATX_BTIME } from "./abi.ts";
import type { AttrOut, DirectoryOut, EntryOut, LockOut, NodeId, OpenOut, StatfsOut, StatxOut } from "./filesystem.ts";

/** `struct fuse_out_header`. */
export const OUT_HEADER_BYTES = 16;
/** Where the reply itself begins, in words. */
export const WORD_REPLY = 4;

export const ENTRY_BYTES = 128;
export const ATTR_BYTES = 104;
export const OPEN_BYTES = 16;
export const STATFS_BYTES = 80;
export const STATX_BYTES = 288;
export const LOCK_BYTES = 24;

const empty = new Uint8Array(0);

/** A buffer for replies: a header of 16 bytes and room for `capacity` more. */
export class ReplyBuffer {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  readonly quads: BigUint64Array;
  readonly capacity: number;
  #payload: Uint8Array = empty;

  constructor(capacity: number) {
    const bytes = Math.ceil(capacity / 8) * 8 + OUT_HEADER_BYTES;
    this.capacity = bytes - OUT_HEADER_BYTES;
    this.bytes = Buffer.allocUnsafeSlow(bytes);
    this.words = new Uint32Array(this.bytes.buffer);
    this.quads = new BigUint64Array(this.bytes.buffer);
  }

  /** The first bytes behind the header. A view is made only where the last one had another size. */
  payload(bytes: number): Uint8Array {
    if (this.#payload.byteLength !== bytes) {
      this.#payload = bytes === 0 ? empty : this.bytes.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + bytes);
    }
    return this.#payload;
  }

  /** `error`: 0 or a negative errno. */
  header(bytes: number, error: number, uniqueLow: number, uniqueHigh: number): void {
    const { words } = this;
    words[0] = bytes;
    words[1] = error;
    words[2] = uniqueLow;
    words[3] = uniqueHigh;
  }
}

/** Whole numbers, also negative ones, of at most 53 bits. */
export function put64(words: Uint32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = value >= 0 ? value / 2 ** 32 : Math.floor(value / 2 ** 32);
}

/** Seconds at `at`, nanoseconds at `nsecAt`. */
function putValidity(words: Uint32Array, at: number, nsecAt: number, seconds: number): void {
  const whole = Math.min(Math.floor(seconds), 2 ** 32);
  put64(words, at, whole);
  words[nsecAt] = seconds === whole || whole === 2 ** 32 ? 0 : (seconds - whole) * 1e9;
}

/** `struct fuse_attr`, 88 bytes. */
export function putFileAttr(words: Uint32Array, at: number, attr: FileAttr): void {
  put64(words, at, attr.ino);
  put64(words, at + 2, attr.size);
  put64(words, at + 4, attr.blocks);
  put64(words, at + 6, attr.atime);
  put64(words, at + 8, attr.mtime);
  put64(words, at + 10, attr.ctime);
  words[at + 12] = attr.atimeNsec;
  words[at + 13] = attr.mtimeNsec;
  words[at + 14] = attr.ctimeNsec;
  words[at + 15] = attr.mode;
  words[at + 16] = attr.nlink;
  words[at + 17] = attr.uid;
  words[at + 18] = attr.gid;
  words[at + 19] = attr.rdev;
  words[at + 20] = attr.blksize;
  words[at + 21] = 0;
}

/** `struct fuse_entry_out`. The generation is always 0: a node id is never used twice. */
export function putEntry(words: Uint32Array, at: number, entry: EntryOut): void {
  put64(words, at, entry.nodeId);
  put64(words, at + 2, 0);
  putValidity(words, at + 4, at + 8, entry.entryValidSeconds);
  putValidity(words, at + 6, at + 9, entry.attrValidSeconds);
  putFileAttr(words, at + 10, entry.attr);
}

/** `struct fuse_attr_out`. */
export function putAttr(words: Uint32Array, at: number, out: AttrOut): void {
  putValidity(words, at, at + 2, out.attrValidSeconds);
  words[at + 3] = 0;
  putFileAttr(words, at + 4, out.attr);
}

/** `struct fuse_open_out`. */
export function putOpen(words: Uint32Array, at: number, open: OpenOut): void {
  put64(words, at, open.handle);
  words[at + 2] = open.openFlags;
  words[at + 3] = 0;
}

/** `struct fuse_statfs_out`. */
export function putStatfs(words: Uint32Array, at: number, out: StatfsOut): void {
  put64(words, at, out.blocks);
  put64(words, at + 2, out.freeBlocks);
  put64(words, at + 4, out.availableBlocks);
  put64(words, at + 6, out.files);
  put64(words, at + 8, out.freeFiles);
  words[at + 10] = out.blockSizeBytes;
  words[at + 11] = out.maxNameBytes;
  words[at + 12] = out.blockSizeBytes;
  words.fill(0, at + 13, at + 20);
}

/** `struct fuse_statx_out`. */
export function putStatx(words: Uint32Array, at: number, out: StatxOut): void {
  const { attr } = out;
  words.fill(0, at, at + STATX_BYTES / 4);
  putValidity(words, at, at + 2, out.attrValidSeconds);
  const stat = at + 8;
  words[stat] = out.btime === null ? STATX_BASIC_STATS : STATX_BASIC_STATS | STATX_BTIME;
  words[stat + 1] = attr.blksize;
  words[stat + 4] = attr.nlink;
  words[stat + 5] = attr.uid;
  words[stat + 6] = attr.gid;
  words[stat + 7] = attr.mode;
  put64(words, stat + 8, attr.ino);
  put64(words, stat + 10, attr.size);
  put64(words, stat + 12, attr.blocks);
  put64(words, stat + 16, attr.atime);
  words[stat + 18] = attr.atimeNsec;
  if (out.btime !== null) {
    put64(words, stat + 20, out.btime.seconds);
    words[stat + 22] = out.btime.nsec;
  }
  put64(words, stat + 24, attr.ctime);
  words[stat + 26] = attr.ctimeNsec;
  put64(words, stat + 28, attr.mtime);
  words[stat + 30] = attr.mtimeNsec;
  // new_encode_dev: the minor number's low byte, 12 bits of major, the rest of the minor number
  words[stat + 32] = (attr.rdev >>> 8) & 0xfff;
  words[stat + 33] = (attr.rdev & 0xff) | ((attr.rdev >>> 12) & 0xfff00);
}

const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const lockTypes = { read: F_RDLCK, write: F_WRLCK, unlock: F_UNLCK } as const;

/** `struct fuse_lk_out`. */
export function putLock(buffer: ReplyBuffer, at: number, lock: LockOut): void {
  buffer.quads[at / 2] = lock.start;
  buffer.quads[at / 2 + 1] = lock.end;
  buffer.words[at + 4] = lockTypes[lock.type];
  buffer.words[at + 5] = lock.pid;
}

/** `struct fuse_dirent` without the name. */
const DIRENT_BYTES = 24;

/** Directory entries behind the header of a `ReplyBuffer`, each aligned to 8 bytes. */
export class DirectoryWriter implements DirectoryOut {
  #buffer: ReplyBuffer | null = null;
  #limit = 0;
  #at = 0;

  /** Begins a listing of at most `bytes` bytes. */
  begin(buffer: ReplyBuffer, bytes: number): void {
    this.#buffer = buffer;
    this.#at = OUT_HEADER_BYTES;
    this.#limit = OUT_HEADER_BYTES + Math.min(bytes, buffer.capacity);
  }

  /** How long the listing is. */
  get bytes(): number {
    return this.#at - OUT_HEADER_BYTES;
  }

  add(name: ByteString, ino: NodeId, type: number, cookie: bigint): boolean {
    return this.#dirent(this.#at, name, ino, type, cookie);
  }

  addPlus(name: ByteString, entry: EntryOut, type: number, cookie: bigint): boolean {
    const at = this.#at;
    if (this.#buffer === null || at + ENTRY_BYTES > this.#limit) return false;
    if (!this.#dirent(at + ENTRY_BYTES, name, entry.attr.ino, type, cookie)) return false;
    putEntry(this.#buffer.words, at / 4, entry);
    return true;
  }

  #dirent(at: number, name: ByteString, ino: number, type: number, cookie: bigint): boolean {
    const buffer = this.#buffer;
    const end = at + DIRENT_BYTES + ((name.length + 7) & ~7);
    if (buffer === null || end > this.#limit) return false;
    const { words } = buffer;
    const place = at / 4;
    put64(words, place, ino);
    buffer.quads[at / 8 + 1] = cookie;
    words[place + 4] = name.length;
    words[place + 5] = (type & S_IFMT) >>> 12;
    if (end > at + DIRENT_BYTES) {
      words[end / 4 - 1] = 0; // the padding behind the name
      words[end / 4 - 2] = 0;
    }
    buffer.bytes.write(name, at + DIRENT_BYTES, "latin1");
    this.#at = end;
    return true;
  }
}
