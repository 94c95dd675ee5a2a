/**
 * Waits for requests on /dev/fuse in the main thread, without a hop, and lets libuv live beside it.
 *
 * A turn runs as an immediate of node. It takes all requests that are queued; looks a little longer for the next one
 * where that has paid lately; and, when there was nothing to do, sleeps in poll(2) on both the device and libuv's own
 * descriptor, for as long as libuv itself would. Then libuv has its turn.
 *
 * - After 64 requests or 2 ms of them libuv has its turn as well, so timers, sockets and messages live on under load.
 * - It sleeps only in a turn that has taken nothing, and for 1 ms at most if libuv handled events since the last turn:
 *   a watcher that a callback has just made reaches epoll only when libuv itself polls next.
 * - An idle device costs nothing; when to spin is `spin-choice.ts`'s.
 */
import { POLLIN } from "../posix/constants.ts";
import { PollSet, UvLoop } from "../posix/poll.ts";
import { EINTR, errnoName } from "../util/errno.ts";
import { SpinChoice } from "./spin-choice.ts";

/** A request was taken. */
export const TAKEN = 1;
/** There is none. */
export const NOTHING = 0;
/** There will be none any more. */
export const GONE = -1;

export interface DeviceWork {
  /** Takes the next request and handles it, or begins to. */
  take(): typeof TAKEN | typeof NOTHING | typeof GONE;
  /** How many requests wait for something that comes through libuv. */
  readonly pending: number;
  /** Nothing to do just now; true if something was found all the same. */
  idle(): boolean;
  /** The loop is at work, from now until `idle` answers false. */
  awake(): void;
}

const maxRequests = 64;
const maxTurnMs = 2;

export class DeviceLoop {
  readonly #work: DeviceWork;
  readonly #uv = new UvLoop();
  readonly #polls = new PollSet(2);
  readonly #spinMs: number;
  #next: NodeJS.Immediate | null = null;
  /** libuv's timeout is 0 if no handle keeps it alive. */
  #keepAlive: NodeJS.Timeout | null = null;
  /** The last run ended with requests left, perhaps. */
  #more = true;
  /** Requests are pending, and until then turns go through libuv without sleeping. */
  #spinUntil = 0;
  #events = -1;
  readonly #choice = new SpinChoice();

  constructor(fd: number, work: DeviceWork, spinMicroseconds: number) {
    this.#work = work;
    this.#spinMs = spinMicroseconds / 1000;
    this.#polls.set(0, fd, POLLIN);
    this.#polls.set(1, this.#uv.fd, POLLIN);
  }

  start(): void {
    if (this.#next !== null) return;
    this.#keepAlive = setInterval(() => {}, 2 ** 31 - 1);
    this.#next = setImmediate(this.#turn);
  }

  /** No request is taken any more; may be called by a request. */
  stop(): void {
    if (this.#next === null) return;
    clearImmediate(this.#next);
    if (this.#keepAlive !== null) clearInterval(this.#keepAlive);
    this.#next = null;
    this.#keepAlive = null;
  }

  readonly #turn = (): void => {
    const next = setImmediate(this.#turn);
    this.#next = next;
    this.#work.awake();
    if (this.#more || this.#spinUntil > 0) {
      if (this.#run()) return;
      if (this.#spinUntil > 0) {
        if (performance.now() < this.#spinUntil) return;
        this.#spinUntil = 0;
      }
    }
    if (this.#work.idle()) return;
    if (this.#sleep(next)) this.#run();
  };

  /** Takes what is there. Answers whether that was anything. */
  #run(): boolean {
    const work = this.#work;
    const choice = this.#choice;
    const started = performance.now();
    let taken = 0;
    let empty = true;
    let spinUntil = 0;
    this.#more = false;
    for (;;) {
      const result = work.take();
      if (result === TAKEN) {
        taken++;
        if (empty) {
          empty = false;
          choice.taken(spinUntil > 0 ? performance.now() : started);
          spinUntil = 0;
          this.#spinUntil = 0;
        }
        if (this.#next === null) return true;
        if (taken >= maxRequests || ((taken & 3) === 0 && performance.now() - started > maxTurnMs)) {
          this.#more = true;
          return true;
        }
      } else if (result === GONE) {
        this.stop();
        return true;
      } else if (!empty) {
        empty = true;
        const now = performance.now();
        choice.drained(now);
        if (this.#spinMs === 0 || !choice.spins) return true;
        if (work.pending > 0) {
          this.#spinUntil = now + this.#spinMs;
          return true;
        }
        spinUntil = now + this.#spinMs;
      } else if (spinUntil === 0 || performance.now() >= spinUntil) {
        return taken > 0;
      }
    }
  }

  /** Answers whether the device is readable. */
  #sleep(next: NodeJS.Immediate): boolean {
    next.unref();
    let timeoutMs = this.#uv.timeoutMs();
    next.ref();
    if (timeoutMs === 0) {
      this.#more = true;
      return false;
    }
    const events = this.#uv.events();
    if (events !== this.#events) {
      this.#events = events;
      timeoutMs = 1;
    }
    const ready = this.#polls.wait(timeoutMs);
    this.#work.awake();
    if (ready < 0 && ready !== -EINTR) throw new Error(`Cannot poll the FUSE device: ${errnoName(ready)}`);
    return ready > 0 && this.#polls.ready(0) !== 0;
  }
}
