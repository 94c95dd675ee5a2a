/** The root of a local replica: found by its path, recognised by device and inode, and told from what is not it. */
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from "../posix/constants.ts";
import { close, open } from "../posix/files.ts";
import { fstatfs, RAMFS_MAGIC, type StatFs, TMPFS_MAGIC } from "../posix/statfs.ts";
import { lastStatxDevice, statxFd, statxPath } from "../posix/statx.ts";
import { byteString } from "../util/byte-string.ts";
import { EACCES, ENODEV, ENOENT, ENOTDIR, EPERM, errnoName } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { ReplicaError } from "./replica.ts";

/** What makes a directory the one that was found, whatever its path leads to later. */
export interface LocalRoot {
  readonly path: string;
  /** Opened for reading. */
  readonly fd: number;
  readonly device: number;
  readonly ino: number;
  /** The file system has no disk below it (tmpfs, ramfs): no call on it waits. */
  readonly inMemory: boolean;
}

/** Throws a `ReplicaError`. Links on the way to the root are followed: the path is the administrator's. */
export function openRoot(replica: string, path: string): LocalRoot {
  const fd = open(byteString(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw new ReplicaError(replica, whyNot(path, fd), { errno: fd });
  const attr = new FileAttr();
  const stats: StatFs = { ...noStats };
  let result = statxFd(fd, attr);
  const device = lastStatxDevice();
  if (result >= 0) result = fstatfs(fd, stats);
  if (result < 0) {
    close(fd);
    throw new ReplicaError(replica, whyNot(path, result), { errno: result });
  }
  const inMemory = stats.type === TMPFS_MAGIC || stats.type === RAMFS_MAGIC;
  return { path, fd, device, ino: attr.ino, inMemory };
}

function whyNot(path: string, result: number): string {
  if (result === -ENOENT) return `${path} does not exist; check the path, and that its file system is mounted`;
  if (result === -ENOTDIR) return `${path} is not a directory`;
  if (result === -EACCES || result === -EPERM) return `${path} may not be read (${errnoName(result)}); run as root`;
  return `${path} cannot be opened (${errnoName(result)}); check the file system below it`;
}

const attr = new FileAttr();

/** 0, or ENODEV if the path leads elsewhere by now, or the errno of looking. */
export function checkRoot(root: LocalRoot): number {
  const result = statxPath(byteString(root.path), attr);
  if (result === -ENOENT || result === -ENOTDIR) return -ENODEV;
  if (result < 0) return result;
  if (attr.ino !== root.ino || lastStatxDevice() !== root.device) return -ENODEV;
  return statxFd(root.fd, attr);
}

const noStats: StatFs = {
  type: 0,
  blockSizeBytes: 0,
  blocks: 0,
  freeBlocks: 0,
  availableBlocks: 0,
  files: 0,
  freeFiles: 0,
  maxNameBytes: 0,
  flags: 0,
};
