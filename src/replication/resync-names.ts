/** Creation and removal of names on a replica that is brought up to date. */
import type { Owner, Replica, TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT } from "../util/errno.ts";
import { type FileAttr, isDirectory, S_IFLNK, S_IFMT } from "../util/file-attr.ts";
import { attributesOf, type Copy, must, namesIn, ReplicaCallError, readLink } from "./replica-call.ts";

/** Makes an object of the source's type, mode and owner; contents, times and extended attributes come later. */
export async function createLike(source: Copy, attr: FileAttr, target: Copy): Promise<void> {
  const { replica, object } = target;
  const { parent, name } = object;
  if (parent === null) throw new ReplicaCallError(target, "create", -ENOENT);
  const owner: Owner = { uid: attr.uid, gid: attr.gid };
  if (isDirectory(attr.mode)) {
    await must(target, "create", replica.mkdir(parent, name, attr.mode & 0o7777, owner, null));
  } else if ((attr.mode & S_IFMT) === S_IFLNK) {
    await must(target, "create", replica.symlink(parent, name, await readLink(source), owner, null));
  } else {
    await must(target, "create", replica.mknod(parent, name, attr.mode, attr.rdev, owner, null));
  }
}

export interface RemovalHooks {
  /** Asked for each object first; true if it has been taken elsewhere. */
  readonly keep: (object: TreeObject) => Promise<boolean>;
  /** A name of a file that has others is about to go. */
  readonly onOneOfSeveral: (attr: FileAttr) => void;
  readonly pace: () => Promise<void>;
}

/** Removes an object, with everything in it. Nothing happens if there is none. */
export async function removeObject(target: Copy, hooks: RemovalHooks): Promise<void> {
  const attr = await attributesOf(target);
  if (attr === null || (await hooks.keep(target.object))) return;
  const { replica, object } = target;
  const parent = object.parent as TreeObject;
  if (!isDirectory(attr.mode)) {
    if (attr.nlink > 1) hooks.onOneOfSeveral(attr);
    await gone(target, replica.unlink(parent, object.name));
  } else {
    await removeContents(target, hooks);
    await gone(target, replica.rmdir(parent, object.name));
  }
  replica.forget(object);
  await hooks.pace();
}

export async function removeContents(target: Copy, hooks: RemovalHooks): Promise<void> {
  const { replica, object } = target;
  for (const name of await namesIn(target)) await removeObject({ replica, object: placeIn(object, name) }, hooks);
}

/** The object for a name: the one that is known, where places are kept, or one for this occasion. */
function placeIn(directory: TreeObject, name: ByteString): TreeObject {
  const known = (directory as { readonly children?: ReadonlyMap<ByteString, TreeObject> | null }).children?.get(name);
  return known ?? { parent: directory, name };
}

async function gone(target: Copy, answer: ReturnType<Replica["unlink"]>): Promise<void> {
  const result = await answer;
  if (result < 0 && result !== -ENOENT) throw new ReplicaCallError(target, "remove", result);
}
