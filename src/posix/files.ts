/** Open files: opening, reading, writing, and what concerns a descriptor. */
import type { ByteString } from "../util/byte-string.ts";
import { architecture } from "./architecture.ts";
import { F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL, FD_CLOEXEC, O_NONBLOCK } from "./constants.ts";
import { cString, declare, sys } from "./libc.ts";

const number = architecture.call;
const callOpenat = declare("int openat(int dirfd, void *path, int flags, unsigned int mode)");
const callOpenat2 = declare("long syscall(long number, long dirfd, void *path, void *how, long bytes)");
const callClose = declare("int close(int fd)");
const callRead = declare("int64_t read(int fd, void *buffer, size_t bytes)");
const callWrite = declare("int64_t write(int fd, void *buffer, size_t bytes)");
const callWritev = declare("int64_t writev(int fd, void *vectors, int count)");
const callPread = declare("int64_t pread(int fd, void *buffer, size_t bytes, int64_t offset)");
const callPreadAddress = declare("int64_t pread(int fd, uintptr_t buffer, size_t bytes, int64_t offset)");
const callPwriteAddress = declare("int64_t pwrite(int fd, uintptr_t buffer, size_t bytes, int64_t offset)");
const callPwrite = declare("int64_t pwrite(int fd, void *buffer, size_t bytes, int64_t offset)");
const callFcntl = declare("int fcntl(int fd, int command, long argument)");
const callFcntlPointer = declare("int fcntl(int fd, int command, void *argument)");
const callFlock = declare("int flock(int fd, int operation)");
const callIoctl = declare("int ioctl(int fd, unsigned long request, void *argument)");
const callIoctlNumber = declare("int ioctl(int fd, unsigned long request, long argument)");
const callLseek = declare("int64_t lseek(int fd, int64_t offset, int whence)");
const callFsync = declare("int fsync(int fd)");
const callFdatasync = declare("int fdatasync(int fd)");
const callSyncfs = declare("long syscall(long number, long fd)");
const callFtruncate = declare("int ftruncate(int fd, int64_t length)");
const callFallocate = declare("int fallocate(int fd, int mode, int64_t offset, int64_t length)");
const callCopyRange = declare(
  "long syscall(long number, long from, void *fromOffset, long to, void *toOffset, long bytes, long flags)",
);
const callPreadv2 = declare(
  "long syscall(long number, long fd, void *vectors, long count, long offset, long high, long flags)",
);

export function openat(directoryFd: number, path: ByteString, flags: number, mode = 0): number {
  return sys(callOpenat(directoryFd, cString(path), flags, mode));
}

/** From the working directory or absolute: for the program's own files, never for what is below a replica's root. */
export function open(path: ByteString, flags: number, mode = 0): number {
  return openat(-100, path, flags, mode);
}

const how = new Uint32Array(6);

/** `resolve`: RESOLVE_* bits. EAGAIN with RESOLVE_BENEATH means that a rename interfered: try again. */
export function openat2(directoryFd: number, path: ByteString, flags: number, mode: number, resolve: number): number {
  how[0] = flags;
  how[2] = mode;
  how[4] = resolve;
  return sys(callOpenat2(number.openat2, directoryFd, cString(path), how, 24));
}

/** EINTR does not happen here: signals are handled by node's own thread with SA_RESTART, and on close Linux frees the descriptor first. */
export function close(fd: number): number {
  return sys(callClose(fd));
}

export function read(fd: number, into: Uint8Array, bytes = into.byteLength): number {
  return sys(callRead(fd, into, bytes));
}

export function write(fd: number, data: Uint8Array, bytes = data.byteLength): number {
  return sys(callWrite(fd, data, bytes));
}

export function pread(fd: number, into: Uint8Array, offset: number, bytes = into.byteLength): number {
  return sys(callPread(fd, into, bytes, offset));
}

export function pwrite(fd: number, data: Uint8Array, offset: number, bytes = data.byteLength): number {
  return sys(callPwrite(fd, data, bytes, offset));
}

/** Into memory of another thread, which keeps it referenced until this has answered. */
export function preadAddress(fd: number, address: number, bytes: number, offset: number): number {
  return sys(callPreadAddress(fd, address, bytes, offset));
}

export function pwriteAddress(fd: number, address: number, bytes: number, offset: number): number {
  return sys(callPwriteAddress(fd, address, bytes, offset));
}

/** `vectors` is filled by `IoVectors`. */
export function writev(fd: number, vectors: BigUint64Array, count: number): number {
  return sys(callWritev(fd, vectors, count));
}

/** `flags`: RWF_* bits, over `count` vectors. */
export function preadv2(fd: number, vectors: BigUint64Array, count: number, offset: number, flags: number): number {
  return sys(callPreadv2(number.preadv2, fd, vectors, count, offset, 0, flags));
}

export function lseek(fd: number, offset: number, whence: number): number {
  return sys(callLseek(fd, offset, whence));
}

export function fsync(fd: number): number {
  return sys(callFsync(fd));
}

export function fdatasync(fd: number): number {
  return sys(callFdatasync(fd));
}

/** The whole file system of `fd`, which must not be opened with O_PATH. */
export function syncfs(fd: number): number {
  return sys(callSyncfs(number.syncfs, fd));
}

export function ftruncate(fd: number, length: number): number {
  return sys(callFtruncate(fd, length));
}

export function fallocate(fd: number, mode: number, offset: number, length: number): number {
  return sys(callFallocate(fd, mode, offset, length));
}

const fromOffset = new Float64Array(1);
const toOffset = new Float64Array(1);
const fromWords = new Uint32Array(fromOffset.buffer);
const toWords = new Uint32Array(toOffset.buffer);

export function copyFileRange(
  from: number,
  fromPosition: number,
  to: number,
  toPosition: number,
  bytes: number,
): number {
  setOffset(fromWords, fromPosition);
  setOffset(toWords, toPosition);
  return sys(callCopyRange(number.copy_file_range, from, fromWords, to, toWords, bytes, 0));
}

function setOffset(words: Uint32Array, offset: number): void {
  words[0] = offset % 2 ** 32;
  words[1] = offset / 2 ** 32;
}

export function flock(fd: number, operation: number): number {
  return sys(callFlock(fd, operation));
}

export function ioctl(fd: number, request: number, argument: Uint8Array | Uint32Array | null): number {
  return sys(callIoctl(fd, request, argument));
}

/** For requests whose argument is a number by value. */
const FICLONE = 0x4004_9409;

/** Makes the file `to` share all data of `from`, where the file system can. */
export function cloneFile(from: number, to: number): number {
  return ioctlNumber(to, FICLONE, from);
}

export function ioctlNumber(fd: number, request: number, argument: number): number {
  return sys(callIoctlNumber(fd, request, argument));
}

export function fcntl(fd: number, command: number, argument = 0): number {
  return sys(callFcntl(fd, command, argument));
}

/** For commands that take a structure, such as F_OFD_SETLK. */
export function fcntlStruct(fd: number, command: number, argument: Uint8Array): number {
  return sys(callFcntlPointer(fd, command, argument));
}

export function dup(fd: number): number {
  return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

export function setNonBlocking(fd: number, on: boolean): number {
  const flags = fcntl(fd, F_GETFL);
  if (flags < 0) return flags;
  return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

export function setCloseOnExec(fd: number, on: boolean): number {
  const flags = fcntl(fd, F_GETFD);
  if (flags < 0) return flags;
  return fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC);
}
