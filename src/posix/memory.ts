/** A file as shared memory: what one process writes there survives it, and another reads it without a system call. */
import koffi from "koffi";
import { MAP_SHARED, PROT_READ, PROT_WRITE } from "./constants.ts";
import { declare, sys } from "./libc.ts";

const callMmap = declare(
  "int64_t mmap(void *address, size_t bytes, int protection, int flags, int fd, int64_t offset)",
);
const callMunmap = declare("int munmap(intptr_t address, size_t bytes)");
const callMsync = declare("int msync(intptr_t address, size_t bytes, int flags)");

/** Memory of a file from its beginning. After `unmap` the buffer must not be touched any more: the process would die. */
export interface SharedMemory {
  readonly buffer: ArrayBuffer;
  unmap(): void;
  /** On stable storage, where the file system has one. */
  sync(): number;
}

/** Maps `bytes` of an open file, which must be as long; answers a negative errno instead if that does not work. */
export function mapShared(fd: number, bytes: number, access: "read" | "read-write"): SharedMemory | number {
  const protection = access === "read" ? PROT_READ : PROT_READ | PROT_WRITE;
  const address = sys(callMmap(null, bytes, protection, MAP_SHARED, fd, 0));
  if (address < 0) return address;
  return {
    buffer: koffi.view(BigInt(address), bytes),
    unmap: () => {
      callMunmap(address, bytes);
    },
    sync: () => sys(callMsync(address, bytes, 4)),
  };
}

/** Where a buffer's bytes are, for a call on another thread; whoever passes it on keeps the buffer referenced. */
export function addressOf(buffer: Uint8Array): number {
  return Number(koffi.address(buffer));
}
