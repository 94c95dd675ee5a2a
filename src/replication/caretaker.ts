/**
 * Looks after the replicas: notices when an in-sync one is no longer where it was, and brings those that are out back:
 * waits until their earlier calls have ended, connects, checks whose they are, resyncs, lets them in; again and again,
 * with growing pauses. One task for each replica that is out; each ends when its replica is in sync, disabled or removed.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Replica } from "../replica/replica.ts";
import { ENODEV } from "../util/errno.ts";
import { errorText, type Logger } from "../util/logger.ts";
import type { LeaveReason } from "./model.ts";

const HEALTH_CHECK_MS = 1_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

/** What the caretaker needs of the membership (`VolumeMembership` has it). */
export interface CaretakerMembership {
  readonly inSync: readonly number[];
  startSync(replica: number): void;
  stopSync(replica: number, reason: LeaveReason | null, error: string | null): void;
  setReachable(replica: number, reachable: boolean, error: string | null): void;
  expel(replicas: readonly number[], reason: LeaveReason, errno: number): void;
}

export interface CaretakerDeps {
  readonly replicas: readonly (Replica | null)[];
  readonly membership: CaretakerMembership;
  /** Its descriptors are worth nothing from now on. */
  readonly dropHandles: (replica: number) => void;
  /** Its earlier calls have ended, and nothing of it is open. */
  readonly onDisconnected: (replica: number) => void;
  /** Does it answer at all? Asked off the loop, which a replica that hangs would take with it. Rejects if not. */
  readonly reach: (replica: number) => Promise<void>;
  /** Connected: is it ours, and able to do what the volume offers? Rejects if not. */
  readonly inspect: (replica: number, signal: AbortSignal) => Promise<void>;
  /** Brings a connected replica up to date and into the membership. Rejects if that failed. */
  readonly resync: (
    replica: number,
    options: { readonly full: boolean; readonly signal: AbortSignal },
  ) => Promise<void>;
  readonly log: Logger;
}

interface Task {
  readonly abort: AbortController;
  readonly done: Promise<void>;
  /** Ends the pause, and allows a resync where these are started by hand. */
  poke: () => void;
  full: boolean;
}

export class Caretaker {
  readonly #deps: CaretakerDeps;
  readonly #automatic: boolean;
  readonly #tasks = new Map<number, Task>();
  readonly #disabled = new Set<number>();
  /** Earlier calls of a replica that have not ended. */
  readonly #ending = new Map<number, Promise<void>>();
  #health: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(deps: CaretakerDeps, options: { readonly automatic: boolean }) {
    this.#deps = deps;
    this.#automatic = options.automatic;
  }

  start(): void {
    this.#health = setInterval(() => void this.#checkHealth(), HEALTH_CHECK_MS);
    for (const [index, replica] of this.#deps.replicas.entries()) {
      if (replica !== null && !this.#deps.membership.inSync.includes(index)) this.#begin(index);
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#health !== null) clearInterval(this.#health);
    await Promise.all([...this.#tasks.keys()].map((index) => this.#end(index)));
  }

  /** A replica has left the in-sync set. */
  left(index: number): void {
    this.#disconnect(index);
    this.#begin(index);
  }

  /** Left alone until `enable`. The caller takes it out of the membership. */
  async disable(index: number): Promise<void> {
    this.#disabled.add(index);
    await this.#end(index);
    if (!this.#deps.membership.inSync.includes(index)) this.#disconnect(index);
  }

  enable(index: number): void {
    this.#disabled.delete(index);
    this.#begin(index);
  }

  isDisabled(index: number): boolean {
    return this.#disabled.has(index);
  }

  /** Resync now; `full` compares everything. */
  resync(index: number, full: boolean): void {
    this.#disabled.delete(index);
    this.#begin(index);
    const task = this.#tasks.get(index);
    if (task === undefined) return;
    task.full ||= full;
    task.poke();
  }

  #begin(index: number): void {
    if (this.#stopped || this.#tasks.has(index) || this.#disabled.has(index)) return;
    const abort = new AbortController();
    const task: Task = { abort, done: Promise.resolve(), poke: () => {}, full: false };
    const done = this.#care(index, task)
      .catch((error: unknown) => {
        if (!abort.signal.aborted) this.#deps.log.error("Caretaker failed", { replica: index, error });
      })
      .finally(() => {
        if (this.#tasks.get(index)?.abort === abort) this.#tasks.delete(index);
      });
    this.#tasks.set(index, Object.assign(task, { done }));
  }

  async #end(index: number): Promise<void> {
    const task = this.#tasks.get(index);
    if (task === undefined) return;
    task.abort.abort();
    task.poke();
    await task.done;
    this.#tasks.delete(index);
  }

  async #care(index: number, task: Task): Promise<void> {
    const { signal } = task.abort;
    let pauseMs = FIRST_PAUSE_MS;
    let allowed = this.#automatic;
    while (!signal.aborted) {
      try {
        await this.#bringBack(index, task, allowed);
        if (this.#deps.membership.inSync.includes(index)) return;
        allowed = await this.#pause(task, null); // reachable, but nobody has asked for a resync yet
      } catch (error) {
        if (signal.aborted) return;
        this.#deps.log.info("Replica is not back yet", { replica: index, error: errorText(error) });
        this.#disconnect(index);
        if (await this.#pause(task, pauseMs)) allowed = true;
        pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
      }
    }
  }

  async #bringBack(index: number, task: Task, allowed: boolean): Promise<void> {
    const { membership, reach, inspect, resync } = this.#deps;
    const { signal } = task.abort;
    const replica = this.#deps.replicas[index];
    if (replica === null || replica === undefined) throw new Error("The replica is gone");
    await abortable(this.#ending.get(index) ?? Promise.resolve(), signal);
    try {
      await reach(index);
      await replica.connect({ signal });
      await inspect(index, signal);
    } catch (error) {
      membership.setReachable(index, false, errorText(error));
      throw error;
    }
    membership.setReachable(index, true, null);
    if (!allowed) return;
    membership.startSync(index);
    try {
      await resync(index, { full: task.full, signal });
      task.full = false;
    } catch (error) {
      membership.stopSync(index, "ResyncFailed", errorText(error));
      throw error;
    }
  }

  /** True if somebody asked for a resync meanwhile. */
  async #pause(task: Task, ms: number | null): Promise<boolean> {
    const { signal } = task.abort;
    const wait = new AbortController();
    let poked = false;
    task.poke = () => {
      poked = !signal.aborted;
      wait.abort();
    };
    if (signal.aborted) return false;
    try {
      await sleep(ms ?? 2 ** 31 - 1, undefined, { signal: wait.signal });
    } catch {
      // poked
    }
    task.poke = () => {};
    return poked;
  }

  #disconnect(index: number): void {
    const replica = this.#deps.replicas[index];
    if (replica === null || replica === undefined) return;
    this.#deps.dropHandles(index);
    const ended = Promise.all([this.#ending.get(index), replica.disconnect()]).then(() => {
      if (this.#ending.get(index) !== ended) return;
      this.#ending.delete(index);
      this.#deps.onDisconnected(index);
    });
    this.#ending.set(index, ended);
  }

  async #checkHealth(): Promise<void> {
    const { membership, replicas } = this.#deps;
    for (const index of membership.inSync) {
      const result = await replicas[index]?.check();
      if (result === undefined || result >= 0 || !membership.inSync.includes(index)) continue;
      const reason = result === -ENODEV ? "Vanished" : "Fault"; // it may just not answer in time
      if (membership.inSync.length > 1) membership.expel([index], reason, result);
    }
  }
}

/** The promise, or a rejection when the signal says so. */
function abortable(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new Error("aborted"));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
