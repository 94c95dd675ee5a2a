/**
 * Locks on objects of the tree, by ranges, first come first served.
 *
 * - Two requests for one object conflict if their ranges overlap; a request waits for everyone before it whom it conflicts
 *   with, whether they hold their lock or wait for it themselves. So nobody starves.
 * - Nothing is held: one allocation, no map and no promise. That is the common case, since operations on fast replicas
 *   end in one go. Only what is held beside something else goes into the map, which is otherwise empty.
 * - Changes of a directory's entries lock all of it. Nobody waits longer for that: the kernel itself has one change of a
 *   directory under way at a time (it holds the directory's own lock around each request). Whoever takes the locks of
 *   several directories takes them in one order.
 */
import type { Eventual } from "../util/op.ts";
import type { ObjectLock, ObjectLocks } from "./contracts.ts";
import type { TreeNode } from "./tree.ts";

export class RangeLocks implements ObjectLocks {
  /** The lock that was taken while nothing else was held. */
  #sole: HeldLock | null = null;
  /** All others, held and waiting, in the order of their arrival. */
  readonly #others = new Map<TreeNode, HeldLock[]>();

  acquire(node: TreeNode, start = 0, end = Number.POSITIVE_INFINITY): Eventual<ObjectLock> {
    const lock = new HeldLock(this, node, start, end > start ? end : start + 1);
    const sole = this.#sole;
    if (sole === null && this.#others.size === 0) {
      this.#sole = lock;
      return lock;
    }
    return this.#acquireBeside(lock);
  }

  /** Locks that are held or waited for. */
  get size(): number {
    let size = this.#sole === null ? 0 : 1;
    for (const queue of this.#others.values()) size += queue.length;
    return size;
  }

  #acquireBeside(lock: HeldLock): Eventual<ObjectLock> {
    const queue = this.#others.get(lock.node);
    if (queue === undefined) this.#others.set(lock.node, [lock]);
    else queue.push(lock);
    if (this.#isFree(lock, queue)) return lock;
    return new Promise((resolve) => {
      lock.grant = resolve;
    });
  }

  #isFree(lock: HeldLock, queue: readonly HeldLock[] | undefined): boolean {
    if (this.#sole !== null && conflict(this.#sole, lock)) return false;
    if (queue === undefined) return true;
    for (const other of queue) {
      if (other === lock) return true;
      if (conflict(other, lock)) return false;
    }
    return true;
  }

  release(lock: HeldLock): void {
    const sole = this.#sole === lock;
    if (sole) this.#sole = null;
    const queue = this.#others.size === 0 ? undefined : this.#others.get(lock.node);
    if (queue === undefined) {
      if (!sole) throw new Error("A lock was released twice");
      return;
    }
    if (!sole) {
      const index = queue.indexOf(lock);
      if (index < 0 || lock.grant !== null) throw new Error("A lock was released that is not held");
      queue.splice(index, 1);
      if (queue.length === 0) this.#others.delete(lock.node);
    }
    for (const waiter of queue) {
      const { grant } = waiter;
      if (grant === null || !this.#isFree(waiter, queue)) continue;
      waiter.grant = null;
      grant(waiter);
    }
  }
}

function conflict(a: HeldLock, b: HeldLock): boolean {
  return a.node === b.node && a.start < b.end && b.start < a.end;
}

class HeldLock implements ObjectLock {
  readonly #locks: RangeLocks;
  readonly node: TreeNode;
  readonly start: number;
  readonly end: number;
  /** Set while it waits. */
  grant: ((lock: ObjectLock) => void) | null = null;

  constructor(locks: RangeLocks, node: TreeNode, start: number, end: number) {
    this.#locks = locks;
    this.node = node;
    this.start = start;
    this.end = end;
  }

  release(): void {
    this.#locks.release(this);
  }
}
