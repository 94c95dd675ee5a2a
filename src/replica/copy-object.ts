/**
 * Makes one object anew beside or far from another one, with everything that belongs to it: contents with their holes,
 * owner, mode, extended attributes, times. What the target's file system can share with the source (a reflink) is shared.
 * Attributes come last, and the modification time last of all: an object that has it is complete.
 */
import { ENXIO, EOPNOTSUPP, ERANGE, errnoName } from "../util/errno.ts";
import { type FileAttr, isDirectory, isRegular, S_IFLNK, S_IFMT } from "../util/file-attr.ts";
import { type Answer, type Replica, ReplicaError, type ReplicaHandle, type TreeObject } from "./replica.ts";

/** An object on one replica. */
export interface Spot {
  readonly replica: Replica;
  readonly object: TreeObject;
}
/** How contents were made: shared with the source, or written. */
export type CopyMethod = "reflink" | "copy";

export interface CopyOptions {
  readonly signal: AbortSignal;
  /** Called between steps with the bytes that were moved. */
  readonly pace: (bytes: number) => Promise<void>;
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const pieceBytes = 4 << 20;
const root = { uid: 0, gid: 0 };

/** The answer, or a `ReplicaError` that says what could not be done to what. */
export async function must({ replica, object }: Spot, doing: string, answer: Answer): Promise<number> {
  const result = await answer;
  if (result >= 0) return result;
  throw new ReplicaError(replica.name, `cannot ${doing} "${pathText(object)}": ${errnoName(result)}`, {
    errno: result,
  });
}

export function pathText(object: TreeObject): string {
  const names: string[] = [];
  for (let at: TreeObject | null = object; at !== null && at.parent !== null; at = at.parent) names.unshift(at.name);
  return `/${names.join("/")}`;
}

/**
 * The source's attributes are given, for they may be another replica's. The target must not be there. A directory is made
 * empty, and gets its attributes by `copyAttributes` when it is filled. null for what has no contents.
 */
export async function copyObject(
  from: Spot,
  attr: FileAttr,
  to: Spot,
  options: CopyOptions,
): Promise<CopyMethod | null> {
  const { replica, object } = to;
  const { parent, name } = object;
  if (parent === null) throw new Error("A root cannot be made");
  options.signal.throwIfAborted();
  if (isDirectory(attr.mode)) {
    await must(to, "make the directory", replica.mkdir(parent, name, 0o700, root, null));
    return null;
  }
  let method: CopyMethod | null = null;
  if (isRegular(attr.mode)) method = await copyFile(from, attr, to, options);
  else if ((attr.mode & S_IFMT) === S_IFLNK) {
    const into = new Uint8Array(4096);
    const length = await must(from, "read the link", from.replica.readlink(from.object, into));
    const target = Buffer.from(into.buffer, 0, length).toString("latin1");
    await must(to, "make the link", replica.symlink(parent, name, target, root, null));
  } else await must(to, "make", replica.mknod(parent, name, (attr.mode & S_IFMT) | 0o600, attr.rdev, root, null));
  await copyAttributes(from, attr, to);
  return method;
}

async function copyFile(from: Spot, attr: FileAttr, to: Spot, options: CopyOptions): Promise<CopyMethod> {
  const { parent, name } = to.object;
  const source = await must(from, "open", from.replica.open(from.object, "read"));
  try {
    const target = await must(to, "create", to.replica.create(parent ?? to.object, name, 0o600, root, null));
    try {
      if (attr.size === 0) return "copy";
      const cloned = from.replica === to.replica ? await (to.replica.clone?.(source, target) ?? -EOPNOTSUPP) : -1;
      if (cloned >= 0) {
        await options.pace(0);
        return "reflink";
      }
      await copyData(from, source, to, target, attr.size, options);
      return "copy";
    } finally {
      await to.replica.close(target);
    }
  } finally {
    await from.replica.close(source);
  }
}

/** Segment by segment, so that holes stay holes. */
async function copyData(
  from: Spot,
  source: ReplicaHandle,
  to: Spot,
  target: ReplicaHandle,
  size: number,
  { signal, pace }: CopyOptions,
): Promise<void> {
  const buffer = from.replica === to.replica ? null : Buffer.allocUnsafe(Math.min(size, 1 << 20));
  for (let at = 0; at < size; ) {
    const data = await from.replica.seek(source, at, SEEK_DATA);
    if (data === -ENXIO) break; // holes up to the end
    // A backend that cannot tell: all of it is data.
    const start = data < 0 ? at : data;
    const hole = data < 0 ? size : await from.replica.seek(source, start, SEEK_HOLE);
    const end = Math.min(size, hole < 0 ? size : hole);
    for (at = start; at < end; ) {
      const length = Math.min(end - at, buffer?.length ?? pieceBytes);
      let done: number;
      if (buffer === null) {
        done = await must(to, "copy to", to.replica.copyRange(source, at, target, at, length));
      } else {
        const piece = buffer.subarray(0, length);
        done = await must(from, "read", from.replica.read(source, piece, at));
        if (done > 0) await must(to, "write", to.replica.write(target, piece.subarray(0, done), at));
      }
      if (done === 0) break; // shorter than its attributes said
      at += done;
      await pace(done);
      signal.throwIfAborted();
    }
    if (at < end) break;
  }
  const resized = to.replica.setattr(to.object, target, { size }, null);
  await must(to, "set the size of", resized);
}

/** Owner first, for it takes set-user-id bits and capabilities away; times last. */
export async function copyAttributes(from: Spot, attr: FileAttr, to: Spot): Promise<void> {
  const { replica, object } = to;
  await must(to, "set the owner of", replica.setattr(object, -1, { uid: attr.uid, gid: attr.gid }, null));
  for (const [name, value] of await xattrsOf(from)) {
    const set = await replica.setxattr(object, name, value, 0);
    if (set !== -EOPNOTSUPP) await must(to, `set the extended attribute ${name} of`, set);
  }
  const { mode, atime, atimeNsec, mtime, mtimeNsec } = attr;
  const times = { atime: { seconds: atime, nsec: atimeNsec }, mtime: { seconds: mtime, nsec: mtimeNsec } };
  const isLink = (mode & S_IFMT) === S_IFLNK;
  const change = isLink ? times : { mode: mode & 0o7777, ...times };
  await must(to, "set the attributes of", replica.setattr(object, -1, change, null));
}

/** Extended attributes that describe the backend itself are not the object's. */
const foreign = /^(security\.selinux|system\.nfs4_|system\.nfs4acl|trusted\.overlay\.|btrfs\.)/;

async function xattrsOf(spot: Spot): Promise<Map<string, Uint8Array>> {
  const { replica, object } = spot;
  const values = new Map<string, Uint8Array>();
  const names = await sized(spot, (into) => replica.listxattr(object, into));
  for (const name of Buffer.from(names).toString("latin1").split("\0"))
    if (name !== "" && !foreign.test(name))
      values.set(name, await sized(spot, (into) => replica.getxattr(object, name, into)));
  return values;
}

async function sized(spot: Spot, call: (into: Uint8Array) => Answer): Promise<Uint8Array> {
  for (let attempt = 0; ; attempt += 1) {
    const length = await call(new Uint8Array(0));
    if (length === -EOPNOTSUPP || length === 0) return new Uint8Array(0);
    await must(spot, "read extended attributes of", length);
    const into = new Uint8Array(length);
    const result = await call(into);
    if (result >= 0) return into.subarray(0, result);
    if (result !== -ERANGE || attempt === 8) await must(spot, "read extended attributes of", result);
  }
}
