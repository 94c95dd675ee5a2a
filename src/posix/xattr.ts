/**
 * Extended attributes of a name in a directory, never following a link there. There are no *at calls for these before
 * Linux 6.13, so names go by `/proc/self/fd/N/name`: the magic link leads to the directory that the descriptor holds.
 * With an empty name, the descriptor's own file (not a symbolic link). A size of 0 asks for the length.
 */
import type { ByteString } from "../util/byte-string.ts";
import { cString, declare, otherCString, sys } from "./libc.ts";

const signature = {
  get: "(void *path, void *name, void *value, size_t bytes)",
  set: "(void *path, void *name, void *value, size_t bytes, int flags)",
  list: "(void *path, void *list, size_t bytes)",
  remove: "(void *path, void *name)",
};
const callGet = declare(`int64_t getxattr${signature.get}`);
const callLget = declare(`int64_t lgetxattr${signature.get}`);
const callSet = declare(`int setxattr${signature.set}`);
const callLset = declare(`int lsetxattr${signature.set}`);
const callList = declare(`int64_t listxattr${signature.list}`);
const callLlist = declare(`int64_t llistxattr${signature.list}`);
const callRemove = declare(`int removexattr${signature.remove}`);
const callLremove = declare(`int lremovexattr${signature.remove}`);

/** A trailing slash would follow, so a descriptor itself is named without one, and by the calls that follow magic links. */
function place(fd: number, file: ByteString): Buffer {
  return cString(file === "" ? `/proc/self/fd/${fd}` : `/proc/self/fd/${fd}/${file}`);
}

export function getxattrat(fd: number, file: ByteString, name: ByteString, into: Uint8Array): number {
  const call = file === "" ? callGet : callLget;
  return sys(call(place(fd, file), otherCString(name), into, into.byteLength));
}

/** `flags`: 0, XATTR_CREATE or XATTR_REPLACE. */
export function setxattrat(fd: number, file: ByteString, name: ByteString, value: Uint8Array, flags: number): number {
  const call = file === "" ? callSet : callLset;
  return sys(call(place(fd, file), otherCString(name), value, value.byteLength, flags));
}

/** Names one after the other, each with a NUL. */
export function listxattrat(fd: number, file: ByteString, into: Uint8Array): number {
  const call = file === "" ? callList : callLlist;
  return sys(call(place(fd, file), into, into.byteLength));
}

export function removexattrat(fd: number, file: ByteString, name: ByteString): number {
  const call = file === "" ? callRemove : callLremove;
  return sys(call(place(fd, file), otherCString(name)));
}
