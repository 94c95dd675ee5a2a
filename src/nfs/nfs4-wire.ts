/** The data types of NFS v4.1 and v4.2 (RFC 8881, RFC 7862, RFC 8276) on the wire: operations, status codes, attributes. */
import type { ByteString } from "../util/byte-string.ts";
import {
  E2BIG,
  EACCES,
  EBADF,
  EBUSY,
  EDQUOT,
  EINVAL,
  EIO,
  ELOOP,
  ENAMETOOLONG,
  ENODATA,
  ENOTEMPTY,
  EOPNOTSUPP,
  EREMOTEIO,
  ESTALE,
} from "../util/errno.ts";
import {
  type FileAttr,
  foldIno,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../util/file-attr.ts";
import { encodeDev, tryLater } from "./nfs3-wire.ts";
import type { Found, SetAttr, Time } from "./protocol.ts";
import { EPROTONOSUPPORT } from "./rpc-message.ts";
import { XdrError, type XdrReader, XdrWriter } from "./xdr.ts";

export const Op = {
  close: 4,
  commit: 5,
  create: 6,
  getattr: 9,
  getfh: 10,
  link: 11,
  lookup: 15,
  nverify: 17,
  open: 18,
  putfh: 22,
  putrootfh: 24,
  read: 25,
  readdir: 26,
  readlink: 27,
  remove: 28,
  rename: 29,
  restorefh: 31,
  savefh: 32,
  setattr: 34,
  verify: 37,
  write: 38,
  exchangeId: 42,
  createSession: 43,
  destroySession: 44,
  sequence: 53,
  reclaimComplete: 58,
  deallocate: 62,
  seek: 69,
  getxattr: 72,
  setxattr: 73,
  listxattrs: 74,
  removexattr: 75,
} as const;

export const maxHandleBytes = 128;
export const sessionIdBytes = 16;
export const stateIdBytes = 16;

/** Status codes that mean something to the session or to open files; below zero, and out of errno's range. */
export const Nfs4Status = {
  same: -10009,
  expired: -10011,
  staleClientId: -10022,
  staleStateId: -10023,
  badStateId: -10025,
  notSame: -10027,
  noGrace: -10033,
  adminRevoked: -10047,
  completeAlready: -10054,
  badSession: -10052,
  seqMisordered: -10063,
  retryUncached: -10068,
  deadSession: -10078,
} as const;

const kept: ReadonlySet<number> = new Set(Object.values(Nfs4Status));
const likeLinux: ReadonlySet<number> = new Set([1, 2, 5, 6, 13, 17, 18, 20, 21, 22, 27, 28, 30, 31]);
const asErrno: ReadonlyMap<number, number> = new Map([
  [63, ENAMETOOLONG],
  [66, ENOTEMPTY],
  [69, EDQUOT],
  [70, ESTALE],
  [10001, ESTALE], // BADHANDLE
  [10004, EOPNOTSUPP],
  [10007, EINVAL], // BADTYPE
  [10008, tryLater], // DELAY
  [10013, tryLater], // GRACE
  [10014, ESTALE], // FHEXPIRED
  [10015, EBUSY], // SHARE_DENIED
  [10016, EACCES], // WRONGSEC
  [10019, EREMOTEIO], // MOVED
  [10021, EPROTONOSUPPORT], // MINOR_VERS_MISMATCH
  [10029, ELOOP], // SYMLINK
  [10032, EINVAL], // ATTRNOTSUPP
  [10038, EBADF], // OPENMODE
  [10039, EINVAL], // BADOWNER
  [10040, EINVAL], // BADCHAR
  [10041, EINVAL], // BADNAME
  [10044, EOPNOTSUPP], // OP_ILLEGAL
  [10046, EBUSY], // FILE_OPEN
  [10083, EINVAL], // WRONG_TYPE
  [10090, EOPNOTSUPP], // UNION_NOTSUPP
  [10095, ENODATA], // NOXATTR
  [10096, E2BIG], // XATTR2BIG
]);

/** A status as a negative errno, or one of `Nfs4Status`. */
export function errnoOfStatus4(status: number): number {
  if (status === 0) return 0;
  if (likeLinux.has(status) || kept.has(-status)) return -status;
  return -(asErrno.get(status) ?? EIO);
}

// Attributes: numbers of RFC 8881, section 5, and RFC 8276.

export const Attr = {
  type: 1,
  size: 4,
  fsid: 8,
  leaseTime: 10,
  fileid: 20,
  filesAvail: 21,
  filesFree: 22,
  filesTotal: 23,
  maxName: 29,
  maxRead: 30,
  maxWrite: 31,
  mode: 33,
  numlinks: 35,
  owner: 36,
  ownerGroup: 37,
  rawdev: 41,
  spaceAvail: 42,
  spaceFree: 43,
  spaceTotal: 44,
  spaceUsed: 45,
  timeAccess: 47,
  timeAccessSet: 48,
  timeMetadata: 52,
  timeModify: 53,
  timeModifySet: 54,
  xattrSupport: 82,
} as const;

function bitmap(attributes: readonly number[]): Buffer {
  const words: number[] = [];
  for (const attribute of attributes) {
    const word = attribute >>> 5;
    while (words.length <= word) words.push(0);
    words[word] = ((words[word] ?? 0) | (1 << (attribute & 31))) >>> 0;
  }
  const writer = new XdrWriter().u32(words.length);
  for (const word of words) writer.u32(word);
  return Buffer.concat(writer.finish());
}

/** What `FileAttr` holds. */
export const fileAttributes = bitmap([
  Attr.type,
  Attr.size,
  Attr.fsid,
  Attr.fileid,
  Attr.mode,
  Attr.numlinks,
  Attr.owner,
  Attr.ownerGroup,
  Attr.rawdev,
  Attr.spaceUsed,
  Attr.timeAccess,
  Attr.timeMetadata,
  Attr.timeModify,
]);
export const entryAttributes = bitmap([Attr.type, Attr.fileid]);
export const serverAttributes = bitmap([Attr.leaseTime, Attr.maxName, Attr.maxRead, Attr.maxWrite, Attr.xattrSupport]);
export const spaceAttributes = bitmap([
  Attr.filesAvail,
  Attr.filesFree,
  Attr.filesTotal,
  Attr.spaceAvail,
  Attr.spaceFree,
  Attr.spaceTotal,
]);

export const typeDirectory = 2;
const typeBits = [0, S_IFREG, S_IFDIR, S_IFBLK, S_IFCHR, S_IFLNK, S_IFSOCK, S_IFIFO];

export function typeBitsOf(type: number): number {
  return typeBits[type] ?? 0;
}

export function typeOfMode(mode: number): number {
  return typeBits.indexOf(mode & S_IFMT);
}

/** What a server says beside the attributes of files. */
export interface ServerFacts {
  leaseSeconds: number;
  maxName: number;
  maxRead: number;
  maxWrite: number;
  xattrs: boolean;
  filesAvail: number;
  filesFree: number;
  filesTotal: number;
  spaceAvail: number;
  spaceFree: number;
  spaceTotal: number;
}

export function newServerFacts(): ServerFacts {
  return {
    leaseSeconds: 90,
    maxName: 255,
    maxRead: 0,
    maxWrite: 0,
    xattrs: false,
    filesAvail: 0,
    filesFree: 0,
    filesTotal: 0,
    spaceAvail: 0,
    spaceFree: 0,
    spaceTotal: 0,
  };
}

/** An owner that the server gave as a name that is not a number: `fattr4` cannot be used. */
export class OwnerNameError extends XdrError {
  readonly owner: ByteString;
  constructor(owner: ByteString) {
    super(`The server names owners ("${owner}") instead of numbering them`);
    this.owner = owner;
  }
}

/** "1000", and "root" and "nobody" of whichever domain. */
function numericOwner(owner: ByteString): number {
  if (/^\d{1,10}$/.test(owner)) return Number(owner);
  const [name] = owner.split("@", 1);
  if (name === "root") return 0;
  if (name === "nobody" || name === "nogroup") return 65_534;
  throw new OwnerNameError(owner);
}

/** Reads a fattr4 with any of the attributes above into what is given. */
export function readAttributes(
  reader: XdrReader,
  attr: FileAttr | null,
  found: Found | null,
  facts: ServerFacts | null,
): void {
  const words: number[] = [];
  for (let i = reader.u32(); i > 0; i--) words.push(reader.u32());
  const end = reader.u32() + reader.position;
  let type = 0;
  for (let word = 0; word < words.length; word++) {
    for (let bit = 0; bit < 32; bit++) {
      if (((words[word] ?? 0) & (1 << bit)) === 0) continue;
      if (word * 32 + bit === Attr.type) {
        type = typeBitsOf(reader.u32());
        if (attr !== null) attr.mode = type;
      } else readAttribute(reader, word * 32 + bit, type, attr, found, facts);
    }
  }
  if (attr !== null && found !== null) found.hasAttr = true;
  reader.skip(end - reader.position);
}

function readAttribute(
  reader: XdrReader,
  attribute: number,
  type: number,
  attr: FileAttr | null,
  found: Found | null,
  facts: ServerFacts | null,
): void {
  if (attr === null) {
    readFact(reader, attribute, facts);
    return;
  }
  switch (attribute) {
    case Attr.size:
      attr.size = reader.u64();
      return;
    case Attr.fsid: {
      const major = reader.u64();
      const minor = reader.u64();
      if (found === null) return;
      found.fsidMajor = major;
      found.fsidMinor = minor;
      return;
    }
    case Attr.fileid: {
      const high = reader.u32();
      attr.ino = foldIno(reader.u32(), high);
      return;
    }
    case Attr.mode:
      attr.mode = type | (reader.u32() & 0o7777);
      return;
    case Attr.numlinks:
      attr.nlink = reader.u32();
      return;
    case Attr.owner:
      attr.uid = numericOwner(reader.string());
      return;
    case Attr.ownerGroup:
      attr.gid = numericOwner(reader.string());
      return;
    case Attr.rawdev: {
      const major = reader.u32();
      const minor = reader.u32();
      attr.rdev = type === S_IFBLK || type === S_IFCHR ? encodeDev(major, minor) : 0;
      return;
    }
    case Attr.spaceUsed:
      attr.blocks = Math.ceil(reader.u64() / 512);
      return;
    case Attr.timeAccess:
      attr.atime = reader.i64();
      attr.atimeNsec = reader.u32();
      return;
    case Attr.timeMetadata:
      attr.ctime = reader.i64();
      attr.ctimeNsec = reader.u32();
      return;
    case Attr.timeModify:
      attr.mtime = reader.i64();
      attr.mtimeNsec = reader.u32();
      return;
    default:
      throw new XdrError(`Attribute ${attribute} was not asked for`);
  }
}

function readFact(reader: XdrReader, attribute: number, facts: ServerFacts | null): void {
  const into = facts ?? newServerFacts();
  switch (attribute) {
    case Attr.leaseTime:
      into.leaseSeconds = reader.u32();
      return;
    case Attr.maxName:
      into.maxName = reader.u32();
      return;
    case Attr.maxRead:
      into.maxRead = reader.u64();
      return;
    case Attr.maxWrite:
      into.maxWrite = reader.u64();
      return;
    case Attr.xattrSupport:
      into.xattrs = reader.bool();
      return;
    case Attr.filesAvail:
      into.filesAvail = reader.u64();
      return;
    case Attr.filesFree:
      into.filesFree = reader.u64();
      return;
    case Attr.filesTotal:
      into.filesTotal = reader.u64();
      return;
    case Attr.spaceAvail:
      into.spaceAvail = reader.u64();
      return;
    case Attr.spaceFree:
      into.spaceFree = reader.u64();
      return;
    case Attr.spaceTotal:
      into.spaceTotal = reader.u64();
      return;
    default:
      throw new XdrError(`Attribute ${attribute} was not asked for`);
  }
}

/** An entry's type and file number (`entryAttributes`). */
export function readEntryAttributes(reader: XdrReader, entry: { type: number; ino: number }): void {
  const words = reader.u32();
  const first = words > 0 ? reader.u32() : 0;
  reader.skip(Math.max(0, words - 1) * 4);
  const end = reader.u32() + reader.position;
  entry.type = (first & (1 << Attr.type)) !== 0 ? typeBitsOf(reader.u32()) : 0;
  entry.ino = 0;
  if ((first & (1 << Attr.fileid)) !== 0) {
    const high = reader.u32();
    entry.ino = foldIno(reader.u32(), high);
  }
  reader.skip(end - reader.position);
}

function writeTime(values: XdrWriter, time: Time): void {
  values.u32(1).i64(time.seconds).u32(time.nsec);
}

/** A fattr4 of the attributes to set; values follow in the order of their numbers. */
export function writeSetAttr4(args: XdrWriter, change: SetAttr): void {
  const attributes: number[] = [];
  const values = new XdrWriter(128);
  const add = (attribute: number) => {
    attributes.push(attribute);
    return values;
  };
  if (change.size !== undefined) add(Attr.size).u64(change.size);
  if (change.mode !== undefined) add(Attr.mode).u32(change.mode & 0o7777);
  if (change.uid !== undefined) add(Attr.owner).string(String(change.uid));
  if (change.gid !== undefined) add(Attr.ownerGroup).string(String(change.gid));
  if (change.atime !== undefined) writeTime(add(Attr.timeAccessSet), change.atime);
  if (change.mtime !== undefined) writeTime(add(Attr.timeModifySet), change.mtime);
  args.fixed(attributes.length === 0 ? bitmap([]) : bitmap(attributes));
  args.opaque(Buffer.concat(values.finish()));
}

/** A fattr4 that says "is a directory", for VERIFY and NVERIFY. */
export function writeIsDirectory(args: XdrWriter): void {
  args
    .fixed(bitmap([Attr.type]))
    .u32(4)
    .u32(typeDirectory);
}

export function skipBitmap(reader: XdrReader): void {
  reader.skip(reader.u32() * 4);
}

/** change_info4 */
export function skipChangeInfo(reader: XdrReader): void {
  reader.skip(20);
}
