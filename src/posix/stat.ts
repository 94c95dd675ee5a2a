/** stat: `struct stat` decoded in place into a `FileAttr`. Device and link target are never followed. */
import type { ByteString } from "../util/byte-string.ts";
import { type FileAttr, foldIno } from "../util/file-attr.ts";
import { architecture, type StatLayout } from "./architecture.ts";
import { AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW } from "./constants.ts";
import { cString, declare, sys } from "./libc.ts";

const { newfstatat, fstat: fstatNumber } = architecture.call;
const callFstatat = declare("long syscall(long number, long dirfd, void *path, void *stat, long flags)");
const callFstat = declare("long syscall(long number, long fd, void *stat)");

const raw = new Uint32Array(architecture.stat.bytes / 4);

/** The attributes of a name in a directory, or with an empty name of `directoryFd` itself (any file). */
export function fstatat(directoryFd: number, name: ByteString, attr: FileAttr): number {
  const result = sys(
    callFstatat(newfstatat, directoryFd, cString(name), raw, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH),
  );
  if (result === 0) decodeStat(raw, architecture.stat, attr);
  return result;
}

export function fstat(fd: number, attr: FileAttr): number {
  const result = sys(callFstat(fstatNumber, fd, raw));
  if (result === 0) decodeStat(raw, architecture.stat, attr);
  return result;
}

/** Whether a name exists: 0 or a negative errno, and nothing decoded. */
export function exists(directoryFd: number, name: ByteString): number {
  return sys(callFstatat(newfstatat, directoryFd, cString(name), raw, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT));
}

/** `st_dev` of the last successful stat of this file, as an opaque number to compare. */
export function lastDevice(): number {
  const at = architecture.stat.dev >> 2;
  return word(raw, at + 1) * 2 ** 32 + word(raw, at);
}

/** `st_rdev` is `new_encode_dev` in its low word already (`cp_new_stat` in `fs/stat.c`). */
export function decodeStat(words: Uint32Array, layout: StatLayout, attr: FileAttr): void {
  attr.ino = foldIno(word(words, layout.ino >> 2), word(words, (layout.ino >> 2) + 1));
  attr.mode = word(words, layout.mode >> 2);
  attr.nlink = word(words, layout.nlink >> 2);
  attr.uid = word(words, layout.uid >> 2);
  attr.gid = word(words, layout.gid >> 2);
  attr.rdev = word(words, layout.rdev >> 2);
  attr.size = unsigned64(words, layout.size >> 2);
  attr.blocks = unsigned64(words, layout.blocks >> 2);
  attr.blksize = word(words, layout.blksize >> 2);
  attr.atime = signed64(words, layout.atime >> 2);
  attr.atimeNsec = word(words, (layout.atime >> 2) + 2);
  attr.mtime = signed64(words, layout.mtime >> 2);
  attr.mtimeNsec = word(words, (layout.mtime >> 2) + 2);
  attr.ctime = signed64(words, layout.ctime >> 2);
  attr.ctimeNsec = word(words, (layout.ctime >> 2) + 2);
}

function word(words: Uint32Array, at: number): number {
  return words[at] as number;
}

function unsigned64(words: Uint32Array, at: number): number {
  return word(words, at + 1) * 2 ** 32 + word(words, at);
}

function signed64(words: Uint32Array, at: number): number {
  return (word(words, at + 1) | 0) * 2 ** 32 + word(words, at);
}
