/**
 * The contract of one backend tree. Its comments are the specification; `testing/contract.ts` holds every kind to it.
 *
 * - Calls speak of objects and names, never of path strings. An object is found by its names from the root; a replica
 *   may keep descriptors or file handles for objects, and finds its way again by the names when one goes stale.
 * - Every call answers a result >= 0 or a negative errno, at once or later; it never throws and never rejects.
 *   A broken invariant (a bug) is the one exception.
 * - No symbolic link is ever followed, and no name leads out of the root or across a mount point below it.
 * - Names are bytes (`ByteString`), 1 to 255 of them, without `/` and NUL, never `.` or `..`; callers see to that.
 * - Buffers that a call was given belong to it until it has answered.
 */
import type { ByteString } from "../util/byte-string.ts";
import type { FileAttr } from "../util/file-attr.ts";
import type { Eventual } from "../util/op.ts";

/** A result >= 0, or a negative errno; now or later. */
export type Answer = Eventual<number>;

/**
 * An object of the tree by its place in it. Identity is the JavaScript object's: a rename changes `parent` and `name`
 * of the same object (after the call has answered), so that what a replica keeps for it stays right.
 */
export interface TreeObject {
  /** null for the root. */
  readonly parent: TreeObject | null;
  /** "" for the root. */
  readonly name: ByteString;
}

/** An open file of one replica, >= 0. It is worth something only until the replica is disconnected. */
export type ReplicaHandle = number;

/** Whom a new object belongs to. In a set-group-id directory its group is the directory's instead of `gid`. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Which attributes a `setattr` changes; a time is seconds and nanoseconds, and null leaves it alone. */
export interface AttrChange {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: TimeSpec;
  readonly mtime?: TimeSpec;
}
export interface TimeSpec {
  readonly seconds: number;
  readonly nsec: number;
}

/** What a directory holds, without `.` and `..`: parallel arrays. */
export interface DirectoryEntries {
  readonly names: ByteString[];
  /** Type bits of `st_mode` (S_IFREG, …); 0 where the backend does not say. */
  readonly types: number[];
  readonly inos: number[];
}

export interface FileSystemStats {
  blockSizeBytes: number;
  blocks: number;
  freeBlocks: number;
  availableBlocks: number;
  files: number;
  freeFiles: number;
  maxNameBytes: number;
}

/** What a backend can do, as probed in its `.chiron` directory. */
export interface Capabilities {
  readonly userXattrs: boolean;
  /** `trusted.*` and `security.*`. */
  readonly rootXattrs: boolean;
  readonly acls: boolean;
  readonly hardLinks: boolean;
  readonly symlinks: boolean;
  /** Character and block devices, FIFOs and sockets. */
  readonly specialFiles: boolean;
  /** SEEK_HOLE tells holes from data, and PUNCH_HOLE makes them. */
  readonly holes: boolean;
  /** Preallocation (fallocate mode 0). */
  readonly fallocate: boolean;
  /** RENAME_NOREPLACE and RENAME_EXCHANGE. */
  readonly renameFlags: boolean;
  /** 1 where nanoseconds are kept; 1,000 for microseconds, and so on. */
  readonly timeGranularityNsec: number;
  readonly maxNameBytes: number;
}

/** A change without an answer, by what it may still change. */
export type LateCall =
  /** Bytes of the file that had this handle then. */
  | { readonly kind: "data"; readonly object: TreeObject; readonly handle: Buffer }
  | { readonly kind: "attributes"; readonly object: TreeObject }
  | { readonly kind: "entry"; readonly directory: TreeObject; readonly name: ByteString };

export interface Replica {
  /** A DNS label, unique in the volume. */
  readonly name: string;
  /** For people and status: a path, or `nfs://…`. */
  readonly url: string;

  /**
   * Finds the root and makes the replica ready for calls. Rejects with a `ReplicaError` that says what to check.
   * After `disconnect` it may be called again, and looks for the root afresh.
   */
  connect(options: { readonly signal: AbortSignal }): Promise<void>;
  /**
   * Makes the directory that `connect` did not find, if the URL asks for that: only when the volume is created. False if
   * there is nothing to make. Rejects with a `ReplicaError`.
   */
  makeRoot?(options: { readonly signal: AbortSignal }): Promise<boolean>;
  /**
   * Issues no further call (each answers ENOTCONN), drops what is queued, closes all handles. Resolves when every call
   * that was issued has ended or can no longer take effect, which may be never: don't wait for it without a deadline.
   */
  disconnect(): Promise<void>;
  /**
   * Shuts out every process that took this replica of the volume over before, and all calls of earlier connections:
   * they have no effect any more. For kinds that can (NFS v4.1). Called once the volume is this process's, after each
   * `connect`, before anything is changed. Rejects with a `ReplicaError`.
   */
  takeOver?(volumeId: string): Promise<void>;
  /** Connected, and `takeOver` really shuts them out: the server sees to it. */
  readonly fences?: boolean;
  /** Changes that were sent and had no answer, and that nothing keeps from happening at any later time. */
  readonly lateCalls?: readonly LateCall[];
  /** The caller has dealt with these. */
  settleLateCalls?(calls: readonly LateCall[]): void;
  /** 0 if the root is still where it was found and answers; ENODEV if another file system or nothing is there now. */
  check(): Answer;
  probe(): Promise<Capabilities>;
  /** Drops what is kept for an object that is gone or no longer of interest. */
  forget(object: TreeObject): void;

  // Names. `attr`, where it is given, receives the object's attributes after the call.
  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer;
  /** Exclusive (O_CREAT | O_EXCL); answers a handle, open for reading and writing. */
  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer;
  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer;
  /** A FIFO, socket, device or regular file; `mode` with its type bits, `rdev` as in `FileAttr`. */
  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer;
  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer;
  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer;
  unlink(directory: TreeObject, name: ByteString): Answer;
  rmdir(directory: TreeObject, name: ByteString): Answer;
  /** `flags`: 0, RENAME_NOREPLACE (1) or RENAME_EXCHANGE (2). */
  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer;
  readdir(directory: TreeObject, into: DirectoryEntries): Answer;

  // Objects.
  getattr(object: TreeObject, attr: FileAttr): Answer;
  /** `handle`: an open handle of the same object where there is one, for speed; -1 otherwise. Applied in the order
   *  size, owner, mode, times, so that a change of owner never eats a set-user-id bit that the same call sets. */
  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer;
  /** Answers the length of the target. */
  readlink(object: TreeObject, into: Uint8Array): Answer;
  /** Answers the length; with an empty `into` only that; ERANGE if it does not fit. */
  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer;
  /** `flags`: 0, XATTR_CREATE (1) or XATTR_REPLACE (2). */
  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer;
  listxattr(object: TreeObject, into: Uint8Array): Answer;
  removexattr(object: TreeObject, name: ByteString): Answer;
  /** Entries of this directory on stable storage. */
  fsyncdir(object: TreeObject): Answer;

  // Open files.
  open(object: TreeObject, access: "read" | "read-write"): Answer;
  close(handle: ReplicaHandle): Answer;
  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer;
  /** Fills `into` from `position` on; answers how many bytes, fewer only at the end of the file. */
  read(handle: ReplicaHandle, into: Uint8Array, position: number): Answer;
  /** Writes all of `data`; answers its length. Fewer bytes than that is for the replica to go on with, or an errno. */
  write(handle: ReplicaHandle, data: Uint8Array, position: number): Answer;
  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer;
  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer;
  /** SEEK_DATA (3) and SEEK_HOLE (4); answers the offset, or ENXIO. */
  seek(handle: ReplicaHandle, position: number, whence: number): Answer;
  /** Answers how many bytes, fewer only at the end of the source. */
  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer;
  /** Makes the file `to` share all data of `from` (a reflink), at once and for no space; EOPNOTSUPP where that cannot be. */
  clone?(from: ReplicaHandle, to: ReplicaHandle): Answer;

  // The whole.
  statfs(into: FileSystemStats): Answer;
  /** Everything written so far on stable storage. */
  sync(): Answer;
}

/** Why a replica cannot be used, for people: what happened, and what to check. */
export class ReplicaError extends Error {
  override readonly name = "ReplicaError";
  readonly replica: string;
  /** A negative errno where there is one, 0 otherwise. */
  readonly errno: number;

  constructor(replica: string, message: string, options: { readonly errno?: number; readonly cause?: unknown } = {}) {
    super(`Replica "${replica}": ${message}`, options.cause === undefined ? {} : { cause: options.cause });
    this.replica = replica;
    this.errno = options.errno ?? 0;
  }
}
