/**
 * A replica whose calls answer ETIMEDOUT when they have not answered in time. Invariants:
 *
 * - The call goes on underneath, and may still take effect: whoever lets the replica back in waits for `disconnect`.
 * - After ETIMEDOUT the buffers are the caller's again (`abandoned.ts`), and a file that was opened too late is closed.
 * - A call that answers at once costs a comparison, one that answers later an entry in a queue: all have the same time,
 *   so they expire in their order, and one timer serves them all.
 * - What has answered while the process itself stood still is an answer: expiry is decided after the loop has polled.
 */
import type { ByteString } from "../util/byte-string.ts";
import { EOPNOTSUPP, ETIMEDOUT } from "../util/errno.ts";
import type { FileAttr } from "../util/file-attr.ts";
import { abandon } from "./abandoned.ts";
import type {
  Answer,
  AttrChange,
  Capabilities,
  DirectoryEntries,
  FileSystemStats,
  LateCall,
  Owner,
  Replica,
  ReplicaHandle,
  TreeObject,
} from "./replica.ts";

/** Where the time comes from. */
export interface Clock {
  now(): number;
  /** Runs `callback` after this time; it may keep the process alive only while `ref` is wanted. */
  after(ms: number, callback: () => void): { ref(): unknown; unref(): unknown };
  /** Runs `callback` when the loop has polled for what happened until now. */
  afterPoll(callback: () => void): void;
}

const systemClock: Clock = {
  now: () => performance.now(),
  after: (ms, callback) => setTimeout(callback, ms),
  afterPoll: (callback) => {
    setImmediate(callback);
  },
};

/** Flushing a whole file system takes as long as there is data; it is no sign of a fault before this many deadlines. */
const syncDeadlines = 6;

export function withDeadline(replica: Replica, deadlineMs: number, clock: Clock = systemClock): Replica {
  return new TimedReplica(replica, deadlineMs, clock);
}

interface Waiting {
  readonly expires: number;
  readonly answer: Promise<number>;
  resolve: ((result: number) => void) | null;
  readonly onLate: ((result: number) => void) | null;
}

/** Calls under way that share one time. */
class Deadlines {
  readonly #ms: number;
  readonly #clock: Clock;
  #queue: Waiting[] = [];
  #underWay = 0;
  #timer: { ref(): unknown; unref(): unknown } | null = null;

  constructor(ms: number, clock: Clock) {
    this.#ms = ms;
    this.#clock = clock;
  }

  /** `onLate` gets a result that came after the deadline. */
  limit(answer: Promise<number>, onLate: ((result: number) => void) | null): Promise<number> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { expires: this.#clock.now() + this.#ms, answer, resolve, onLate };
      this.#queue.push(waiting);
      if (this.#underWay++ === 0) this.#timer?.ref();
      this.#timer ??= this.#clock.after(this.#ms, () => this.#clock.afterPoll(() => this.#expire()));
      answer.then((result) => {
        if (waiting.resolve === null) onLate?.(result);
        else this.#settle(waiting, result);
      }, reject);
    });
  }

  #settle(waiting: Waiting, result: number): void {
    const { resolve } = waiting;
    waiting.resolve = null;
    if (--this.#underWay === 0) this.#timer?.unref();
    resolve?.(result);
  }

  #expire(): void {
    this.#timer = null;
    const now = this.#clock.now();
    let expired = 0;
    for (const waiting of this.#queue) {
      if (waiting.resolve !== null) {
        if (waiting.expires > now) break;
        abandon(waiting.answer);
        this.#settle(waiting, -ETIMEDOUT);
      }
      expired++;
    }
    this.#queue.splice(0, expired);
    const first = this.#queue[0];
    if (first === undefined) return;
    const wait = Math.max(1, first.expires - now);
    this.#timer = this.#clock.after(wait, () => this.#clock.afterPoll(() => this.#expire()));
  }
}

class TimedReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly #inner: Replica;
  readonly #deadlines: Deadlines;
  readonly #syncDeadlines: Deadlines;
  readonly #closeLate: (handle: number) => void;

  constructor(inner: Replica, deadlineMs: number, clock: Clock) {
    this.name = inner.name;
    this.url = inner.url;
    this.#inner = inner;
    this.#deadlines = new Deadlines(deadlineMs, clock);
    this.#syncDeadlines = new Deadlines(deadlineMs * syncDeadlines, clock);
    this.#closeLate = (handle) => {
      if (handle >= 0) void inner.close(handle);
    };
  }

  #within(answer: Answer): Answer {
    return typeof answer === "number" ? answer : this.#deadlines.limit(answer, null);
  }

  #opening(answer: Answer): Answer {
    return typeof answer === "number" ? answer : this.#deadlines.limit(answer, this.#closeLate);
  }

  connect(options: { readonly signal: AbortSignal }): Promise<void> {
    return this.#inner.connect(options);
  }

  async makeRoot(options: { readonly signal: AbortSignal }): Promise<boolean> {
    return (await this.#inner.makeRoot?.(options)) ?? false;
  }

  disconnect(): Promise<void> {
    return this.#inner.disconnect();
  }

  get fences(): boolean {
    return this.#inner.fences ?? false;
  }

  get lateCalls(): readonly LateCall[] {
    return this.#inner.lateCalls ?? [];
  }

  settleLateCalls(calls: readonly LateCall[]): void {
    this.#inner.settleLateCalls?.(calls);
  }

  async takeOver(volumeId: string): Promise<void> {
    await this.#inner.takeOver?.(volumeId);
  }

  check(): Answer {
    return this.#within(this.#inner.check());
  }

  probe(): Promise<Capabilities> {
    return this.#inner.probe();
  }

  forget(object: TreeObject): void {
    this.#inner.forget(object);
  }

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#within(this.#inner.lookup(directory, name, attr));
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#opening(this.#inner.create(directory, name, mode, owner, attr));
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#within(this.#inner.mkdir(directory, name, mode, owner, attr));
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer {
    return this.#within(this.#inner.mknod(directory, name, mode, rdev, owner, attr));
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer {
    return this.#within(this.#inner.symlink(directory, name, target, owner, attr));
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#within(this.#inner.link(object, directory, name, attr));
  }

  unlink(directory: TreeObject, name: ByteString): Answer {
    return this.#within(this.#inner.unlink(directory, name));
  }

  rmdir(directory: TreeObject, name: ByteString): Answer {
    return this.#within(this.#inner.rmdir(directory, name));
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer {
    return this.#within(this.#inner.rename(from, fromName, to, toName, flags));
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Answer {
    return this.#within(this.#inner.readdir(directory, into));
  }

  getattr(object: TreeObject, attr: FileAttr): Answer {
    return this.#within(this.#inner.getattr(object, attr));
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer {
    return this.#within(this.#inner.setattr(object, handle, change, attr));
  }

  readlink(object: TreeObject, into: Uint8Array): Answer {
    return this.#within(this.#inner.readlink(object, into));
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer {
    return this.#within(this.#inner.getxattr(object, name, into));
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer {
    return this.#within(this.#inner.setxattr(object, name, value, flags));
  }

  listxattr(object: TreeObject, into: Uint8Array): Answer {
    return this.#within(this.#inner.listxattr(object, into));
  }

  removexattr(object: TreeObject, name: ByteString): Answer {
    return this.#within(this.#inner.removexattr(object, name));
  }

  fsyncdir(object: TreeObject): Answer {
    return this.#within(this.#inner.fsyncdir(object));
  }

  open(object: TreeObject, access: "read" | "read-write"): Answer {
    return this.#opening(this.#inner.open(object, access));
  }

  close(handle: ReplicaHandle): Answer {
    return this.#within(this.#inner.close(handle));
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer {
    return this.#within(this.#inner.fgetattr(handle, attr));
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): Answer {
    return this.#within(this.#inner.read(handle, into, position));
  }

  write(handle: ReplicaHandle, data: Uint8Array, position: number): Answer {
    return this.#within(this.#inner.write(handle, data, position));
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer {
    return this.#within(this.#inner.fsync(handle, dataOnly));
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer {
    return this.#within(this.#inner.fallocate(handle, mode, position, length));
  }

  seek(handle: ReplicaHandle, position: number, whence: number): Answer {
    return this.#within(this.#inner.seek(handle, position, whence));
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer {
    return this.#within(this.#inner.copyRange(from, fromPosition, to, toPosition, length));
  }

  clone(from: ReplicaHandle, to: ReplicaHandle): Answer {
    return this.#within(this.#inner.clone?.(from, to) ?? -EOPNOTSUPP);
  }

  statfs(into: FileSystemStats): Answer {
    return this.#within(this.#inner.statfs(into));
  }

  sync(): Answer {
    const answer = this.#inner.sync();
    return typeof answer === "number" ? answer : this.#syncDeadlines.limit(answer, null);
  }
}
