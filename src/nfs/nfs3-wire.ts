/** The data types of NFS v3 (RFC 1813) on the wire: status codes, attributes, and what comes before and after results. */
import { EDQUOT, EINVAL, EIO, ENAMETOOLONG, ENOTEMPTY, EOPNOTSUPP, EREMOTEIO, ESTALE } from "../util/errno.ts";
import {
  type FileAttr,
  foldIno,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  S_IFSOCK,
} from "../util/file-attr.ts";
import type { FileHandle, Found, SetAttr, Time } from "./protocol.ts";
import type { XdrReader, XdrWriter } from "./xdr.ts";

export const nfsProgram = 100003;

export const Proc = {
  getattr: 1,
  setattr: 2,
  lookup: 3,
  readlink: 5,
  read: 6,
  write: 7,
  create: 8,
  mkdir: 9,
  symlink: 10,
  mknod: 11,
  remove: 12,
  rmdir: 13,
  rename: 14,
  link: 15,
  readdir: 16,
  readdirplus: 17,
  fsstat: 18,
  fsinfo: 19,
  pathconf: 20,
  commit: 21,
} as const;

/** Not a Linux errno that any file system answers: try again later (NFS3ERR_JUKEBOX). */
export const tryLater = 528;

export const maxHandleBytes = 64;

/** A status as a negative errno. Most are numbered as Linux numbers them. */
export function errnoOfStatus(status: number): number {
  switch (status) {
    case 63:
      return -ENAMETOOLONG;
    case 66:
      return -ENOTEMPTY;
    case 69:
      return -EDQUOT;
    case 70:
    case 10001: // BADHANDLE
      return -ESTALE;
    case 71:
      return -EREMOTEIO;
    case 10004:
      return -EOPNOTSUPP;
    case 10007: // BADTYPE
      return -EINVAL;
    case 10008:
      return -tryLater;
    case 1:
    case 2:
    case 5:
    case 6:
    case 13:
    case 17:
    case 18:
    case 19:
    case 20:
    case 21:
    case 22:
    case 27:
    case 28:
    case 30:
    case 31:
      return -status;
    default:
      return -EIO; // NOT_SYNC, BAD_COOKIE, TOOSMALL, SERVERFAULT, and what no server should say
  }
}

const typeBits = [0, S_IFREG, S_IFDIR, S_IFBLK, S_IFCHR, S_IFLNK, S_IFSOCK, S_IFIFO];

/** The kernel's `new_encode_dev`. */
export function encodeDev(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

export function decodeDev(rdev: number): { readonly major: number; readonly minor: number } {
  return { major: (rdev & 0xfff00) >>> 8, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}

export function readAttr(reader: XdrReader, attr: FileAttr, fsid: Found | null): void {
  const type = typeBits[reader.u32()] ?? 0;
  attr.mode = (reader.u32() & 0o7777) | type;
  attr.nlink = reader.u32();
  attr.uid = reader.u32();
  attr.gid = reader.u32();
  attr.size = reader.u64();
  attr.blocks = Math.ceil(reader.u64() / 512);
  const major = reader.u32();
  const minor = reader.u32();
  attr.rdev = type === S_IFBLK || type === S_IFCHR ? encodeDev(major, minor) : 0;
  const fsidMajor = reader.u32();
  const fsidMinor = reader.u32();
  if (fsid !== null) {
    fsid.fsidMajor = fsidMajor;
    fsid.fsidMinor = fsidMinor;
  }
  const high = reader.u32();
  attr.ino = foldIno(reader.u32(), high);
  attr.atime = reader.u32();
  attr.atimeNsec = reader.u32();
  attr.mtime = reader.u32();
  attr.mtimeNsec = reader.u32();
  attr.ctime = reader.u32();
  attr.ctimeNsec = reader.u32();
}

const attrBytes = 84;

/** post_op_attr into `found`, or skipped. */
export function readPostOp(reader: XdrReader, found: Found | null): void {
  if (!reader.bool()) {
    if (found !== null) found.hasAttr = false;
    return;
  }
  if (found === null) {
    reader.skip(attrBytes);
    return;
  }
  found.hasAttr = true;
  readAttr(reader, found.attr, found);
}

/** wcc_data: what is before the change is of no use to us, what is after it goes into `found`. */
export function readWcc(reader: XdrReader, found: Found | null): void {
  if (reader.bool()) reader.skip(24);
  readPostOp(reader, found);
}

export function readHandle(reader: XdrReader): FileHandle {
  return Buffer.from(reader.opaque(maxHandleBytes));
}

/** post_op_fh3; an empty handle if the server gave none. */
export function readPostOpHandle(reader: XdrReader): FileHandle {
  return reader.bool() ? readHandle(reader) : Buffer.alloc(0);
}

/** v3 counts seconds from 1970 to 2106; what is outside is kept at the end, as Linux does on any file system. */
function writeTime(writer: XdrWriter, time: Time | undefined): void {
  if (time === undefined) writer.u32(0);
  else if (time.seconds < 0) writer.u32(2).u32(0).u32(0);
  else if (time.seconds > 0xffffffff) writer.u32(2).u32(0xffffffff).u32(0);
  else writer.u32(2).u32(time.seconds).u32(time.nsec);
}

function writeOptional(writer: XdrWriter, value: number | undefined): void {
  if (value === undefined) writer.u32(0);
  else writer.u32(1).u32(value);
}

/** sattr3 */
export function writeSetAttr(writer: XdrWriter, change: SetAttr): void {
  writeOptional(writer, change.mode === undefined ? undefined : change.mode & 0o7777);
  writeOptional(writer, change.uid);
  writeOptional(writer, change.gid);
  if (change.size === undefined) writer.u32(0);
  else writer.u32(1).u64(change.size);
  writeTime(writer, change.atime);
  writeTime(writer, change.mtime);
}
