/**
 * System calls on open descriptors that may wait for a disk, as messages to threads of the same process, which share
 * descriptors and memory: a buffer goes as its address, and whoever sends it keeps it referenced.
 */
import { addressOf } from "../posix/memory.ts";
import { Threads } from "./threads.ts";

export const READ = 0;
export const FSYNC = 1;
export const FDATASYNC = 2;
export const SYNCFS = 3;
export const FTRUNCATE = 4;
export const FALLOCATE = 5;
export const COPY = 6;
export const READ_DIRECTORY = 7;

/** The call's number, the descriptor and up to four numbers more. */
export type ThreadCall = readonly [call: number, fd: number, a: number, b: number, c: number, d: number];

export interface ThreadCallsOptions {
  readonly maxThreads: number;
  readonly idleMs: number;
}

export class ThreadCalls {
  readonly #threads: Threads<ThreadCall, number>;

  constructor(options: ThreadCallsOptions) {
    this.#threads = new Threads({ ...options, module: "threads-worker" });
  }

  get size(): { readonly threads: number; readonly busy: number; readonly queued: number } {
    return this.#threads.size;
  }

  read(fd: number, into: Buffer, bytes: number, position: number): Promise<number> {
    return this.#threads.run([READ, fd, addressOf(into), bytes, position, 0], into);
  }

  fsync(fd: number, dataOnly: boolean): Promise<number> {
    return this.#threads.run([dataOnly ? FDATASYNC : FSYNC, fd, 0, 0, 0, 0]);
  }

  /** To its end, for what it brings into memory. */
  readDirectory(fd: number): Promise<number> {
    return this.#threads.run([READ_DIRECTORY, fd, 0, 0, 0, 0]);
  }

  syncfs(fd: number): Promise<number> {
    return this.#threads.run([SYNCFS, fd, 0, 0, 0, 0]);
  }

  ftruncate(fd: number, length: number): Promise<number> {
    return this.#threads.run([FTRUNCATE, fd, length, 0, 0, 0]);
  }

  fallocate(fd: number, mode: number, position: number, length: number): Promise<number> {
    return this.#threads.run([FALLOCATE, fd, mode, position, length, 0]);
  }

  copy(from: number, fromPosition: number, to: number, toPosition: number, length: number): Promise<number> {
    return this.#threads.run([COPY, from, fromPosition, to, toPosition, length]);
  }

  /** Queued calls answer ENOTCONN, begun ones go on. */
  stop(): void {
    this.#threads.stop();
  }

  restart(): void {
    this.#threads.restart();
  }
}
