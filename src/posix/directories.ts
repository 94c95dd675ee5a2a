/** Reading directories with getdents64: names as bytes, types as the file system gives them. */
import type { ByteString } from "../util/byte-string.ts";
import { foldIno } from "../util/file-attr.ts";
import { architecture } from "./architecture.ts";
import { declare, sys } from "./libc.ts";

const callGetdents = declare("long syscall(long number, long fd, void *into, long bytes)");

/** Entries as parallel arrays, without `.` and `..`; types are type bits of `st_mode`, 0 for unknown. */
export interface Entries {
  readonly names: ByteString[];
  readonly types: number[];
  readonly inos: number[];
}

const chunk = Buffer.alloc(64 * 1024);
const words = new Uint32Array(chunk.buffer, chunk.byteOffset, chunk.byteLength / 4);

/** Appends the next chunk of entries; answers 0 at the end of the directory. */
export function getdents(fd: number, into: Entries): number {
  const bytes = sys(callGetdents(architecture.call.getdents64, fd, chunk, chunk.byteLength));
  if (bytes > 0) decodeEntries(chunk, words, bytes, into);
  return bytes;
}

/** Reads a directory to its end and keeps nothing; answers 0 or a negative errno. */
export function passEntries(fd: number): number {
  let bytes: number;
  do bytes = sys(callGetdents(architecture.call.getdents64, fd, chunk, chunk.byteLength));
  while (bytes > 0);
  return bytes;
}

/** `struct linux_dirent64`: ino 8, off 8, reclen 2, type 1, name and NUL, then padding (not zeroed) to 8 bytes. */
export function decodeEntries(buffer: Buffer, words: Uint32Array, bytes: number, into: Entries): void {
  const { names, types, inos } = into;
  for (let at = 0; at < bytes; ) {
    const recordBytes = (words[(at >> 2) + 4] as number) & 0xffff;
    const start = at + 19;
    let end = Math.max(start, at + recordBytes - 8);
    while (buffer[end] !== 0) end++;
    const isDots = buffer[start] === 46 && (end === start + 1 || (end === start + 2 && buffer[start + 1] === 46));
    if (!isDots) {
      names.push(buffer.toString("latin1", start, end));
      types.push((buffer[at + 18] as number) << 12);
      inos.push(foldIno(words[at >> 2] as number, words[(at >> 2) + 1] as number));
    }
    at += recordBytes;
  }
}
