/** fstatfs: `struct statfs` has the same layout on x86-64 and arm64 (`asm-generic/statfs.h`, all fields 8 bytes). */
import { declare, sys } from "./libc.ts";

const callFstatfs = declare("int fstatfs(int fd, void *into)");

export interface StatFs {
  /** Magic number, see `linux/magic.h`. */
  type: number;
  /** What the block counts are in. */
  blockSizeBytes: number;
  blocks: number;
  freeBlocks: number;
  availableBlocks: number;
  files: number;
  freeFiles: number;
  maxNameBytes: number;
  /** ST_RDONLY (1) and others. */
  flags: number;
}

const raw = new Uint32Array(30);

export function fstatfs(fd: number, into: StatFs): number {
  const result = sys(callFstatfs(fd, raw));
  if (result < 0) return result;
  into.type = field(0);
  into.blockSizeBytes = field(9) || field(1);
  into.blocks = field(2);
  into.freeBlocks = field(3);
  into.availableBlocks = field(4);
  into.files = field(5);
  into.freeFiles = field(6);
  into.maxNameBytes = field(8);
  into.flags = field(10);
  return 0;
}

function field(index: number): number {
  return (raw[index * 2 + 1] as number) * 2 ** 32 + (raw[index * 2] as number);
}

export const EXT4_SUPER_MAGIC = 0xef53;
export const XFS_SUPER_MAGIC = 0x58465342;
export const BTRFS_SUPER_MAGIC = 0x9123683e;
export const F2FS_SUPER_MAGIC = 0xf2f52010;
export const ZFS_SUPER_MAGIC = 0x2fc12fc1;
export const BCACHEFS_SUPER_MAGIC = 0xca451a4e;
export const TMPFS_MAGIC = 0x01021994;
export const RAMFS_MAGIC = 0x858458f6;
export const OVERLAYFS_SUPER_MAGIC = 0x794c7630;
export const ST_RDONLY = 1;
