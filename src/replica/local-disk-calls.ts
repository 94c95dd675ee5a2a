/**
 * Calls of a local replica that may wait for its disk: through io_uring where the kernel offers it, since a call there
 * costs no thread of ours and no hop; on threads otherwise, and for what io_uring does not have.
 */
import { O_CLOEXEC, O_NOFOLLOW, O_PATH } from "../posix/constants.ts";
import { close } from "../posix/files.ts";
import { type IoUring, openIoUring } from "../posix/io-uring.ts";
import { ownCString } from "../posix/libc.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOTCONN } from "../util/errno.ts";
import { RESOLVE_BELOW } from "./local-descriptors.ts";
import { ThreadCalls, type ThreadCallsOptions } from "./thread-calls.ts";

export interface LocalDiskCallsOptions extends ThreadCallsOptions {
  readonly ioUring: boolean;
}

/** Calls under way at a time, each of which may occupy a thread of the kernel if its disk hangs. */
const ringEntries = 64;
/** Of the process: more than all replicas of a volume can occupy together, so that none stops another. */
const kernelThreads = 1024;

export class LocalDiskCalls {
  readonly #threads: ThreadCalls;
  readonly #useRing: boolean;
  #ring: IoUring | null = null;

  constructor(options: LocalDiskCallsOptions) {
    this.#threads = new ThreadCalls(options);
    this.#useRing = options.ioUring;
  }

  start(): void {
    this.#threads.restart();
    if (!this.#useRing) return;
    const ring = openIoUring(ringEntries, kernelThreads);
    this.#ring = typeof ring === "number" ? null : ring;
  }

  /** Calls that have not begun answer ENOTCONN, the others go on. */
  stop(): void {
    this.#threads.stop();
    this.#ring?.close(-ENOTCONN);
    this.#ring = null;
  }

  /** Can names be looked up off the loop? */
  get finds(): boolean {
    return this.#ring !== null;
  }

  /** Looks a path below `fd` up, so that it is in memory afterwards, if it is there at all. Answers nothing of use. */
  async find(fd: number, path: ByteString): Promise<void> {
    const found = await this.#ring?.openat2(fd, ownCString(path), findHow);
    if (found !== undefined && found >= 0) close(found);
  }

  /** Reads a directory to its end, so that it is in memory afterwards. `fd`: open for reading. */
  readDirectory(fd: number): Promise<number> {
    return this.#threads.readDirectory(fd);
  }

  /** Answers how many bytes, fewer only at the end of the file. */
  read(fd: number, into: Buffer, bytes: number, position: number): Promise<number> {
    const ring = this.#ring;
    return ring === null ? this.#threads.read(fd, into, bytes, position) : readFully(ring, fd, into, bytes, position);
  }

  fsync(fd: number, dataOnly: boolean): Promise<number> {
    return this.#ring === null ? this.#threads.fsync(fd, dataOnly) : this.#ring.fsync(fd, dataOnly);
  }

  fallocate(fd: number, mode: number, position: number, length: number): Promise<number> {
    if (this.#ring === null) return this.#threads.fallocate(fd, mode, position, length);
    return this.#ring.fallocate(fd, mode, position, length);
  }

  syncfs(fd: number): Promise<number> {
    return this.#threads.syncfs(fd);
  }

  ftruncate(fd: number, length: number): Promise<number> {
    return this.#threads.ftruncate(fd, length);
  }

  copy(from: number, fromPosition: number, to: number, toPosition: number, length: number): Promise<number> {
    return this.#threads.copy(from, fromPosition, to, toPosition, length);
  }
}

/** `struct open_how`. */
const findHow = Uint32Array.of(O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, 0, 0, RESOLVE_BELOW, 0);

function readFully(ring: IoUring, fd: number, into: Buffer, bytes: number, position: number): Promise<number> {
  let done = 0;
  const goOn = (result: number): number | Promise<number> => {
    if (result <= 0) return result < 0 ? result : done;
    done += result;
    return done >= bytes ? done : ring.read(fd, into, bytes - done, position + done, done).then(goOn);
  };
  return ring.read(fd, into, bytes, position).then(goOn);
}
