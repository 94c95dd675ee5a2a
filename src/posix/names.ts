/**
 * Names in directories: the *at calls. `directoryFd` may be an O_PATH descriptor. None of these follows a symbolic link
 * at `name`; whoever passes a path with slashes has opened its directories safely before.
 */

import type { ByteString } from "../util/byte-string.ts";
import { ENOSYS, EOPNOTSUPP } from "../util/errno.ts";
import { architecture } from "./architecture.ts";
import {
  AT_EMPTY_PATH,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_PATH,
  UTIME_OMIT,
} from "./constants.ts";
import { close, openat } from "./files.ts";
import { cString, declare, otherCString, sys } from "./libc.ts";

const number = architecture.call;
const callMkdirat = declare("int mkdirat(int dirfd, void *path, unsigned int mode)");
const callMknodat = declare("int mknodat(int dirfd, void *path, unsigned int mode, uint64_t dev)");
const callSymlinkat = declare("int symlinkat(void *target, int dirfd, void *path)");
const callLinkat = declare("int linkat(int fromFd, void *from, int toFd, void *to, int flags)");
const callUnlinkat = declare("int unlinkat(int dirfd, void *path, int flags)");
const callRenameat2 = declare("long syscall(long number, long fromFd, void *from, long toFd, void *to, long flags)");
const callReadlinkat = declare("int64_t readlinkat(int dirfd, void *path, void *into, size_t bytes)");
const callFchmodat2 = declare("long syscall(long number, long dirfd, void *path, long mode, long flags)");
const callChmod = declare("int chmod(void *path, unsigned int mode)");
const callFchmod = declare("int fchmod(int fd, unsigned int mode)");
const callFchownat = declare("int fchownat(int dirfd, void *path, unsigned int uid, unsigned int gid, int flags)");
const callFchown = declare("int fchown(int fd, unsigned int uid, unsigned int gid)");
const callUtimensat = declare("int utimensat(int dirfd, void *path, void *times, int flags)");
const callUmask = declare("unsigned int umask(unsigned int mask)");

/** Leaves an owner or group alone in chown. */
export const KEEP_ID = 0xffffffff;

export function mkdirat(directoryFd: number, name: ByteString, mode: number): number {
  return sys(callMkdirat(directoryFd, cString(name), mode));
}

/** `rdev` as in `FileAttr`: glibc and musl pass its low 32 bits on as they are. */
export function mknodat(directoryFd: number, name: ByteString, mode: number, rdev: number): number {
  return sys(callMknodat(directoryFd, cString(name), mode, userDev(rdev)));
}

/** The C library's `dev_t`, which it turns into the kernel's number again: the same as long as both fit in 32 bits. */
function userDev(rdev: number): number {
  return rdev >>> 0;
}

export function symlinkat(target: ByteString, directoryFd: number, name: ByteString): number {
  return sys(callSymlinkat(otherCString(target), directoryFd, cString(name)));
}

/** With an empty `from` and AT_EMPTY_PATH, `fromFd` itself gets the name (needs CAP_DAC_READ_SEARCH). */
export function linkat(fromFd: number, from: ByteString, toFd: number, to: ByteString, flags = 0): number {
  return sys(callLinkat(fromFd, cString(from), toFd, otherCString(to), flags));
}

export function unlinkat(directoryFd: number, name: ByteString): number {
  return sys(callUnlinkat(directoryFd, cString(name), 0));
}

export function rmdirat(directoryFd: number, name: ByteString): number {
  return sys(callUnlinkat(directoryFd, cString(name), AT_REMOVEDIR));
}

/** `flags`: 0, RENAME_NOREPLACE, RENAME_EXCHANGE. */
export function renameat2(fromFd: number, from: ByteString, toFd: number, to: ByteString, flags: number): number {
  return sys(callRenameat2(number.renameat2, fromFd, cString(from), toFd, otherCString(to), flags));
}

/** Answers the length. With an empty name reads `directoryFd` itself, an O_PATH descriptor of a symbolic link. */
export function readlinkat(directoryFd: number, name: ByteString, into: Uint8Array): number {
  return sys(callReadlinkat(directoryFd, cString(name), into, into.byteLength));
}

let hasFchmodat2 = true;

/** Kernels before 6.6 have no chmod that does not follow: there, by way of an O_PATH descriptor. */
export function fchmodat(directoryFd: number, name: ByteString, mode: number): number {
  if (hasFchmodat2) {
    const result = sys(
      callFchmodat2(
        number.fchmodat2,
        directoryFd,
        cString(name),
        mode,
        AT_SYMLINK_NOFOLLOW | (name === "" ? AT_EMPTY_PATH : 0),
      ),
    );
    if (result !== -ENOSYS) return result;
    hasFchmodat2 = false;
  }
  return fchmodatByProc(directoryFd, name, mode);
}

/** For `fchmodat` on old kernels. */
export function fchmodatByProc(directoryFd: number, name: ByteString, mode: number): number {
  if (name === "") return sys(callChmod(cString(`/proc/self/fd/${directoryFd}`), mode));
  const fd = openat(directoryFd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return fd;
  const result = sys(callChmod(cString(`/proc/self/fd/${fd}`), mode));
  close(fd);
  return result;
}

export function fchmod(fd: number, mode: number): number {
  return sys(callFchmod(fd, mode));
}

/** With an empty name, `directoryFd` itself. KEEP_ID leaves one of the two alone. */
export function fchownat(directoryFd: number, name: ByteString, uid: number, gid: number): number {
  return sys(callFchownat(directoryFd, cString(name), uid, gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
}

export function fchown(fd: number, uid: number, gid: number): number {
  return sys(callFchown(fd, uid, gid));
}

/** Seconds and nanoseconds of one time; UTIME_NOW and UTIME_OMIT go into `nsec`. */
export interface Time {
  readonly seconds: number;
  readonly nsec: number;
}

const omitted: Time = { seconds: 0, nsec: UTIME_OMIT };
const times = new Uint32Array(8);

/** Sets times to the nanosecond; undefined leaves one alone. With an empty name, `directoryFd` itself. */
export function utimensat(
  directoryFd: number,
  name: ByteString,
  atime: Time | undefined,
  mtime: Time | undefined,
): number {
  setTime(0, atime ?? omitted);
  setTime(4, mtime ?? omitted);
  return sys(callUtimensat(directoryFd, cString(name), times, AT_SYMLINK_NOFOLLOW | (name === "" ? AT_EMPTY_PATH : 0)));
}

function setTime(at: number, time: Time): void {
  times[at] = time.seconds;
  times[at + 1] = Math.floor(time.seconds / 2 ** 32);
  times[at + 2] = time.nsec;
  times[at + 3] = 0;
}

/** Of the whole process, all threads; answers what it was before. */
export function umask(mask: number): number {
  return callUmask(mask);
}

/** Whether an errno says that a call or an option of it is not there, rather than that it failed. */
export function isUnsupported(result: number): boolean {
  return result === -ENOSYS || result === -EOPNOTSUPP;
}
