/**
 * Handles of one connection after the other, each a descriptor counted from a base that grows with each connection: one
 * of an earlier connection is told from this one's. A descriptor is closed only when no thread uses it any more, so its
 * number is never another file's under a call.
 */
import { EBADF, ENOTCONN } from "../util/errno.ts";
import type { ReplicaHandle } from "./replica.ts";

const handlesPerConnection = 2 ** 24;

export class LocalHandles {
  readonly #close: (fd: number) => number;
  readonly #onUnderWay: (calls: number) => void;
  /** The first handle of this connection; Infinity while there is none, so that no handle passes. */
  #base = Number.POSITIVE_INFINITY;
  #connections = 0;
  readonly #open = new Set<number>();
  /** How many calls on threads use a descriptor now. */
  readonly #users = new Map<number, number>();
  readonly #closing = new Set<number>();
  #underWay = 0;
  #settled: (() => void)[] = [];

  /** `onUnderWay` hears how many calls are running on threads, whenever that changes. */
  constructor(close: (fd: number) => number, onUnderWay: (calls: number) => void = () => {}) {
    this.#close = close;
    this.#onUnderWay = onUnderWay;
  }

  /** Are calls under way on threads, or in the kernel? */
  get busy(): boolean {
    return this.#underWay > 0;
  }

  get isConnected(): boolean {
    return this.#base !== Number.POSITIVE_INFINITY;
  }

  connected(): void {
    this.#base = this.#connections++ * handlesPerConnection;
  }

  /** Closes all handles; answers when no call uses a descriptor any more. */
  async disconnected(): Promise<void> {
    this.#base = Number.POSITIVE_INFINITY;
    for (const fd of this.#open) this.closeDescriptor(fd);
    this.#open.clear();
    if (this.#underWay > 0) await new Promise<void>((resolve) => this.#settled.push(resolve));
  }

  /** The handle of a descriptor that was just opened; an errno stays what it is. */
  opened(fd: number): number {
    if (fd < 0) return fd;
    if (this.#base === Number.POSITIVE_INFINITY) {
      this.#close(fd);
      return -ENOTCONN;
    }
    this.#open.add(fd);
    return this.#base + fd;
  }

  /** A negative number if the handle is closed, of no connection or an earlier one: `why` says the errno. */
  descriptor(handle: ReplicaHandle): number {
    const fd = handle - this.#base;
    return this.#open.has(fd) ? fd : -1; // a closed one's number may be another file's by now
  }

  why(handle: ReplicaHandle): number {
    return handle < 0 || handle >= this.#base ? -EBADF : -ENOTCONN;
  }

  close(handle: ReplicaHandle): number {
    const fd = this.descriptor(handle);
    if (!this.#open.delete(fd)) return this.why(handle);
    return this.closeDescriptor(fd);
  }

  /** At once, or after the last call that uses it. */
  closeDescriptor(fd: number): number {
    if (!this.#users.has(fd)) return this.#close(fd);
    this.#closing.add(fd);
    return 0;
  }

  /** Counts a call that uses these descriptors (-1: none) until it has ended. */
  async during<T>(call: Promise<T>, fd: number, other = fd): Promise<T> {
    this.#onUnderWay(++this.#underWay);
    this.#acquire(fd);
    if (other !== fd) this.#acquire(other);
    try {
      return await call;
    } finally {
      this.#release(fd);
      if (other !== fd) this.#release(other);
      this.#onUnderWay(--this.#underWay);
      if (this.#underWay === 0) for (const resolve of this.#settled.splice(0)) resolve();
    }
  }

  #acquire(fd: number): void {
    if (fd >= 0) this.#users.set(fd, (this.#users.get(fd) ?? 0) + 1);
  }

  #release(fd: number): void {
    if (fd < 0) return;
    const users = (this.#users.get(fd) ?? 1) - 1;
    if (users > 0) {
      this.#users.set(fd, users);
      return;
    }
    this.#users.delete(fd);
    if (this.#closing.delete(fd)) this.#close(fd);
  }
}
