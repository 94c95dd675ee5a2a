/**
 * The locks that this process holds on local replicas (`.chiron/lock`). A first mount needs them all. A process that goes on
 * for one that hangs in a replica's call serves without those that the old one still holds, and takes them as they become
 * free; the replica that hung is only connected again with its lock, which proves that the old process is gone.
 */
import { type LocalLock, lockLocalReplica } from "../replica/local-lock.ts";

const RETRY_MS = 1_000;

export class ReplicaLocks {
  readonly #held = new Map<string, LocalLock>();
  readonly #wanted = new Set<string>();
  #timer: NodeJS.Timeout | null = null;

  /** True if the lock of this replica's root is ours. Throws if it cannot be opened. */
  take(root: string): boolean {
    if (this.#held.has(root)) return true;
    const lock = lockLocalReplica(root);
    if (lock === null) return false;
    this.#held.set(root, lock);
    this.#wanted.delete(root);
    return true;
  }

  /** As soon as it is free. */
  takeLater(root: string): void {
    this.#wanted.add(root);
    this.#timer ??= setInterval(() => this.#retry(), RETRY_MS).unref();
  }

  #retry(): void {
    for (const wanted of this.#wanted) {
      try {
        this.take(wanted);
      } catch {
        this.#wanted.delete(wanted); // the replica is gone; it is locked when it comes back
      }
    }
    if (this.#wanted.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  release(root: string): void {
    this.#held.get(root)?.release();
    this.#held.delete(root);
    this.#wanted.delete(root);
  }
}
