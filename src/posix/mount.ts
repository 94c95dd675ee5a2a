/** mount and umount2. */
import koffi from "koffi";
import type { ByteString } from "../util/byte-string.ts";
import { ioctl } from "./files.ts";
import { cString, declare, otherCString, ownCString, sys } from "./libc.ts";

const callMount = declare("int mount(void *source, void *target, void *type, unsigned long flags, void *data)");
const callUmount2 = declare("int umount2(void *target, int flags)");
const callUnshare = declare("int unshare(int flags)");

export function mount(
  source: ByteString,
  target: ByteString,
  type: ByteString,
  flags: number,
  data: ByteString,
): number {
  return sys(callMount(cString(source), otherCString(target), ownCString(type), flags, ownCString(data)));
}

export function umount2(target: ByteString, flags: number): number {
  return sys(callUmount2(cString(target), flags));
}

/** The same on a thread, since it lasts until the file system's cached data are written back. */
export function umount2Later(target: ByteString, flags: number): Promise<number> {
  const path = ownCString(target);
  return new Promise((resolve) => {
    callUmount2.async(path, flags, (_error: unknown, result: number) => {
      resolve(result < 0 && path.byteLength > 0 ? -koffi.errno() : result); // `path` lives as long as the call
    });
  });
}

/** CLONE_NEWNS and the like, for the calling thread. */
export function unshare(flags: number): number {
  return sys(callUnshare(flags));
}

/** `_IOR('X', 125, __u32)`: ext4, xfs, f2fs and others. */
const FS_IOC_SHUTDOWN = 0x8004587d;

/**
 * For tests: stops a file system as a power cut would, for good until it is mounted again. `log`: whether the journal is
 * written out first ("flush") or lost from what is in memory on ("no-flush").
 */
export function shutDownFileSystem(fd: number, log: "flush" | "no-flush"): number {
  return ioctl(fd, FS_IOC_SHUTDOWN, Uint32Array.of(log === "flush" ? 1 : 2));
}
