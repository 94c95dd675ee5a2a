/**
 * Extended attributes of a name in a directory, never following a link there; with an empty name of the descriptor's own
 * file, also one opened with O_PATH. A size of 0 asks for the length.
 *
 * Linux has *at calls for these since 6.13. Before, names go by `/proc/self/fd/N/name`: the magic link leads to the
 * directory that the descriptor holds. The same goes for a descriptor itself, since the *at calls refuse O_PATH there.
 */
import koffi from "koffi";
import type { ByteString } from "../util/byte-string.ts";
import { ENOSYS } from "../util/errno.ts";
import { architecture } from "./architecture.ts";
import { AT_SYMLINK_NOFOLLOW } from "./constants.ts";
import { cString, declare, otherCString, sys } from "./libc.ts";

const number = architecture.call;
const callAt = declare(
  "long syscall(long number, long dirfd, void *path, long flags, void *name, void *args, size_t bytes)",
);
const callListAt = declare(
  "long syscall(long number, long dirfd, void *path, long flags, void *list, size_t bytes, long unused)",
);
const byPath = {
  get: "(void *path, void *name, void *value, size_t bytes)",
  set: "(void *path, void *name, void *value, size_t bytes, int flags)",
  list: "(void *path, void *list, size_t bytes)",
  remove: "(void *path, void *name)",
};
const callGet = declare(`int64_t getxattr${byPath.get}`);
const callLget = declare(`int64_t lgetxattr${byPath.get}`);
const callSet = declare(`int setxattr${byPath.set}`);
const callLset = declare(`int lsetxattr${byPath.set}`);
const callList = declare(`int64_t listxattr${byPath.list}`);
const callLlist = declare(`int64_t llistxattr${byPath.list}`);
const callRemove = declare(`int removexattr${byPath.remove}`);
const callLremove = declare(`int lremovexattr${byPath.remove}`);

let hasAtCalls = true;

/** For tests: the way of older kernels. */
export function useXattrAtCalls(use: boolean): void {
  hasAtCalls = use;
}

/** `struct xattr_args`: the value's address, its size, flags. */
const args = new BigUint64Array(2);
const argWords = new Uint32Array(args.buffer);

function setArgs(value: Uint8Array, flags: number): void {
  args[0] = value.byteLength === 0 ? 0n : koffi.address(value);
  argWords[2] = value.byteLength;
  argWords[3] = flags;
}

function isMissing(result: number): boolean {
  if (result !== -ENOSYS) return false;
  hasAtCalls = false;
  return true;
}

/** A descriptor itself is named without a slash, and by the calls that follow its magic link. */
function place(fd: number, file: ByteString): Buffer {
  return cString(file === "" ? `/proc/self/fd/${fd}` : `/proc/self/fd/${fd}/${file}`);
}

export function getxattrat(fd: number, file: ByteString, name: ByteString, into: Uint8Array): number {
  if (hasAtCalls && file !== "") {
    setArgs(into, 0);
    const path = cString(file);
    const result = sys(callAt(number.getxattrat, fd, path, AT_SYMLINK_NOFOLLOW, otherCString(name), args, 16));
    if (!isMissing(result)) return result;
  }
  const call = file === "" ? callGet : callLget;
  return sys(call(place(fd, file), otherCString(name), into, into.byteLength));
}

/** `flags`: 0, XATTR_CREATE or XATTR_REPLACE. */
export function setxattrat(fd: number, file: ByteString, name: ByteString, value: Uint8Array, flags: number): number {
  if (hasAtCalls && file !== "") {
    setArgs(value, flags);
    const path = cString(file);
    const result = sys(callAt(number.setxattrat, fd, path, AT_SYMLINK_NOFOLLOW, otherCString(name), args, 16));
    if (!isMissing(result)) return result;
  }
  const call = file === "" ? callSet : callLset;
  return sys(call(place(fd, file), otherCString(name), value, value.byteLength, flags));
}

/** Names one after the other, each with a NUL. */
export function listxattrat(fd: number, file: ByteString, into: Uint8Array): number {
  if (hasAtCalls && file !== "") {
    const path = cString(file);
    const result = sys(callListAt(number.listxattrat, fd, path, AT_SYMLINK_NOFOLLOW, into, into.byteLength, 0));
    if (!isMissing(result)) return result;
  }
  const call = file === "" ? callList : callLlist;
  return sys(call(place(fd, file), into, into.byteLength));
}

export function removexattrat(fd: number, file: ByteString, name: ByteString): number {
  if (hasAtCalls && file !== "") {
    const path = cString(file);
    const result = sys(callListAt(number.removexattrat, fd, path, AT_SYMLINK_NOFOLLOW, otherCString(name), 0, 0));
    if (!isMissing(result)) return result;
  }
  const call = file === "" ? callRemove : callLremove;
  return sys(call(place(fd, file), otherCString(name)));
}
