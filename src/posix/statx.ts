/**
 * statx: one layout on all machines (`struct statx` in `linux/stat.h`), and the only call that says whether a name is a
 * mount point. Decoded in place into a `FileAttr`.
 */
import type { ByteString } from "../util/byte-string.ts";
import { EXDEV } from "../util/errno.ts";
import { type FileAttr, foldIno } from "../util/file-attr.ts";
import { architecture } from "./architecture.ts";
import { AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW } from "./constants.ts";
import { cString, declare, sys } from "./libc.ts";

const callStatx = declare("long syscall(long number, long dirfd, void *path, long flags, long mask, void *into)");

const STATX_BASIC_STATS = 0x7ff;
const STATX_ATTR_MOUNT_ROOT = 0x2000;
const raw = new Uint32Array(64);

/** A name in a directory, not followed; EXDEV if another file system is mounted there. `attr` may be null. */
export function statxBelow(directoryFd: number, name: ByteString, attr: FileAttr | null): number {
  const result = call(directoryFd, cString(name), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
  if (result < 0) return result;
  if (((raw[2] as number) & STATX_ATTR_MOUNT_ROOT) !== 0) return -EXDEV;
  if (attr !== null) decodeStatx(raw, attr);
  return 0;
}

const nothing = Buffer.alloc(1);

/** An open file, also one opened with O_PATH. */
export function statxFd(fd: number, attr: FileAttr): number {
  const result = call(fd, nothing, AT_EMPTY_PATH);
  if (result === 0) decodeStatx(raw, attr);
  return result;
}

/** A path of the program's own, links followed. */
export function statxPath(path: ByteString, attr: FileAttr): number {
  const result = call(AT_FDCWD, cString(path), 0);
  if (result === 0) decodeStatx(raw, attr);
  return result;
}

function call(fd: number, path: Buffer, flags: number): number {
  return sys(callStatx(architecture.call.statx, fd, path, flags, STATX_BASIC_STATS, raw));
}

/** The device that holds the file of the last successful call, as one number to compare. */
export function lastStatxDevice(): number {
  return word(raw, 34) * 2 ** 32 + word(raw, 35);
}

export function decodeStatx(words: Uint32Array, attr: FileAttr): void {
  attr.blksize = word(words, 1);
  attr.nlink = word(words, 4);
  attr.uid = word(words, 5);
  attr.gid = word(words, 6);
  attr.mode = word(words, 7) & 0xffff;
  attr.ino = foldIno(word(words, 8), word(words, 9));
  attr.size = word(words, 11) * 2 ** 32 + word(words, 10);
  attr.blocks = word(words, 13) * 2 ** 32 + word(words, 12);
  attr.atime = (word(words, 17) | 0) * 2 ** 32 + word(words, 16);
  attr.atimeNsec = word(words, 18);
  attr.ctime = (word(words, 25) | 0) * 2 ** 32 + word(words, 24);
  attr.ctimeNsec = word(words, 26);
  attr.mtime = (word(words, 29) | 0) * 2 ** 32 + word(words, 28);
  attr.mtimeNsec = word(words, 30);
  attr.rdev = encodeDev(word(words, 32), word(words, 33));
}

/** `new_encode_dev` of `linux/kdev_t.h`. */
export function encodeDev(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

function word(words: Uint32Array, at: number): number {
  return words[at] as number;
}
