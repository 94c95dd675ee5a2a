/**
 * poll(2) on several descriptors, and what the main thread needs to sleep in it instead of in libuv: libuv's own
 * descriptor to wait on, and the time until its next timer.
 */
import { declare, sys } from "./libc.ts";

const callPoll = declare("int poll(void *fds, unsigned long count, int timeout)");
const defaultLoop = declare("void *uv_default_loop()");
const backendFd = declare("int uv_backend_fd(void *loop)");
const backendTimeout = declare("int uv_backend_timeout(void *loop)");
const metricsInfo = declare("int uv_metrics_info(void *loop, void *metrics)");

/** A fixed set of descriptors; those of a negative number are left out by the kernel. */
export class PollSet {
  readonly #fds: Int32Array;
  readonly #events: Int16Array;

  constructor(size: number) {
    this.#fds = new Int32Array(size * 2).fill(-1);
    this.#events = new Int16Array(this.#fds.buffer);
  }

  set(index: number, fd: number, events: number): void {
    this.#fds[index * 2] = fd;
    this.#events[index * 4 + 2] = events;
  }

  /** Waits until one of them is ready; -1 waits for ever. Answers how many are, 0 after the time is over. */
  wait(timeoutMs: number): number {
    return sys(callPoll(this.#fds, this.#fds.length / 2, timeoutMs));
  }

  /** POLL* bits of the last `wait`. */
  ready(index: number): number {
    return this.#events[index * 4 + 3] as number;
  }
}

/** The main thread's libuv loop. */
export class UvLoop {
  readonly #loop = defaultLoop();
  /** `uv_metrics_t`: how often the loop went round, how many events it had; 64 bits each. */
  readonly #metrics = new Uint32Array(32);
  /** Readable when a watcher that libuv has already handed to epoll has something to do. */
  readonly fd: number = backendFd(this.#loop);

  /** Until the next timer; 0 if something is to be done at once, -1 if there is no timer. */
  timeoutMs(): number {
    return backendTimeout(this.#loop);
  }

  /** Counts the events that libuv got from epoll, modulo 2^32: unchanged means that no callback of one has run. */
  events(): number {
    metricsInfo(this.#loop, this.#metrics);
    return this.#metrics[2] as number;
  }
}
