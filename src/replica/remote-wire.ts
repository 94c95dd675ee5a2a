/**
 * What a remote replica and its server say to each other: frames on a TLS connection, each a JSON text and bytes. Objects
 * are told by their names from the root. One connection carries many calls at once, answered in any order.
 *
 *     frame = length of all that follows (u32, little-endian) · length of the JSON (u32) · JSON · bytes
 */
import type { ByteString } from "../util/byte-string.ts";
import type { FileAttr } from "../util/file-attr.ts";
import type { AttrChange, FileSystemStats, Owner, TreeObject } from "./replica.ts";

export const REMOTE_VERSION = 1;
const maxFrameBytes = 64 << 20;

export type Names = readonly ByteString[];
export type AttrFields = readonly number[];

/** Every call with its arguments; `Replica` says what they mean. The bytes of a frame are the data, where there are any. */
export interface RemoteCalls {
  /** First of all: of sessions of one client only the last one works, and it begins when the others' calls have ended. */
  hello: [version: number, client: string];
  /** This session is the one that may change the volume's tree; all others that ever said so are over. */
  takeOver: [volumeId: string];
  check: [];
  lookup: [directory: Names, name: ByteString, wantsAttr: boolean];
  create: [directory: Names, name: ByteString, mode: number, owner: Owner, wantsAttr: boolean];
  mkdir: [directory: Names, name: ByteString, mode: number, owner: Owner, wantsAttr: boolean];
  mknod: [directory: Names, name: ByteString, mode: number, rdev: number, owner: Owner, wantsAttr: boolean];
  symlink: [directory: Names, name: ByteString, target: ByteString, owner: Owner, wantsAttr: boolean];
  link: [object: Names, directory: Names, name: ByteString, wantsAttr: boolean];
  unlink: [directory: Names, name: ByteString];
  rmdir: [directory: Names, name: ByteString];
  rename: [from: Names, fromName: ByteString, to: Names, toName: ByteString, flags: number];
  readdir: [directory: Names];
  getattr: [object: Names];
  setattr: [object: Names, handle: number, change: AttrChange, wantsAttr: boolean];
  readlink: [object: Names, bytes: number];
  getxattr: [object: Names, name: ByteString, bytes: number];
  setxattr: [object: Names, name: ByteString, flags: number];
  listxattr: [object: Names, bytes: number];
  removexattr: [object: Names, name: ByteString];
  fsyncdir: [object: Names];
  open: [object: Names, access: "read" | "read-write"];
  close: [handle: number];
  fgetattr: [handle: number];
  read: [handle: number, bytes: number, position: number];
  write: [handle: number, position: number];
  fsync: [handle: number, dataOnly: boolean];
  fallocate: [handle: number, mode: number, position: number, length: number];
  seek: [handle: number, position: number, whence: number];
  copyRange: [from: number, fromPosition: number, to: number, toPosition: number, length: number];
  clone: [from: number, to: number];
  statfs: [];
  sync: [];
}
export type RemoteCall = keyof RemoteCalls;

export interface RequestHead {
  readonly id: number;
  readonly call: RemoteCall;
  readonly args: readonly unknown[];
}
export interface ReplyHead {
  readonly id: number;
  /** As the replica answers: a result, or a negative errno. */
  readonly result: number;
  readonly attr?: AttrFields;
  readonly entries?: { readonly names: ByteString[]; readonly types: number[]; readonly inos: number[] };
  readonly stats?: FileSystemStats;
}

const noBytes = new Uint8Array(0);

export function encodeFrame(head: RequestHead | ReplyHead, bytes: Uint8Array = noBytes): Buffer {
  const json = Buffer.from(JSON.stringify(head), "utf8");
  const frame = Buffer.allocUnsafe(8 + json.length + bytes.length);
  frame.writeUInt32LE(4 + json.length + bytes.length, 0);
  frame.writeUInt32LE(json.length, 4);
  json.copy(frame, 8);
  frame.set(bytes, 8 + json.length);
  return frame;
}

export interface Frame<H> {
  readonly head: H;
  readonly bytes: Buffer;
}

/** Frames from the pieces that a connection delivers. Throws where these are no frames. */
export class FrameReader<H> {
  #pieces: Buffer[] = [];
  #length = 0;

  *push(piece: Buffer): Generator<Frame<H>> {
    this.#pieces.push(piece);
    this.#length += piece.length;
    while (this.#length >= 8) {
      const total = this.#gather(8).readUInt32LE(0);
      if (total < 4 || total > maxFrameBytes) throw new Error(`a frame of ${total} bytes`);
      if (this.#length < 4 + total) return;
      const all = this.#gather(4 + total);
      const jsonLength = all.readUInt32LE(4);
      if (jsonLength > total - 4) throw new Error("a frame's text is longer than the frame");
      const head = JSON.parse(all.toString("utf8", 8, 8 + jsonLength)) as H;
      const rest = all.subarray(4 + total);
      this.#pieces = rest.length === 0 ? [] : [rest];
      this.#length = rest.length;
      yield { head, bytes: all.subarray(8 + jsonLength, 4 + total) };
    }
  }

  /** The first piece, joined with the next ones until it has so many bytes. */
  #gather(bytes: number): Buffer {
    const first = this.#pieces[0] ?? Buffer.alloc(0);
    if (first.length >= bytes) return first;
    const joined = Buffer.concat(this.#pieces);
    this.#pieces = [joined];
    return joined;
  }
}

const fields = [
  "ino",
  "mode",
  "nlink",
  "uid",
  "gid",
  "rdev",
  "size",
  "blocks",
  "blksize",
  "atime",
  "atimeNsec",
  "mtime",
  "mtimeNsec",
  "ctime",
  "ctimeNsec",
] as const;

export const packAttr = (attr: FileAttr): AttrFields => fields.map((field) => attr[field]);

export function unpackAttr(values: AttrFields, into: FileAttr): void {
  for (const [index, field] of fields.entries()) into[field] = values[index] ?? 0;
}

export function namesOf(object: TreeObject): Names {
  const names: ByteString[] = [];
  for (let at: TreeObject | null = object; at !== null && at.parent !== null; at = at.parent) names.unshift(at.name);
  return names;
}
