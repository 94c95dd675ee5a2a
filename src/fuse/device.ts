/**
 * /dev/fuse: opening, mounting, unmounting, and what the kernel's tables say of a mount.
 *
 * Nothing here touches the mounted file system itself, which may be dead: what is known of it comes from
 * `/proc/self/mountinfo` and the control file system. `unmount` can wait for requests that it causes (writeback), so it
 * must not run in the thread that serves them.
 */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { MNT_DETACH, O_CLOEXEC, O_RDWR, UMOUNT_NOFOLLOW } from "../posix/constants.ts";
import { close, open } from "../posix/files.ts";
import { mount, umount2 } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOTCONN, ENOTDIR, ENXIO, EPERM, errnoName } from "../util/errno.ts";

/** The device cannot be used or the mount not be made; the message says what to do. */
export class FuseMountError extends Error {
  readonly errno: number;

  constructor(message: string, errno: number) {
    super(message);
    this.errno = Math.abs(errno);
  }
}

/** Answers the descriptor, which is closed on exec unless it is handed on. */
export function openDevice(path = "/dev/fuse"): number {
  const fd = open(byteString(path), O_RDWR | O_CLOEXEC);
  if (fd >= 0) return fd;
  const hint: Readonly<Record<number, string>> = {
    [ENOENT]: "load the module (modprobe fuse), or give the container the device",
    [ENODEV]: "load the module: modprobe fuse",
    [ENXIO]: "load the module: modprobe fuse",
    [EACCES]: "run as root, or give the container the device",
    [EPERM]: "the container's device rules forbid it: give it the device",
  };
  throw new FuseMountError(`Cannot open ${path}: ${errnoName(fd)}; ${hint[-fd] ?? "see dmesg"}`, fd);
}

export interface MountRequest {
  /** Of /dev/fuse, not mounted yet. A failed mount can use it up (ENOTCONN, EINVAL at the next): then open it anew. */
  readonly fd: number;
  /** An existing directory. */
  readonly mountpoint: string;
  /** What df and mount show as the device. */
  readonly source: string;
  /** MS_* bits. */
  readonly flags: number;
  /** Type `fuse.<subtype>`. */
  readonly subtype: string;
}

/** Mounts; the kernel's FUSE_INIT then waits in the descriptor. */
export function mountDevice(request: MountRequest): void {
  const { fd, mountpoint, source, flags, subtype } = request;
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions`;
  const result = mount(byteString(source), byteString(mountpoint), `fuse.${subtype}`, flags, data);
  if (result >= 0) return;
  const hint: Readonly<Record<number, string>> = {
    [EPERM]: "mounting needs root (CAP_SYS_ADMIN)",
    [ENOENT]: "create the directory first",
    [ENOTDIR]: "the mount point must be a directory",
    [ENODEV]: "the kernel has no FUSE: load its module (modprobe fuse)",
    [ENOTCONN]: `a dead mount is there: umount -l ${mountpoint}`,
    [EINVAL]: "the descriptor is not of /dev/fuse, or the kernel does not know an option",
  };
  throw new FuseMountError(
    `Cannot mount on ${mountpoint}: ${errnoName(result)}; ${hint[-result] ?? "see dmesg"}`,
    result,
  );
}

export function closeDevice(fd: number): void {
  close(fd);
}

export interface MountedFuse {
  readonly mountpoint: string;
  readonly source: string;
  /** "fuse.chiron". */
  readonly type: string;
  /** The number below /sys/fs/fuse/connections: the minor device number. */
  readonly connection: number;
}

/** The FUSE mounts of a `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)); of several on one directory the top one is last. */
export function parseMountInfo(text: string): MountedFuse[] {
  const mounts: MountedFuse[] = [];
  for (const line of text.split("\n")) {
    const [before, after] = line.split(" - ");
    const left = before?.split(" ") ?? [];
    const right = after?.split(" ") ?? [];
    const [type, source] = right;
    const device = left[2]?.split(":")[1];
    const mountpoint = left[4];
    if (type === undefined || source === undefined || device === undefined || mountpoint === undefined) continue;
    if (type !== "fuse" && !type.startsWith("fuse.")) continue;
    mounts.push({
      mountpoint: unescapeField(mountpoint),
      source: unescapeField(source),
      type,
      connection: Number(device),
    });
  }
  return mounts;
}

/** Space, tab, newline and backslash are three octal digits there; other bytes are themselves. */
function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** The FUSE mount that is visible at an absolute path; null if there is none. */
export function findMount(mountpoint: string): MountedFuse | null {
  const all = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"));
  return all.findLast((mounted) => mounted.mountpoint === mountpoint) ?? null;
}

/**
 * Unmounts. `busy` says what to do where files are open: refuse with EBUSY, or take the mount from the tree and let it
 * end when they are closed. Answers 0 or a negative errno; EINVAL: nothing is mounted there.
 */
export function unmount(mountpoint: string, busy: "refuse" | "detach"): number {
  const path = byteString(mountpoint);
  const result = umount2(path, UMOUNT_NOFOLLOW);
  if (result === -EBUSY && busy === "detach") return umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH);
  return result;
}

const connections = "/sys/fs/fuse/connections";

/**
 * Last resort: every request, waiting or to come, fails with ECONNABORTED or ENOTCONN, and the mount is dead. Ends what
 * hangs in it; the mount point is still to be unmounted.
 */
export function abortConnection(connection: number): void {
  if (!hasConnection(connection)) mount("none", connections, "fusectl", 0, "");
  writeFileSync(`${connections}/${connection}/abort`, "1");
}

function hasConnection(connection: number): boolean {
  return statSync(`${connections}/${connection}`, { throwIfNoEntry: false }) !== undefined;
}
