/** What a thread of `thread-calls.ts` runs: one system call for each message; null ends it. */
import { parentPort } from "node:worker_threads";
import { passEntries } from "../posix/directories.ts";
import { fallocate, fdatasync, fsync, ftruncate, preadAddress, syncfs } from "../posix/files.ts";
import { EINVAL } from "../util/errno.ts";
import { copyFully } from "./local-files.ts";
import {
  COPY,
  FALLOCATE,
  FDATASYNC,
  FSYNC,
  FTRUNCATE,
  READ,
  READ_DIRECTORY,
  SYNCFS,
  type ThreadCall,
} from "./thread-calls.ts";

parentPort?.on("message", (call: ThreadCall | null) => {
  if (call === null) parentPort?.close();
  else parentPort?.postMessage(carryOut(call));
});

function carryOut([call, fd, a, b, c, d]: ThreadCall): number {
  switch (call) {
    case READ:
      return readInto(fd, a, b, c);
    case FSYNC:
      return fsync(fd);
    case FDATASYNC:
      return fdatasync(fd);
    case SYNCFS:
      return syncfs(fd);
    case FTRUNCATE:
      return ftruncate(fd, a);
    case FALLOCATE:
      return fallocate(fd, a, b, c);
    case COPY:
      return copyFully(fd, a, b, c, d);
    case READ_DIRECTORY:
      return passEntries(fd);
    default:
      return -EINVAL;
  }
}

/** As `readFully`, into memory of the thread that asked. */
function readInto(fd: number, address: number, length: number, position: number): number {
  let done = 0;
  while (done < length) {
    const bytes = preadAddress(fd, address + done, length - done, position + done);
    if (bytes < 0) return bytes;
    if (bytes === 0) break;
    done += bytes;
  }
  return done;
}
