/**
 * Requests that an earlier process of the mount had read come again in any order, and some replicas may have done them
 * already. One that moves or removes a name goes first: what goes by that name would look for it where it is no longer,
 * on those replicas alone, or on all of them. Before it was sent to any replica, the earlier process had let everything
 * else end that went by the name (`replication/moves.ts`); so whatever comes again beside it has not begun, or is the
 * same by the name that holds now.
 *
 * Renames of directories come before all others, from the top, then other renames and removals, then the rest; and then
 * what comes for the first time. Once all is under way this is out of the way.
 */
import type { FileSystem, Request } from "../fuse/filesystem.ts";
import type { Answer } from "../replica/replica.ts";

type Method = (...given: unknown[]) => Answer;

interface Held {
  readonly rank: number;
  start(): Answer;
}

/** Ranks from here on don't wait for each other. */
const OTHERS = 1e6;
const REMOVALS = 1e5;

export class ResentOrder {
  /** To be served. */
  readonly fileSystem: FileSystem;
  readonly #open: FileSystem;
  readonly #depthOf: (parent: number, name: string) => number | null;
  #resent: Held[] = [];
  #fresh: Held[] = [];
  #state: "open" | "collecting" | "starting" = "open";

  /** `depthOf`: how deep a directory of this name lies; null for what is no directory. */
  constructor(inner: FileSystem, depthOf: (parent: number, name: string) => number | null) {
    this.#open = inner;
    this.#depthOf = depthOf;
    this.fileSystem = { ...inner };
  }

  /** From now on requests come again, ahead of those that come for the first time. */
  hold(): void {
    this.#state = "collecting";
    for (const [name, method] of Object.entries(this.#open) as [keyof FileSystem, Method | undefined][]) {
      if (method === undefined || name === "init" || name === "destroy" || name === "forget") continue;
      const held = (...given: unknown[]): Answer => this.#take(name, method, given);
      Object.assign(this.fileSystem, { [name]: held });
    }
  }

  /** Nothing more comes again. */
  arrived(): void {
    if (this.#state !== "collecting") return;
    this.#state = "starting";
    void this.#startAll();
  }

  #take(name: keyof FileSystem, method: Method, given: unknown[]): Answer {
    const { resent } = given[0] as Request;
    if (!resent) this.arrived();
    if (this.#state === "open") return method(...given); // since just now
    const answer = Promise.withResolvers<number>();
    const held: Held = {
      rank: this.#rankOf(name, given),
      start: () => {
        try {
          const result = method(...given);
          answer.resolve(result);
          return result;
        } catch (error) {
          answer.reject(error);
          return 0;
        }
      },
    };
    (resent ? this.#resent : this.#fresh).push(held);
    return answer.promise;
  }

  #rankOf(name: keyof FileSystem, given: readonly unknown[]): number {
    if (name === "unlink" || name === "rmdir") return REMOVALS;
    if (name !== "rename") return OTHERS;
    const [, parent, from, newParent, to] = given as [unknown, number, string, number, string];
    const depths = [this.#depthOf(parent, from), this.#depthOf(newParent, to)].filter((depth) => depth !== null);
    return depths.length === 0 ? REMOVALS : Math.min(...depths);
  }

  async #startAll(): Promise<void> {
    for (const held of this.#resent.sort((a, b) => a.rank - b.rank)) {
      const answer = held.start();
      if (held.rank >= OTHERS || typeof answer === "number") continue;
      await answer.catch(() => {}); // told by whoever serves it
    }
    this.#resent = [];
    for (const held of this.#fresh) void held.start(); // answered by whoever serves it
    this.#fresh = [];
    this.#state = "open";
    Object.assign(this.fileSystem, this.#open);
  }
}
