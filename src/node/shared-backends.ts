/**
 * Backends that many volumes' directories lie on: one connection to each for everybody who works there at the time,
 * since connecting costs a thread or a session. It ends with its last user. One that has failed anybody is left to
 * those who have it, and made anew for the next.
 */
import type { Replica } from "../replica/replica.ts";

interface Shared {
  readonly backend: Replica;
  readonly connected: Promise<void>;
  users: number;
}

export class SharedBackends {
  readonly #make: (url: string) => Replica;
  readonly #connectMs: number;
  readonly #shared = new Map<string, Shared>();

  constructor(make: (url: string) => Replica, connectMs: number) {
    this.#make = make;
    this.#connectMs = connectMs;
  }

  /** Rejects with what `work` throws, why it cannot be connected, or the signal's reason. */
  async use<T>(url: string, signal: AbortSignal, work: (backend: Replica) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const shared = this.#enter(url);
    const given = Promise.withResolvers<never>();
    const giveUp = () => given.reject(signal.reason);
    signal.addEventListener("abort", giveUp);
    try {
      await Promise.race([shared.connected, given.promise]);
      return await work(shared.backend);
    } catch (error) {
      if (this.#shared.get(url) === shared) this.#shared.delete(url);
      throw error;
    } finally {
      signal.removeEventListener("abort", giveUp);
      this.#leave(url, shared);
    }
  }

  #enter(url: string): Shared {
    let shared = this.#shared.get(url);
    if (shared === undefined) {
      const backend = this.#make(url);
      shared = { backend, connected: backend.connect({ signal: AbortSignal.timeout(this.#connectMs) }), users: 0 };
      shared.connected.catch(() => {}); // its users hear of it, if any are left
      this.#shared.set(url, shared);
    }
    shared.users += 1;
    return shared;
  }

  #leave(url: string, shared: Shared): void {
    shared.users -= 1;
    if (shared.users > 0) return;
    if (this.#shared.get(url) === shared) this.#shared.delete(url);
    // One that hangs keeps its calls for ever; nobody waits for that.
    void shared.backend.disconnect();
  }
}
