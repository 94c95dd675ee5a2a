/**
 * FUSE_INIT: what the kernel offers, what we take, and the answer. Pure.
 *
 * Why each: MAX_PAGES for requests of 1 MiB; ASYNC_READ and ASYNC_DIO for several reads of one file at once;
 * PARALLEL_DIROPS for lookups beside each other; EXPLICIT_INVAL_DATA because this kernel is the only one to change
 * anything, so nothing but us invalidates its pages; CACHE_SYMLINKS likewise.
 *
 * Not ATOMIC_O_TRUNC, though it would save a SETATTR: with it OPEN truncates, and only then does the kernel find that a
 * file opened by O_RDONLY | O_TRUNC is a program that runs (do_open() in fs/namei.c). The caller would get ETXTBSY, and
 * the program have lost its pages.
 *
 * HANDLE_KILLPRIV_V2 (and not the first version, where each write(2) would ask for `security.capability` first): the
 * kernel tells with each write, truncation and chown whether set-id bits must go, because only it knows the caller's
 * capabilities; the file system, running as root on its backends, clears them.
 */
import * as abi from "./abi.ts";
import { IN_HEADER_BYTES, WORD_BODY, word } from "./decode.ts";
import { type ReplyBuffer, WORD_REPLY } from "./encode.ts";
import type { Negotiated } from "./filesystem.ts";

export interface SessionOptions {
  /** Largest WRITE and READ. The kernel allows up to 256 pages by default (`fs.fuse.max_pages_limit`). */
  readonly maxWriteBytes: number;
  /** How many background requests (readahead, writeback) the kernel keeps in flight. */
  readonly maxBackground: number;
  readonly writebackCache: boolean;
  /** Access control lists are kept by the file system and checked by the kernel; implies FUSE_DONT_MASK. */
  readonly posixAcl: boolean;
  readonly readdirPlus: "auto" | "always" | "never";
  /** How long to look for the next request before sleeping, where that pays. 0: never. */
  readonly spinMicroseconds: number;
}

export const defaultSessionOptions: SessionOptions = {
  maxWriteBytes: 1 << 20,
  maxBackground: 64,
  writebackCache: false,
  posixAcl: false,
  readdirPlus: "auto",
  spinMicroseconds: 50,
};

export interface Offer {
  readonly major: number;
  readonly minor: number;
  readonly maxReadaheadBytes: number;
  readonly flags: bigint;
}

/** Of a parsed INIT request. */
export function decodeInit(words: Uint32Array): Offer {
  const low = BigInt(word(words, WORD_BODY + 3));
  const extended = (low & abi.FUSE_INIT_EXT) !== 0n && word(words, 0) >= IN_HEADER_BYTES + 20;
  const high = extended ? BigInt(word(words, WORD_BODY + 4)) : 0n;
  return {
    major: word(words, WORD_BODY),
    minor: word(words, WORD_BODY + 1),
    maxReadaheadBytes: word(words, WORD_BODY + 2),
    flags: (high << 32n) | low,
  };
}

/** What the session takes of an offer; a sentence if they cannot speak with each other. */
export function negotiate(offer: Offer, options: SessionOptions, locks: boolean): Negotiated | string {
  if (offer.major !== abi.FUSE_KERNEL_VERSION || offer.minor < abi.FUSE_MINIMUM_MINOR_VERSION) {
    return (
      `the kernel speaks FUSE ${offer.major}.${offer.minor}, ` +
      `but ${abi.FUSE_KERNEL_VERSION}.${abi.FUSE_MINIMUM_MINOR_VERSION} (Linux 5.4) is needed`
    );
  }
  let wanted =
    abi.FUSE_ASYNC_READ |
    abi.FUSE_BIG_WRITES |
    abi.FUSE_ASYNC_DIO |
    abi.FUSE_PARALLEL_DIROPS |
    abi.FUSE_MAX_PAGES |
    abi.FUSE_CACHE_SYMLINKS |
    abi.FUSE_NO_OPENDIR_SUPPORT |
    abi.FUSE_EXPLICIT_INVAL_DATA |
    abi.FUSE_HANDLE_KILLPRIV_V2 |
    abi.FUSE_SETXATTR_EXT |
    abi.FUSE_INIT_EXT |
    abi.FUSE_HAS_EXPIRE_ONLY |
    abi.FUSE_HAS_RESEND;
  if (options.readdirPlus !== "never") wanted |= abi.FUSE_DO_READDIRPLUS;
  if (options.readdirPlus === "auto") wanted |= abi.FUSE_READDIRPLUS_AUTO;
  if (options.writebackCache) wanted |= abi.FUSE_WRITEBACK_CACHE;
  if (options.posixAcl) wanted |= abi.FUSE_POSIX_ACL | abi.FUSE_DONT_MASK;
  if (locks) wanted |= abi.FUSE_POSIX_LOCKS | abi.FUSE_FLOCK_LOCKS;
  const flags = wanted & offer.flags;
  const most = (flags & abi.FUSE_MAX_PAGES) !== 0n ? options.maxWriteBytes : Math.min(options.maxWriteBytes, 32 * 4096);
  return { minor: Math.min(offer.minor, abi.FUSE_KERNEL_MINOR_VERSION), flags, maxWriteBytes: most };
}

export const INIT_OUT_BYTES = 64;

/** `struct fuse_init_out`. */
export function putInit(reply: ReplyBuffer, offer: Offer, taken: Negotiated, options: SessionOptions): void {
  const { words } = reply;
  const at = WORD_REPLY;
  words.fill(0, at, at + INIT_OUT_BYTES / 4);
  words[at] = abi.FUSE_KERNEL_VERSION;
  words[at + 1] = taken.minor;
  words[at + 2] = offer.maxReadaheadBytes;
  words[at + 3] = Number(taken.flags & 0xffff_ffffn);
  words[at + 4] = options.maxBackground | (Math.ceil(options.maxBackground * 0.75) << 16);
  words[at + 5] = taken.maxWriteBytes;
  words[at + 6] = 1; // nanoseconds
  words[at + 7] = Math.ceil(taken.maxWriteBytes / 4096);
  words[at + 8] = Number(taken.flags >> 32n);
}

/**
 * May a file that is open for writing only be written past the kernel's page cache (FOPEN_DIRECT_IO) while others read it
 * through that cache? Since Linux 6.18 (7.45) the kernel drops the pages once more after such a write, so that a read beside
 * it leaves no old ones (`fuse_direct_io`). With the write-back cache it is the cache that was asked for.
 */
export function mayWritePastCache(negotiated: Negotiated): boolean {
  return negotiated.minor >= 45 && (negotiated.flags & abi.FUSE_WRITEBACK_CACHE) === 0n;
}
