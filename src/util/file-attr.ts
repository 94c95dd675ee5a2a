/**
 * The attributes of one file, filled in place so that the hot path allocates nothing. Plain numbers: sizes and inode
 * numbers are exact up to 2^53 (whoever decodes a larger inode number folds it, see `foldIno`).
 */
export class FileAttr {
  ino = 0;
  /** Type and permission bits, as `st_mode`. */
  mode = 0;
  nlink = 0;
  uid = 0;
  gid = 0;
  /** Device number of a special file, in the kernel's new encoding (`new_encode_dev`), as FUSE wants it. */
  rdev = 0;
  size = 0;
  /** In units of 512 bytes. */
  blocks = 0;
  blksize = 4096;
  atime = 0;
  atimeNsec = 0;
  mtime = 0;
  mtimeNsec = 0;
  ctime = 0;
  ctimeNsec = 0;

  copyFrom(other: FileAttr): this {
    this.ino = other.ino;
    this.mode = other.mode;
    this.nlink = other.nlink;
    this.uid = other.uid;
    this.gid = other.gid;
    this.rdev = other.rdev;
    this.size = other.size;
    this.blocks = other.blocks;
    this.blksize = other.blksize;
    this.atime = other.atime;
    this.atimeNsec = other.atimeNsec;
    this.mtime = other.mtime;
    this.mtimeNsec = other.mtimeNsec;
    this.ctime = other.ctime;
    this.ctimeNsec = other.ctimeNsec;
    return this;
  }
}

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_ISVTX = 0o1000;

export function isDirectory(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

export function isRegular(mode: number): boolean {
  return (mode & S_IFMT) === S_IFREG;
}

/** An inode number from its two 32-bit halves: exact below 2^53, above that the high bits are mixed into the low ones. */
export function foldIno(low: number, high: number): number {
  return (high & 0x1fffff) * 2 ** 32 + ((low ^ (high >>> 21)) >>> 0);
}
