/**
 * Data of open files on all replicas. The descriptors belong to the file, are opened when first needed, and a read-only
 * use opens one replica only. Reads stick to one replica, so that its caches stay warm, and go on with the next when it fails.
 */
import type { Answer, Replica } from "../replica/replica.ts";
import { EIO } from "../util/errno.ts";
import { type Op, wait } from "../util/op.ts";
import type { Intents, Membership, MissedChanges, ObjectLocks } from "./contracts.ts";
import type { FanOut } from "./fan-out.ts";
import { OpenFile } from "./open-file.ts";
import type { Times } from "./times.ts";
import type { TreeNode } from "./tree.ts";
import { classify } from "./verdict.ts";

export interface FilesDeps {
  readonly fanOut: FanOut;
  readonly membership: Membership;
  readonly intents: Intents;
  readonly missed: MissedChanges;
  readonly locks: ObjectLocks;
  readonly times: Times;
  readonly slots: number;
  /** Chooses the in-sync replica to read a file from; `not`: bits of replicas that have failed already. */
  readonly chooseReader: (file: OpenFile, not: number) => number;
  /** Told how long each read took, in microseconds; null where nobody wants to know. */
  readonly onRead: ((replica: number, microseconds: number) => void) | null;
}

export class Files {
  readonly #deps: FilesDeps;
  readonly #open = new Set<OpenFile>();

  constructor(deps: FilesDeps) {
    this.#deps = deps;
  }

  /** One more user of the node's open file. Touches no replica: descriptors come with the first use. */
  use(node: TreeNode): OpenFile {
    const file = node.open ?? new OpenFile(node, this.#deps.slots);
    node.open = file;
    file.users++;
    this.#open.add(file);
    return file;
  }

  /** A file that `Namespace.create` has opened. */
  adopt(file: OpenFile): void {
    this.#open.add(file);
  }

  /** One user less; the last one closes the descriptors. True if that was the last. */
  *release(file: OpenFile): Op<boolean> {
    if (--file.users > 0) return false;
    yield* this.#deps.times.settle(file.node);
    if (file.users > 0) return false; // opened again meanwhile
    this.#open.delete(file);
    file.node.open = null;
    for (const [index, handle] of file.handles.entries()) {
      file.handles[index] = -1; // for who has the file in hand still, and calls later
      if (handle >= 0) this.#close(index, handle);
    }
    for (const { index, handle } of file.retired) this.#close(index, handle);
    // Whoever looked at this file before it waited must not find them: their numbers may be another file's by then.
    file.handles.fill(-1);
    file.writable.fill(false);
    file.retired = [];
    return true;
  }

  #close(index: number, handle: number): void {
    const answer = this.#deps.fanOut.slot(index)?.close(handle);
    if (typeof answer === "object") void answer; // a backend's complaint at close changes nothing any more
  }

  /** A replica was disconnected: its descriptors are worth nothing any longer. */
  dropHandles(index: number): void {
    for (const file of this.#open) {
      file.handles[index] = -1;
      file.writable[index] = false;
      file.retired = file.retired.filter((old) => old.index !== index);
      if (file.reader === index) file.reader = -1;
    }
  }

  /** Calls with the replica's descriptor, which is opened first where it is not open (so). */
  #with(file: OpenFile, replica: Replica, index: number, write: boolean, call: (handle: number) => Answer): Answer {
    const handle = file.handles[index] as number;
    if (handle >= 0 && (!write || file.writable[index] === true)) return call(handle);
    const opened = replica.open(file.node, write ? "read-write" : "read");
    const keep = (fresh: number): Answer => {
      if (fresh < 0) return fresh;
      const there = file.handles[index] as number;
      if (there >= 0 && (!write || file.writable[index] === true)) {
        this.#close(index, fresh); // somebody else was faster
        return call(there);
      }
      // The old one may still have a call under way: it is closed with the file.
      if (there >= 0) file.retired.push({ index, handle: there });
      file.handles[index] = fresh;
      file.writable[index] = write;
      return call(fresh);
    };
    return typeof opened === "number" ? keep(opened) : opened.then(keep);
  }

  *read(file: OpenFile, into: Uint8Array, position: number): Op<number> {
    let failed = 0;
    for (;;) {
      const index = this.#deps.chooseReader(file, failed);
      if (index < 0) return -EIO;
      const replica = this.#deps.fanOut.replica(index);
      const { onRead } = this.#deps;
      const began = onRead === null ? 0 : performance.now();
      const answer = this.#with(file, replica, index, false, (handle) => replica.read(handle, into, position));
      const result = typeof answer === "number" ? answer : yield* wait(answer);
      if (result >= 0) {
        if (onRead !== null) onRead(index, (performance.now() - began) * 1000);
        if (failed !== 0) this.#expel(failed);
        return result;
      }
      if (classify(result) !== "fault" && this.#deps.membership.inSync.length === 1) return result;
      file.reader = -1;
      failed |= 1 << index;
      this.#errno[index] = result;
    }
  }
  readonly #errno: number[] = [];

  /** Another replica could read it: who could not is no longer the same. */
  #expel(failed: number): void {
    for (const index of this.#deps.membership.inSync) {
      if ((failed & (1 << index)) === 0) continue;
      const errno = this.#errno[index] as number;
      this.#deps.membership.expel([index], classify(errno) === "fault" ? "Fault" : "Diverged", errno);
    }
  }

  *write(file: OpenFile, data: Uint8Array, position: number): Op<number> {
    const { intents, missed, locks, fanOut, times } = this.#deps;
    const { node } = file;
    const end = position + data.length;
    const result = yield* fanOut.changeLocked(locks.acquire(node, position, end), () => intents.data(node), {
      object: node,
      call: (replica, index) =>
        this.#with(file, replica, index, true, (handle) => replica.write(handle, data, position)),
      follows: (replica) => missed.followsData(replica, node, position, end),
      again: () => missed.data(node, position, end),
    });
    times.note(node);
    return result;
  }

  *fsync(file: OpenFile, dataOnly: boolean): Op<number> {
    const { times, fanOut } = this.#deps;
    if (!dataOnly) {
      const settled = yield* times.settle(file.node);
      if (settled < 0) return settled;
    }
    return yield* fanOut.change({
      call: (replica, index) => this.#with(file, replica, index, false, (handle) => replica.fsync(handle, dataOnly)),
      follows: () => false,
    });
  }

  *fallocate(file: OpenFile, mode: number, position: number, length: number): Op<number> {
    const { node } = file;
    return yield* this.#change(node, position, position + length, (replica, index) =>
      this.#with(file, replica, index, true, (handle) => replica.fallocate(handle, mode, position, length)),
    );
  }

  /** Answers how many bytes were copied; each replica copies its own. */
  *copyRange(from: OpenFile, fromAt: number, to: OpenFile, toAt: number, length: number): Op<number> {
    return yield* this.#change(to.node, toAt, toAt + length, (replica, index) =>
      this.#with(from, replica, index, false, (source) =>
        this.#with(to, replica, index, true, (target) => replica.copyRange(source, fromAt, target, toAt, length)),
      ),
    );
  }

  *#change(node: TreeNode, start: number, end: number, call: (replica: Replica, index: number) => Answer): Op<number> {
    const { intents, missed, locks, fanOut, times } = this.#deps;
    // It may change the size: the whole file is locked.
    const result = yield* fanOut.changeLocked(locks.acquire(node), () => intents.data(node), {
      object: node,
      call,
      follows: (replica) => missed.followsData(replica, node, start, end),
      again: () => missed.data(node, start, end),
    });
    times.note(node);
    return result;
  }

  seek(file: OpenFile, position: number, whence: number): Op<number> {
    return this.#deps.fanOut.read((replica, index) =>
      this.#with(file, replica, index, false, (handle) => replica.seek(handle, position, whence)),
    );
  }
}
