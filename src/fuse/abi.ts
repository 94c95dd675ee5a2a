/**
 * Numbers of the FUSE kernel protocol, under the names that `include/uapi/linux/fuse.h` gives them, up to 7.45. Only
 * what is used here. Little-endian machines only (x86-64, arm64); sizes and offsets are in `decode.ts` and `encode.ts`.
 */
export const FUSE_KERNEL_VERSION = 7;
/** What this code speaks at most. */
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** What it needs at least (Linux 5.4). */
export const FUSE_MINIMUM_MINOR_VERSION = 31;

export const FUSE_LOOKUP = 1;
export const FUSE_FORGET = 2;
export const FUSE_GETATTR = 3;
export const FUSE_SETATTR = 4;
export const FUSE_READLINK = 5;
export const FUSE_SYMLINK = 6;
export const FUSE_MKNOD = 8;
export const FUSE_MKDIR = 9;
export const FUSE_UNLINK = 10;
export const FUSE_RMDIR = 11;
export const FUSE_RENAME = 12;
export const FUSE_LINK = 13;
export const FUSE_OPEN = 14;
export const FUSE_READ = 15;
export const FUSE_WRITE = 16;
export const FUSE_STATFS = 17;
export const FUSE_RELEASE = 18;
export const FUSE_FSYNC = 20;
export const FUSE_SETXATTR = 21;
export const FUSE_GETXATTR = 22;
export const FUSE_LISTXATTR = 23;
export const FUSE_REMOVEXATTR = 24;
export const FUSE_FLUSH = 25;
export const FUSE_INIT = 26;
export const FUSE_OPENDIR = 27;
export const FUSE_READDIR = 28;
export const FUSE_RELEASEDIR = 29;
export const FUSE_FSYNCDIR = 30;
export const FUSE_GETLK = 31;
export const FUSE_SETLK = 32;
export const FUSE_SETLKW = 33;
export const FUSE_ACCESS = 34;
export const FUSE_CREATE = 35;
export const FUSE_INTERRUPT = 36;
export const FUSE_BMAP = 37;
export const FUSE_DESTROY = 38;
export const FUSE_IOCTL = 39;
export const FUSE_POLL = 40;
export const FUSE_NOTIFY_REPLY = 41;
export const FUSE_BATCH_FORGET = 42;
export const FUSE_FALLOCATE = 43;
export const FUSE_READDIRPLUS = 44;
export const FUSE_RENAME2 = 45;
export const FUSE_LSEEK = 46;
export const FUSE_COPY_FILE_RANGE = 47;
export const FUSE_SYNCFS = 50;
export const FUSE_TMPFILE = 51;
export const FUSE_STATX = 52;
export const FUSE_COPY_FILE_RANGE_64 = 53;

const opcodeNames: Readonly<Record<number, string>> = {
  [FUSE_LOOKUP]: "LOOKUP",
  [FUSE_FORGET]: "FORGET",
  [FUSE_GETATTR]: "GETATTR",
  [FUSE_SETATTR]: "SETATTR",
  [FUSE_READLINK]: "READLINK",
  [FUSE_SYMLINK]: "SYMLINK",
  [FUSE_MKNOD]: "MKNOD",
  [FUSE_MKDIR]: "MKDIR",
  [FUSE_UNLINK]: "UNLINK",
  [FUSE_RMDIR]: "RMDIR",
  [FUSE_RENAME]: "RENAME",
  [FUSE_LINK]: "LINK",
  [FUSE_OPEN]: "OPEN",
  [FUSE_READ]: "READ",
  [FUSE_WRITE]: "WRITE",
  [FUSE_STATFS]: "STATFS",
  [FUSE_RELEASE]: "RELEASE",
  [FUSE_FSYNC]: "FSYNC",
  [FUSE_SETXATTR]: "SETXATTR",
  [FUSE_GETXATTR]: "GETXATTR",
  [FUSE_LISTXATTR]: "LISTXATTR",
  [FUSE_REMOVEXATTR]: "REMOVEXATTR",
  [FUSE_FLUSH]: "FLUSH",
  [FUSE_INIT]: "INIT",
  [FUSE_OPENDIR]: "OPENDIR",
  [FUSE_READDIR]: "READDIR",
  [FUSE_RELEASEDIR]: "RELEASEDIR",
  [FUSE_FSYNCDIR]: "FSYNCDIR",
  [FUSE_GETLK]: "GETLK",
  [FUSE_SETLK]: "SETLK",
  [FUSE_SETLKW]: "SETLKW",
  [FUSE_ACCESS]: "ACCESS",
  [FUSE_CREATE]: "CREATE",
  [FUSE_INTERRUPT]: "INTERRUPT",
  [FUSE_BMAP]: "BMAP",
  [FUSE_DESTROY]: "DESTROY",
  [FUSE_IOCTL]: "IOCTL",
  [FUSE_POLL]: "POLL",
  [FUSE_NOTIFY_REPLY]: "NOTIFY_REPLY",
  [FUSE_BATCH_FORGET]: "BATCH_FORGET",
  [FUSE_FALLOCATE]: "FALLOCATE",
  [FUSE_READDIRPLUS]: "READDIRPLUS",
  [FUSE_RENAME2]: "RENAME2",
  [FUSE_LSEEK]: "LSEEK",
  [FUSE_COPY_FILE_RANGE]: "COPY_FILE_RANGE",
  [FUSE_SYNCFS]: "SYNCFS",
  [FUSE_TMPFILE]: "TMPFILE",
  [FUSE_STATX]: "STATX",
  [FUSE_COPY_FILE_RANGE_64]: "COPY_FILE_RANGE_64",
};

export function opcodeName(opcode: number): string {
  return opcodeNames[opcode] ?? `opcode ${opcode}`;
}

/** Flags of INIT, both words as one number. */
export const FUSE_ASYNC_READ = 1n << 0n;
export const FUSE_POSIX_LOCKS = 1n << 1n;
export const FUSE_ATOMIC_O_TRUNC = 1n << 3n;
export const FUSE_BIG_WRITES = 1n << 5n;
export const FUSE_DONT_MASK = 1n << 6n;
export const FUSE_FLOCK_LOCKS = 1n << 10n;
export const FUSE_DO_READDIRPLUS = 1n << 13n;
export const FUSE_READDIRPLUS_AUTO = 1n << 14n;
export const FUSE_ASYNC_DIO = 1n << 15n;
export const FUSE_WRITEBACK_CACHE = 1n << 16n;
export const FUSE_PARALLEL_DIROPS = 1n << 18n;
export const FUSE_POSIX_ACL = 1n << 20n;
export const FUSE_MAX_PAGES = 1n << 22n;
export const FUSE_CACHE_SYMLINKS = 1n << 23n;
export const FUSE_NO_OPENDIR_SUPPORT = 1n << 24n;
export const FUSE_EXPLICIT_INVAL_DATA = 1n << 25n;
export const FUSE_HANDLE_KILLPRIV_V2 = 1n << 28n;
export const FUSE_SETXATTR_EXT = 1n << 29n;
export const FUSE_INIT_EXT = 1n << 30n;
export const FUSE_HAS_EXPIRE_ONLY = 1n << 35n;
export const FUSE_HAS_RESEND = 1n << 39n;

/** `fuse_setattr_in.valid` */
export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_FH = 1 << 6;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;
export const FATTR_CTIME = 1 << 10;
export const FATTR_KILL_SUIDGID = 1 << 11;

/** Answers to OPEN and OPENDIR. */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_CACHE_DIR = 1 << 3;
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6;

export const FUSE_GETATTR_FH = 1 << 0;
export const FUSE_OPEN_KILL_SUIDGID = 1 << 0;
export const FUSE_WRITE_CACHE = 1 << 0;
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2;
export const FUSE_RELEASE_FLOCK_UNLOCK = 1 << 1;
export const FUSE_FSYNC_FDATASYNC = 1 << 0;
export const FUSE_LK_FLOCK = 1 << 0;
export const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0;
export const FUSE_EXPIRE_ONLY = 1 << 0;

/** In the high word of `unique`: FUSE_UNIQUE_RESEND, the request was sent before (to a process that died, perhaps). */
export const FUSE_UNIQUE_RESEND_HIGH = 0x8000_0000;

/** Codes of notifications, in the place of an error. */
export const FUSE_NOTIFY_INVAL_INODE = 2;
export const FUSE_NOTIFY_INVAL_ENTRY = 3;
export const FUSE_NOTIFY_DELETE = 6;
export const FUSE_NOTIFY_RESEND = 7;
export const FUSE_NOTIFY_INC_EPOCH = 8;

export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;
