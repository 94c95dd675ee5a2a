/**
 * Replaces a file by a copy of itself: a new file with the same bytes, owner, mode and times takes its name in one
 * rename. Whatever is still on its way to the old file's handle then has no effect.
 */
import { FileAttr } from "../util/file-attr.ts";
import type { NfsReplica } from "./nfs-replica.ts";
import { type LateCall, ReplicaError, type TreeObject } from "./replica.ts";

const copyBytes = 1 << 20;

/** False if the file is not where it was, or has several names. Rejects with `ReplicaError` on any fault. */
export async function replaceFile(
  replica: NfsReplica,
  { object, handle }: LateCall & { readonly kind: "data" },
  signal: AbortSignal,
): Promise<boolean> {
  const { parent } = object;
  if (parent === null || !(await replica.isStill(object, handle))) return false;
  const done = async (answer: number | Promise<number>): Promise<number> => {
    const result = await answer;
    if (result < 0)
      throw new ReplicaError(replica.name, "a file with late writes cannot be replaced", { errno: result });
    return result;
  };
  const attr = new FileAttr();
  await done(replica.getattr(object, attr));
  if (attr.nlink !== 1) return false;

  const hidden: TreeObject = { parent: rootOf(object), name: ".chiron" };
  const name = `late-${process.pid}-${Math.floor(Math.random() * 1e12)}`;
  const from = await done(replica.open(object, "read"));
  const to = await done(replica.create(hidden, name, 0o600, { uid: 0, gid: 0 }, null));
  try {
    for (let at = 0; ; at += copyBytes) {
      signal.throwIfAborted();
      if ((await done(replica.copyRange(from, at, to, at, copyBytes))) < copyBytes) break;
    }
    const copy: TreeObject = { parent: hidden, name };
    const { uid, gid, mode, size } = attr;
    const atime = { seconds: attr.atime, nsec: attr.atimeNsec };
    const mtime = { seconds: attr.mtime, nsec: attr.mtimeNsec };
    await done(replica.setattr(copy, to, { size, uid, gid, mode: mode & 0o7777, atime, mtime }, null));
    await done(replica.fsync(to, false));
    await done(replica.rename(hidden, name, parent, object.name, 0));
  } catch (error) {
    await replica.unlink(hidden, name);
    throw error;
  } finally {
    replica.close(from);
    replica.close(to);
  }
  replica.forget(object);
  return true;
}

function rootOf(object: TreeObject): TreeObject {
  let at = object;
  while (at.parent !== null) at = at.parent;
  return at;
}
