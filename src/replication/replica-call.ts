/** Calls of background work on one replica: what must not fail throws, with whose fault it was. */
import type { Answer, DirectoryEntries, Replica, TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { printable } from "../util/byte-string.ts";
import { ENOENT, ENOTDIR, EOPNOTSUPP, ERANGE, errnoName } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { pathOf } from "./node-path.ts";

/** An object on one replica. */
export interface Copy {
  readonly replica: Replica;
  readonly object: TreeObject;
}

export class ReplicaCallError extends Error {
  override readonly name = "ReplicaCallError";
  readonly replica: Replica;
  readonly errno: number;

  constructor(copy: Copy, doing: string, errno: number) {
    super(`Cannot ${doing} "${pathText(copy.object)}" on replica "${copy.replica.name}": ${errnoName(errno)}`);
    this.replica = copy.replica;
    this.errno = errno;
  }
}

export function pathText(object: TreeObject): string {
  return `/${pathOf(object).map(printable).join("/")}`;
}

/** The answer, if it is not an errno. */
export async function must(copy: Copy, doing: string, answer: Answer): Promise<number> {
  const result = await answer;
  if (result < 0) throw new ReplicaCallError(copy, doing, result);
  return result;
}

/** The object's attributes, or null if there is none. */
export async function attributesOf(copy: Copy): Promise<FileAttr | null> {
  const attr = new FileAttr();
  const result = await copy.replica.getattr(copy.object, attr);
  if (result === -ENOENT || result === -ENOTDIR) return null;
  if (result < 0) throw new ReplicaCallError(copy, "read attributes of", result);
  return attr;
}

/** Attributes of an entry that may not be there. */
export async function lookupIn(directory: Copy, name: ByteString): Promise<FileAttr | null> {
  const attr = new FileAttr();
  const result = await directory.replica.lookup(directory.object, name, attr);
  if (result === -ENOENT || result === -ENOTDIR) return null;
  if (result < 0)
    throw new ReplicaCallError({ ...directory, object: { parent: directory.object, name } }, "look up", result);
  return attr;
}

/** Names in byte order; none if there is no such directory. */
export async function listOf(directory: Copy): Promise<DirectoryEntries> {
  const entries: DirectoryEntries = { names: [], types: [], inos: [] };
  const result = await directory.replica.readdir(directory.object, entries);
  if (result === -ENOENT || result === -ENOTDIR) return { names: [], types: [], inos: [] };
  if (result < 0) throw new ReplicaCallError(directory, "list", result);
  return entries;
}

export async function namesIn(directory: Copy): Promise<ByteString[]> {
  return (await listOf(directory)).names.sort();
}

export async function readLink(copy: Copy): Promise<ByteString> {
  const into = new Uint8Array(4096);
  const length = await must(copy, "read the link", copy.replica.readlink(copy.object, into));
  return Buffer.from(into.buffer, 0, length).toString("latin1");
}

/** Extended attributes that are part of the tree: not those that describe the backend itself. */
const foreign = /^(security\.selinux|system\.nfs4_|system\.nfs4acl|trusted\.overlay\.|btrfs\.)/;

/** Values by name; empty where the backend has none. */
export async function xattrsOf(copy: Copy): Promise<Map<ByteString, Uint8Array>> {
  const { replica, object } = copy;
  const values = new Map<ByteString, Uint8Array>();
  const names = await sized(copy, "list extended attributes of", (into) => replica.listxattr(object, into));
  for (const name of Buffer.from(names).toString("latin1").split("\0")) {
    if (name === "" || foreign.test(name)) continue;
    const value = await sized(copy, "read extended attributes of", (into) => replica.getxattr(object, name, into));
    values.set(name, value);
  }
  return values;
}

/** The length first, then the value; again if it has grown in between. */
async function sized(copy: Copy, doing: string, call: (into: Uint8Array) => Answer): Promise<Uint8Array> {
  for (let attempt = 0; ; attempt++) {
    const length = await call(new Uint8Array(0));
    if (length === -EOPNOTSUPP || length === 0) return new Uint8Array(0);
    if (length < 0) throw new ReplicaCallError(copy, doing, length);
    const into = new Uint8Array(length);
    const result = await call(into);
    if (result >= 0) return into.subarray(0, result);
    if (result !== -ERANGE || attempt === 8) throw new ReplicaCallError(copy, doing, result);
  }
}
