/** Owners and modes on NFS: what a new object has to be, and in which steps attributes are changed. */
import type { Found, NewObject, NfsProtocol } from "../nfs/protocol.ts";
import { EPERM } from "../util/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_ISGID, S_ISUID } from "../util/file-attr.ts";
import type { KnownObject } from "./nfs-handles.ts";
import type { AttrChange, Owner } from "./replica.ts";

/** What an object made in this directory has to be: group and bit are inherited from a set-group-id directory. */
export function newObject(parent: KnownObject, mode: number, owner: Owner): NewObject {
  const inherits = (parent.mode & S_ISGID) !== 0;
  return {
    mode: inherits && (mode & S_IFMT) === S_IFDIR ? mode | S_ISGID : mode,
    uid: owner.uid,
    gid: inherits ? parent.gid : owner.gid,
  };
}

/** Gives a new object the owner and mode that were asked for, where the server made it otherwise. */
export async function dress(protocol: NfsProtocol, want: NewObject, found: Found): Promise<number> {
  const owned = found.attr.uid === want.uid && found.attr.gid === want.gid;
  if (!owned) {
    const result = await protocol.setattr(found.handle, null, { uid: want.uid, gid: want.gid }, found);
    if (result < 0) return result;
  }
  const isLink = (want.mode & S_IFMT) === S_IFLNK;
  if (!isLink && (!owned || (found.attr.mode & 0o7777) !== (want.mode & 0o7777))) {
    const result = await protocol.setattr(found.handle, null, { mode: want.mode & 0o7777 }, found);
    if (result < 0) return result;
  }
  if (!found.hasAttr) {
    const result = await protocol.getattr(found.handle, found);
    if (result < 0) return result;
  }
  return found.attr.uid === want.uid && found.attr.gid === want.gid ? 0 : -EPERM; // root is squashed
}

/** One call, or two: a server that changes owner and mode together may clear the bits that the mode sets. */
export function attrSteps(change: AttrChange, knownMode: number): AttrChange[] {
  const { mode, atime, mtime, ...first } = change;
  const special = mode !== undefined && (mode & (S_ISUID | S_ISGID)) !== 0 && (knownMode & S_IFMT) !== S_IFDIR;
  const owner = change.uid !== undefined || change.gid !== undefined;
  if (special && owner) {
    return [first, { mode, ...(atime === undefined ? {} : { atime }), ...(mtime === undefined ? {} : { mtime }) }];
  }
  return Object.keys(change).length === 0 ? [] : [change];
}
