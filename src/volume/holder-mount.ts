/**
 * What the holder does to the kernel: opens the FUSE device, mounts, unmounts. It never touches the mounted tree, and
 * unmounts off its own thread: the kernel writes cached data back first, for which it needs a volume process that works,
 * which is what the holder has to see to meanwhile.
 */
import { closeSync, openSync } from "node:fs";
import { mount, umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { EINVAL, ENODEV, ENOENT, ENOTDIR, EPERM, errnoName } from "../util/errno.ts";
import { FailureError } from "./failure.ts";
import { planMountOptions } from "./mount-options.ts";

export interface MountRequest {
  readonly source: string;
  readonly mountpoint: string;
  readonly options: readonly string[];
}

export interface MountOperations {
  /** A new FUSE device. Throws `no-fuse` or `not-root`. */
  open(): number;
  close(fd: number): void;
  /** Throws `mountpoint`. */
  mount(fd: number, request: MountRequest): void;
  /** Resolves with 0 or a negative errno. */
  unmount(mountpoint: string, flags: number): Promise<number>;
}

export const kernelMounts: MountOperations = {
  open() {
    try {
      return openSync("/dev/fuse", "r+");
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EACCES" || code === "EPERM") {
        throw new FailureError(
          "not-root",
          "Cannot open /dev/fuse: not allowed. Run as root (in a container: privileged)",
        );
      }
      throw new FailureError(
        "no-fuse",
        "There is no FUSE here: load it with `modprobe fuse`, or give the container /dev/fuse",
      );
    }
  },

  close(fd) {
    closeSync(fd);
  },

  mount(fd, { source, mountpoint, options }) {
    const { flags, data } = planMountOptions(options);
    const fuse = `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions${data}`;
    const result = mount(byteString(source), byteString(mountpoint), "fuse.chiron", flags, byteString(fuse));
    if (result === 0) return;
    throw new FailureError("mountpoint", `Cannot mount on ${mountpoint}: ${mountError(-result)}`);
  },

  unmount(mountpoint, flags) {
    return umount2Later(byteString(mountpoint), flags);
  },
};

function mountError(errno: number): string {
  if (errno === ENOENT) return "there is no such directory";
  if (errno === ENOTDIR) return "it is not a directory";
  if (errno === EPERM) return "not allowed. Run as root (in a container: privileged)";
  if (errno === ENODEV) return "the kernel has no FUSE: load it with `modprobe fuse`";
  if (errno === EINVAL) return "the kernel refuses the mount options";
  return `${errnoName(errno)} (errno ${errno})`;
}
