/**
 * What a file system implements to be served by a FUSE session; one method for each request of the kernel, named after
 * it. Knows nothing of replication.
 *
 * - A method answers a result >= 0 or a negative errno, at once or later. The session replies exactly once with it;
 *   a method that throws or rejects is a bug, is logged and answered EIO.
 * - Values beside the number go into `out`, which belongs to the method until it has answered. Buffers too.
 * - A method that the file system does not have (`undefined`) is answered ENOSYS, which the kernel mostly remembers.
 */
import type { ByteString } from "../util/byte-string.ts";
import type { FileAttr } from "../util/file-attr.ts";
import type { Eventual } from "../util/op.ts";

/** A result >= 0, or a negative errno; now or later. */
export type Answer = Eventual<number>;

/** The kernel's number of an inode: 1 is the root; the file system chooses all others and never uses one twice. */
export type NodeId = number;
/** The file system's number of an open file or directory. */
export type FileHandle = number;

export const ROOT_NODE: NodeId = 1;

/** Who asks. Belongs to the method until it has answered. */
export interface Request {
  /** The request's number at the kernel, without the resend bit; for logs and for recognising a request sent again. */
  readonly unique: bigint;
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** The kernel sends this request again (FUSE_NOTIFY_RESEND): an earlier process may have carried it out already. */
  readonly resent: boolean;
  /** Aborted when the kernel interrupts the request. Made on first use. */
  readonly signal: AbortSignal;
}

/** A looked-up or new object; `nodeId` 0 with a result of 0 is a negative entry that the kernel may cache. */
export interface EntryOut {
  nodeId: NodeId;
  readonly attr: FileAttr;
  entryValidSeconds: number;
  attrValidSeconds: number;
}

export interface AttrOut {
  readonly attr: FileAttr;
  attrValidSeconds: number;
}

/** Birth time beside the attributes; null where it is not known. */
export interface StatxOut extends AttrOut {
  btime: TimeIn | null;
}

export interface OpenOut {
  handle: FileHandle;
  /** FOPEN_* bits for the kernel. */
  openFlags: number;
}

/** Which fields of a SETATTR are set; "now" is the kernel asking for the current time. */
export interface SetAttrIn {
  readonly handle: FileHandle | null;
  readonly mode: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly size: number | null;
  readonly atime: TimeIn | "now" | null;
  readonly mtime: TimeIn | "now" | null;
  /** Only with the kernel's writeback cache. */
  readonly ctime: TimeIn | null;
  /** FATTR_KILL_SUIDGID: clear set-user-id and set-group-id bits as a write or truncation by others does. */
  readonly killSuidgid: boolean;
}
export interface TimeIn {
  readonly seconds: number;
  readonly nsec: number;
}

export interface LockIn {
  readonly handle: FileHandle;
  /** The kernel's 64-bit lock owner. */
  readonly owner: bigint;
  readonly start: bigint;
  /** Inclusive; 2^63 - 1 is "to the end". */
  readonly end: bigint;
  readonly type: "read" | "write" | "unlock";
  readonly pid: number;
  /** flock(2) instead of fcntl(2). */
  readonly flock: boolean;
}
export interface LockOut {
  start: bigint;
  end: bigint;
  type: "read" | "write" | "unlock";
  pid: number;
}

export interface StatfsOut {
  blocks: number;
  freeBlocks: number;
  availableBlocks: number;
  files: number;
  freeFiles: number;
  blockSizeBytes: number;
  maxNameBytes: number;
}

/** Where READDIR and READDIRPLUS put entries; false means that the buffer is full and the entry was not taken. */
export interface DirectoryOut {
  /** `cookie`: where to go on after this entry. `type`: type bits of a mode. */
  add(name: ByteString, ino: number, type: number, cookie: bigint): boolean;
  /**
   * READDIRPLUS only: an entry with attributes; a taken one counts as a LOOKUP. nodeId 0: attributes not known (only
   * `entry.attr.ino` counts), as "." and ".." must have it, which the kernel never forgets.
   */
  addPlus(name: ByteString, entry: EntryOut, type: number, cookie: bigint): boolean;
}

/** What the kernel offered and the session took; flags are FUSE_* bits of both words. */
export interface Negotiated {
  readonly minor: number;
  readonly flags: bigint;
  readonly maxWriteBytes: number;
}

export interface FileSystem {
  /** After FUSE_INIT, before anything else; not called where a session goes on from an earlier process. */
  init?(negotiated: Negotiated): void;
  /** Unmounted. */
  destroy?(): void;

  lookup(request: Request, parent: NodeId, name: ByteString, out: EntryOut): Answer;
  forget(node: NodeId, lookups: number): void;
  getattr(request: Request, node: NodeId, handle: FileHandle | null, out: AttrOut): Answer;
  /** What stat(1) and `statx(STATX_BTIME)` ask. Without it the kernel does with GETATTR and knows no birth times. */
  statx?(request: Request, node: NodeId, handle: FileHandle | null, out: StatxOut): Answer;
  setattr(request: Request, node: NodeId, change: SetAttrIn, out: AttrOut): Answer;
  /** Answers the length of the target. */
  readlink(request: Request, node: NodeId, into: Uint8Array): Answer;
  symlink(request: Request, parent: NodeId, name: ByteString, target: ByteString, out: EntryOut): Answer;
  /** `umask` is 0 unless the session negotiated FUSE_DONT_MASK. */
  mknod(
    request: Request,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: EntryOut,
  ): Answer;
  mkdir(request: Request, parent: NodeId, name: ByteString, mode: number, umask: number, out: EntryOut): Answer;
  unlink(request: Request, parent: NodeId, name: ByteString): Answer;
  rmdir(request: Request, parent: NodeId, name: ByteString): Answer;
  /** RENAME and RENAME2; `flags`: 0, RENAME_NOREPLACE (1), RENAME_EXCHANGE (2). */
  rename(
    request: Request,
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Answer;
  link(request: Request, node: NodeId, newParent: NodeId, newName: ByteString, out: EntryOut): Answer;

  /** `flags`: open(2) flags; `killSuidgid` as in SETATTR, with O_TRUNC. */
  open(request: Request, node: NodeId, flags: number, out: OpenOut, killSuidgid: boolean): Answer;
  create(
    request: Request,
    parent: NodeId,
    name: ByteString,
    flags: number,
    mode: number,
    umask: number,
    entry: EntryOut,
    out: OpenOut,
    killSuidgid: boolean,
  ): Answer;
  tmpfile?(
    request: Request,
    parent: NodeId,
    flags: number,
    mode: number,
    umask: number,
    entry: EntryOut,
    out: OpenOut,
  ): Answer;
  /** Answers how many bytes of `into` were filled. */
  read(request: Request, node: NodeId, handle: FileHandle, offset: number, into: Uint8Array, flags: number): Answer;
  /** `flags`: open(2) flags of the file; `cached`: from the kernel's writeback cache; `killSuidgid` as in SETATTR. */
  write(
    request: Request,
    node: NodeId,
    handle: FileHandle,
    offset: number,
    data: Uint8Array,
    flags: number,
    cached: boolean,
    killSuidgid: boolean,
  ): Answer;
  flush(request: Request, node: NodeId, handle: FileHandle, lockOwner: bigint): Answer;
  /** Not interruptible; the result reaches nobody. `flockOwner` non-null: also drop this owner's flock(2) locks. */
  release(request: Request, node: NodeId, handle: FileHandle, flags: number, flockOwner: bigint | null): Answer;
  fsync(request: Request, node: NodeId, handle: FileHandle, dataOnly: boolean): Answer;
  fallocate(request: Request, node: NodeId, handle: FileHandle, offset: number, length: number, mode: number): Answer;
  /** Answers the offset. */
  lseek(request: Request, node: NodeId, handle: FileHandle, offset: number, whence: number): Answer;
  /** Answers how many bytes were copied. */
  copyFileRange(
    request: Request,
    node: NodeId,
    handle: FileHandle,
    offset: number,
    toNode: NodeId,
    toHandle: FileHandle,
    toOffset: number,
    length: number,
  ): Answer;

  opendir(request: Request, node: NodeId, flags: number, out: OpenOut): Answer;
  /** From `cookie` on (0n is the beginning). `plus`: READDIRPLUS, use `addPlus`. */
  readdir(request: Request, node: NodeId, handle: FileHandle, cookie: bigint, plus: boolean, out: DirectoryOut): Answer;
  releasedir(request: Request, node: NodeId, handle: FileHandle): Answer;
  fsyncdir(request: Request, node: NodeId, handle: FileHandle, dataOnly: boolean): Answer;

  /** Answers the length; with an empty `into` only that; ERANGE if it does not fit. */
  getxattr(request: Request, node: NodeId, name: ByteString, into: Uint8Array): Answer;
  listxattr(request: Request, node: NodeId, into: Uint8Array): Answer;
  setxattr(
    request: Request,
    node: NodeId,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Answer;
  removexattr(request: Request, node: NodeId, name: ByteString): Answer;

  /** Only where the session does not leave locks to the kernel. SETLK with `wait` is SETLKW. */
  getlk?(request: Request, node: NodeId, lock: LockIn, out: LockOut): Answer;
  setlk?(request: Request, node: NodeId, lock: LockIn, wait: boolean): Answer;

  statfs(request: Request, node: NodeId, out: StatfsOut): Answer;
  syncfs(request: Request, node: NodeId): Answer;
}
