/**
 * What the holder does to the kernel: opens the FUSE device, mounts, unmounts. It never touches the mounted tree, and
 * unmounts off its own thread: the kernel writes cached data back first, for which it needs a volume process that works,
 * which is what the holder has to see to meanwhile.
 */
import { execFile } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { abortConnection, closeDevice, FuseMountError, findMount, mountDevice, openDevice } from "../fuse/device.ts";
import { parseMountOptions } from "../fuse/mount-options.ts";
import { MNT_DETACH } from "../posix/constants.ts";
import { umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { EACCES, EBUSY, EINVAL, EPERM } from "../util/errno.ts";
import { FailureError } from "./failure.ts";
import { findMountUsers, type MountUsers } from "./mount-users.ts";
import type { FailureCode } from "./protocol.ts";

export interface MountRequest {
  readonly source: string;
  readonly mountpoint: string;
  readonly options: readonly string[];
}

export interface MountOperations {
  /** A new FUSE device. Throws a `FailureError`. */
  open(): number;
  close(fd: number): void;
  /** On top of what is there. Throws a `FailureError`. */
  mount(fd: number, request: MountRequest): void;
  /** The device number of what is mounted there ("0:53"); null if nothing of FUSE is. */
  device(mountpoint: string): string | null;
  /** Who has the file system of this device, in all mount namespaces. */
  users(device: string): MountUsers;
  /** Every request of this mount, waiting or to come, gets an error; the dead mount stays in the tree. */
  abort(mountpoint: string): void;
  /** Resolves with 0 or a negative errno. */
  unmount(mountpoint: string, flags: number): Promise<number>;
}

export const kernelMounts: MountOperations = {
  open: () => translated("no-fuse", openDevice),
  close: closeDevice,
  mount(fd, { source, mountpoint, options }) {
    const { flags } = parseMountOptions(options);
    translated("mountpoint", () => mountDevice({ fd, mountpoint, source, flags, subtype: "chiron" }));
  },
  device(mountpoint) {
    const mounted = findMount(mountpoint);
    return mounted === null ? null : `0:${mounted.connection}`;
  },
  users: findMountUsers,
  abort(mountpoint) {
    const mounted = findMount(mountpoint);
    if (mounted !== null) abortConnection(mounted.connection);
  },
  unmount: (mountpoint, flags) => umount2Later(byteString(mountpoint), flags),
};

function translated<T>(code: FailureCode, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof FuseMountError)) throw error;
    const notAllowed = error.errno === EPERM || error.errno === EACCES;
    throw new FailureError(notAllowed ? "not-root" : code, error.message, { cause: error });
  }
}

/** For fuse-native, which mounts in the volume process and knows the device by itself. */
export const nativeMounts: MountOperations = {
  ...kernelMounts,
  open: () => openSync("/dev/null", "r+"),
  close: closeSync,
  mount: () => {},
  unmount: (mountpoint, flags) =>
    process.getuid?.() === 0 ? kernelMounts.unmount(mountpoint, flags) : fusermount(mountpoint, flags),
};

/** Who is not root has libfuse's set-uid helper. */
function fusermount(mountpoint: string, flags: number): Promise<number> {
  const lazy = (flags & MNT_DETACH) !== 0 ? ["-z"] : [];
  return new Promise((resolve) => {
    execFile("fusermount", ["-u", ...lazy, mountpoint], (error, _out, stderr) => {
      if (error === null) resolve(0);
      else resolve(/busy/i.test(stderr) ? -EBUSY : -EINVAL);
    });
  });
}
