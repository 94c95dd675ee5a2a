/** A file system in memory that keeps the locks itself, instead of leaving them to the kernel. */
import { EAGAIN, EINTR } from "../../util/errno.ts";
import type * as fuse from "../filesystem.ts";
import type { NodeId } from "../filesystem.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";

interface Held {
  readonly owner: bigint;
  readonly flock: boolean;
  readonly write: boolean;
  readonly pid: number;
  readonly start: bigint;
  readonly end: bigint;
}

export class LockingFileSystem extends MemoryFileSystem {
  readonly #held = new Map<NodeId, Held[]>();
  readonly #waiting = new Set<() => void>();

  getlk(_: fuse.Request, node: NodeId, lock: fuse.LockIn, out: fuse.LockOut): fuse.Answer {
    const conflict = this.#conflict(node, lock);
    out.type = conflict === undefined ? "unlock" : conflict.write ? "write" : "read";
    out.start = conflict?.start ?? 0n;
    out.end = conflict?.end ?? 0n;
    out.pid = conflict?.pid ?? 0;
    return 0;
  }

  setlk(request: fuse.Request, node: NodeId, lock: fuse.LockIn, wait: boolean): fuse.Answer {
    const done = this.#try(node, lock);
    if (done || !wait) return done ? 0 : -EAGAIN;
    return new Promise((resolve) => {
      const { signal } = request;
      const again = () => {
        this.#waiting.delete(again); // success can wake others, and they each other
        if (!signal.aborted && !this.#try(node, lock)) this.#waiting.add(again);
        else resolve(signal.aborted ? -EINTR : 0);
      };
      this.#waiting.add(again);
      signal.addEventListener("abort", again);
    });
  }

  override flush(_?: fuse.Request, node: NodeId = 0, __?: number, owner = 0n): fuse.Answer {
    this.#drop(node, owner, false);
    return 0;
  }

  override release(request: fuse.Request, node: NodeId, _ = 0, __ = 0, flockOwner: bigint | null = null): fuse.Answer {
    if (flockOwner !== null) this.#drop(node, flockOwner, true);
    return super.release(request, node);
  }

  #try(node: NodeId, lock: fuse.LockIn): boolean {
    if (lock.type !== "unlock" && this.#conflict(node, lock) !== undefined) return false;
    const kept: Held[] = [];
    for (const held of this.#held.get(node) ?? []) {
      if (held.owner !== lock.owner || held.flock !== lock.flock || !overlaps(held, lock)) kept.push(held);
      else {
        if (held.start < lock.start) kept.push({ ...held, end: lock.start - 1n });
        if (held.end > lock.end) kept.push({ ...held, start: lock.end + 1n });
      }
    }
    const { owner, flock, pid, start, end } = lock;
    if (lock.type !== "unlock") kept.push({ owner, flock, write: lock.type === "write", pid, start, end });
    this.#held.set(node, kept);
    if (lock.type !== "write") this.#retry();
    return true;
  }

  #drop(node: NodeId, owner: bigint, flock: boolean): void {
    const held = this.#held.get(node);
    if (held === undefined) return;
    this.#held.set(
      node,
      held.filter((lock) => lock.owner !== owner || lock.flock !== flock),
    );
    this.#retry();
  }

  #retry(): void {
    for (const again of [...this.#waiting]) again();
  }

  #conflict(node: NodeId, lock: fuse.LockIn): Held | undefined {
    return this.#held
      .get(node)
      ?.find(
        (held) =>
          held.flock === lock.flock &&
          held.owner !== lock.owner &&
          overlaps(held, lock) &&
          (held.write || lock.type === "write"),
      );
  }
}

function overlaps(held: Held, lock: fuse.LockIn): boolean {
  return held.start <= lock.end && lock.start <= held.end;
}
