/**
 * What a version of NFS does for a replica, in file handles and names: v3 (`nfs3.ts`) and v4.1 (`nfs4.ts`).
 *
 * - Every call answers a number >= 0 or a negative Linux errno and never rejects. ETIMEDOUT and ENOTCONN mean that there
 *   was no answer: a change may have happened, and may still happen.
 * - File handles that are handed out are copies and may be kept.
 */
import type { ByteString } from "../util/byte-string.ts";
import { FileAttr } from "../util/file-attr.ts";

export type FileHandle = Buffer;

/** What the server knows of an open file: nothing in v3, a state id in v4.1. */
export interface OpenState {
  readonly stateid: Buffer;
}

/** An object that a call found or made, filled in place. */
export class Found {
  handle: FileHandle = noHandle;
  /** False where the server did not say. */
  hasAttr = false;
  readonly attr = new FileAttr();
  /** The file system that the object is on, in two parts. */
  fsidMajor = 0;
  fsidMinor = 0;
}

const noHandle: FileHandle = Buffer.alloc(0);

export interface ReadResult {
  endOfFile: boolean;
}

export interface WriteResult {
  /** On stable storage already. */
  stable: boolean;
  /** Changes when the server restarted and may have lost what was not committed. */
  verifier: string;
}

export interface Limits {
  readonly readBytes: number;
  readonly writeBytes: number;
}

/** Where a mount begins: the deepest directory that the server let us have, and the names that are left to walk. */
export interface MountPoint {
  readonly handle: FileHandle;
  readonly rest: readonly ByteString[];
}

export interface NfsProtocol {
  readonly version: "3" | "4.1" | "4.2";
  /** `takeOver` shuts others out. Without that, a call that was given up may take effect at any later time. */
  readonly fences: boolean;
  readonly limits: Limits;
  readonly xattrs: boolean;
  /** `deallocate` and `seek` may be used. */
  readonly holes: boolean;

  /** Rejects with `NfsError`. */
  mount(path: readonly ByteString[], options: { readonly signal: AbortSignal }): Promise<MountPoint>;
  /** Drops what is queued and answers ENOTCONN to everything. */
  close(): void;
  /**
   * Ends the sessions of all clients that have called this with the same owner before, on this connection or another:
   * when it has answered 0, none of their calls is running, and none has any effect any more.
   */
  takeOver(owner: string): Promise<number>;
  /**
   * The same, with calls that have answered by then (`performance.now()`), all that belong to one operation together:
   * afterwards none of them touches a buffer.
   */
  within(until: number): NfsProtocol;

  /** `urgent` (here and below): also while a lost connection is recovered. */
  getattr(object: FileHandle, found: Found, urgent?: boolean): Promise<number>;
  setattr(
    object: FileHandle,
    state: OpenState | null,
    change: SetAttr,
    found: Found,
    urgent?: boolean,
  ): Promise<number>;
  lookup(directory: FileHandle, name: ByteString, found: Found): Promise<number>;
  readlink(object: FileHandle, into: Uint8Array): Promise<number>;
  /** Exclusive, also when the call had to be sent again. What was made may have other attributes than asked for. */
  create(directory: FileHandle, name: ByteString, want: NewObject, found: Found): Promise<OpenState | null | number>;
  mkdir(directory: FileHandle, name: ByteString, want: NewObject, found: Found): Promise<number>;
  symlink(directory: FileHandle, name: ByteString, target: ByteString, want: NewObject, found: Found): Promise<number>;
  /** A FIFO, socket or device, by the type bits of `want.mode`. */
  mknod(directory: FileHandle, name: ByteString, rdev: number, want: NewObject, found: Found): Promise<number>;
  link(object: FileHandle, directory: FileHandle, name: ByteString): Promise<number>;
  unlink(directory: FileHandle, name: ByteString): Promise<number>;
  rmdir(directory: FileHandle, name: ByteString): Promise<number>;
  rename(from: FileHandle, fromName: ByteString, to: FileHandle, toName: ByteString): Promise<number>;
  /** Adds all entries; `each` is told of handles that came along. */
  readdir(directory: FileHandle, into: Entries, each: EachEntry): Promise<number>;

  open(object: FileHandle, access: "read" | "read-write"): Promise<OpenState | null | number>;
  closeFile(object: FileHandle, state: OpenState): Promise<number>;
  read(
    object: FileHandle,
    state: OpenState | null,
    into: Uint8Array,
    position: number,
    result: ReadResult,
  ): Promise<number>;
  /** Not on stable storage until `commit`; answers how many bytes were taken. */
  write(
    object: FileHandle,
    state: OpenState | null,
    data: Uint8Array,
    position: number,
    result: WriteResult,
    urgent?: boolean,
  ): Promise<number>;
  commit(object: FileHandle, result: WriteResult, urgent?: boolean): Promise<number>;
  deallocate(object: FileHandle, state: OpenState | null, position: number, length: number): Promise<number>;
  /** Where the next data (or the next hole) begin; ENXIO past the last. */
  seek(object: FileHandle, state: OpenState | null, position: number, hole: boolean): Promise<number>;
  statfs(root: FileHandle, into: Space): Promise<number>;

  getxattr(object: FileHandle, name: ByteString, into: Uint8Array): Promise<number>;
  setxattr(object: FileHandle, name: ByteString, value: Uint8Array, flags: number): Promise<number>;
  listxattr(object: FileHandle, into: Uint8Array): Promise<number>;
  removexattr(object: FileHandle, name: ByteString): Promise<number>;
}

/** Attributes of an object to be made; `mode` with its type bits. */
export interface NewObject {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Attributes to change; one that is missing stays. The same shape as the replica contract's. */
export interface SetAttr {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: Time;
  readonly mtime?: Time;
}
export interface Time {
  readonly seconds: number;
  readonly nsec: number;
}

/** A directory's entries without `.` and `..`, as parallel arrays; types are the type bits of modes, 0 if unknown. */
export interface Entries {
  readonly names: ByteString[];
  readonly types: number[];
  readonly inos: number[];
}

export interface Space {
  blockSizeBytes: number;
  blocks: number;
  freeBlocks: number;
  availableBlocks: number;
  files: number;
  freeFiles: number;
  maxNameBytes: number;
}

export type EachEntry = (name: ByteString, handle: FileHandle, attr: FileAttr | null) => void;

/** What happened, what to check: a line for people, with the errno it amounts to. */
export class NfsError extends Error {
  override readonly name = "NfsError";
  /** A negative errno. */
  readonly errno: number;

  constructor(message: string, errno: number, options?: ErrorOptions) {
    super(message, options);
    this.errno = errno;
  }
}
