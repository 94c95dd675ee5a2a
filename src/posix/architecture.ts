/**
 * What differs between x86-64 and arm64: open flags, `struct stat`, system call numbers. One table each. From
 * `arch/x86/include/uapi/asm/stat.h`, `asm-generic/stat.h`, `asm-generic/fcntl.h`, `arch/arm64/include/uapi/asm/fcntl.h`,
 * `arch/x86/entry/syscalls/syscall_64.tbl` and `asm-generic/unistd.h`.
 */
export interface Architecture {
  readonly O_DIRECTORY: number;
  readonly O_NOFOLLOW: number;
  readonly O_DIRECT: number;
  readonly O_LARGEFILE: number;
  readonly stat: StatLayout;
  readonly call: CallNumbers;
}

/** Byte offsets in `struct stat`; 64-bit fields but those of 4 bytes. */
export interface StatLayout {
  readonly bytes: number;
  readonly dev: number;
  readonly ino: number;
  /** 4 bytes. */
  readonly mode: number;
  /** The low 4 bytes (x86-64 has 8). */
  readonly nlink: number;
  /** 4 bytes. */
  readonly uid: number;
  /** 4 bytes. */
  readonly gid: number;
  readonly rdev: number;
  readonly size: number;
  /** The low 4 bytes (x86-64 has 8). */
  readonly blksize: number;
  readonly blocks: number;
  /** Seconds; the nanoseconds follow. */
  readonly atime: number;
  readonly mtime: number;
  readonly ctime: number;
}

export interface CallNumbers {
  readonly newfstatat: number;
  readonly fstat: number;
  readonly getdents64: number;
  readonly statx: number;
  readonly renameat2: number;
  readonly copy_file_range: number;
  readonly preadv2: number;
  readonly pwritev2: number;
  readonly syncfs: number;
  readonly pidfd_send_signal: number;
  readonly io_uring_setup: number;
  readonly io_uring_enter: number;
  readonly io_uring_register: number;
  readonly pidfd_open: number;
  readonly openat2: number;
  readonly pidfd_getfd: number;
  readonly fchmodat2: number;
  readonly setxattrat: number;
  readonly getxattrat: number;
  readonly listxattrat: number;
  readonly removexattrat: number;
}

/** The same on every architecture that came to Linux after 5.1 (and for these two before it by chance or design). */
const common = {
  pidfd_send_signal: 424,
  io_uring_setup: 425,
  io_uring_enter: 426,
  io_uring_register: 427,
  pidfd_open: 434,
  openat2: 437,
  pidfd_getfd: 438,
  fchmodat2: 452,
  setxattrat: 463,
  getxattrat: 464,
  listxattrat: 465,
  removexattrat: 466,
} as const;

export const x64: Architecture = {
  O_DIRECTORY: 0o200000,
  O_NOFOLLOW: 0o400000,
  O_DIRECT: 0o40000,
  O_LARGEFILE: 0o100000,
  stat: {
    bytes: 144,
    dev: 0,
    ino: 8,
    nlink: 16,
    mode: 24,
    uid: 28,
    gid: 32,
    rdev: 40,
    size: 48,
    blksize: 56,
    blocks: 64,
    atime: 72,
    mtime: 88,
    ctime: 104,
  },
  call: {
    ...common,
    newfstatat: 262,
    fstat: 5,
    getdents64: 217,
    statx: 332,
    renameat2: 316,
    copy_file_range: 326,
    preadv2: 327,
    pwritev2: 328,
    syncfs: 306,
  },
};

export const arm64: Architecture = {
  O_DIRECTORY: 0o40000,
  O_NOFOLLOW: 0o100000,
  O_DIRECT: 0o200000,
  O_LARGEFILE: 0o400000,
  stat: {
    bytes: 128,
    dev: 0,
    ino: 8,
    mode: 16,
    nlink: 20,
    uid: 24,
    gid: 28,
    rdev: 32,
    size: 48,
    blksize: 56,
    blocks: 64,
    atime: 72,
    mtime: 88,
    ctime: 104,
  },
  call: {
    ...common,
    newfstatat: 79,
    fstat: 80,
    getdents64: 61,
    statx: 291,
    renameat2: 276,
    copy_file_range: 285,
    preadv2: 286,
    pwritev2: 287,
    syncfs: 267,
  },
};

function ofThisMachine(): Architecture {
  if (process.arch === "x64") return x64;
  if (process.arch === "arm64") return arm64;
  throw new Error(`Chiron runs on x86-64 and arm64, not on ${process.arch}`);
}

export const architecture: Architecture = ofThisMachine();
