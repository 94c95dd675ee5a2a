/** Whole transfers on open files: short ones go on until the end of the file or an error. */
import { cloneFile, copyFileRange, pread, pwrite } from "../posix/files.ts";
import { EINVAL, EIO, ENOSYS, ENOTTY, EOPNOTSUPP, EXDEV } from "../util/errno.ts";

/** Answers how many bytes, fewer only at the end of the file. */
export function readFully(fd: number, into: Uint8Array, position: number): number {
  let done = pread(fd, into, position);
  while (done > 0 && done < into.byteLength) {
    const more = pread(fd, into.subarray(done), position + done);
    if (more < 0) return more;
    if (more === 0) break;
    done += more;
  }
  return done;
}

/** Answers the length of `data`, or an errno. */
export function writeFully(fd: number, data: Uint8Array, position: number): number {
  let done = pwrite(fd, data, position);
  while (done >= 0 && done < data.byteLength) {
    const more = pwrite(fd, data.subarray(done), position + done);
    if (more < 0) return more;
    if (more === 0) return -EIO; // no file system does this; better an error than a loop
    done += more;
  }
  return done;
}

const copyChunkBytes = 1 << 20;

/** Answers how many bytes, fewer only at the end of the source. Shares extents where the file system can. */
export function copyFully(from: number, fromPosition: number, to: number, toPosition: number, length: number): number {
  let done = 0;
  while (done < length) {
    const bytes = Math.min(length - done, 1 << 30);
    const copied = copyFileRange(from, fromPosition + done, to, toPosition + done, bytes);
    if (copied === 0) return done;
    if (copied > 0) done += copied;
    else if (done === 0 && isUnsupportedCopy(copied)) return copyByHand(from, fromPosition, to, toPosition, length);
    else return copied;
  }
  return done;
}

/** FICLONE; EOPNOTSUPP where the file system shares no data between files. */
export function cloneWhole(from: number, to: number): number {
  const result = cloneFile(from, to);
  return result === -ENOTTY || result === -EINVAL || isUnsupportedCopy(result) ? -EOPNOTSUPP : result;
}

/** EINVAL is also for overlapping ranges of one file, which are refused by hand as well. */
function isUnsupportedCopy(result: number): boolean {
  return result === -EXDEV || result === -EOPNOTSUPP || result === -ENOSYS;
}

function copyByHand(from: number, fromPosition: number, to: number, toPosition: number, length: number): number {
  if (from === to && Math.abs(fromPosition - toPosition) < length) return -EINVAL;
  const buffer = Buffer.allocUnsafe(Math.min(length, copyChunkBytes));
  let done = 0;
  while (done < length) {
    const chunk = buffer.subarray(0, Math.min(buffer.byteLength, length - done));
    const bytes = readFully(from, chunk, fromPosition + done);
    if (bytes < 0) return bytes;
    if (bytes === 0) break;
    const written = writeFully(to, chunk.subarray(0, bytes), toPosition + done);
    if (written < 0) return written;
    done += bytes;
  }
  return done;
}
