/**
 * Changes of names and attributes that a replica got and did not answer, and that nothing fences off (NFS v3): each may
 * still happen, however long the replica has been in sync again. So whatever they may change is marked before the replica
 * is brought up to date, and looked at again some times after it has come in, while no change is under way. Where it
 * differs then, the replica leaves with just that marked, and is repaired like any other.
 *
 * What is looked at is pinned, so that it is found where it has been renamed to meanwhile: a late call goes by the
 * directory's handle, not by its name.
 */
import type { LateCall, Replica, TreeObject } from "../replica/replica.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { compareAttributes } from "./compare.ts";
import type { Membership } from "./contracts.ts";
import type { MissedChangesLog } from "./missed-changes.ts";
import { hasNoPlace, pathOf } from "./node-path.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";
import { attributesOf, lookupIn, pathText } from "./replica-call.ts";
import { type Tree, TreeNode } from "./tree.ts";

/**
 * After the replica has come in. Servers and networks that hold a call back for longer than the last have not been seen;
 * TCP gives an unacknowledged segment up after a quarter of an hour (tcp_retries2).
 */
const defaultLooksMs = [15_000, 75_000, 300_000, 1_000_000];

export interface LateChangesDeps {
  readonly tree: Tree;
  readonly membership: Pick<Membership, "inSync" | "expel">;
  readonly missed: Pick<MissedChangesLog, "of">;
  readonly replica: (index: number) => Replica;
  /** Runs `act` while no change is under way. */
  readonly barrier: <T>(act: () => Promise<T>) => Promise<T>;
  /** This object's modification time is made equal on all replicas. */
  readonly equalizeTimes: (node: TreeNode) => void;
  readonly log: Logger;
}

/** One thing that a late call may change: the object of a name, or an object's own attributes. */
interface Suspect {
  readonly call: LateCall;
  /** Pinned. */
  readonly node: TreeNode;
  /** In the directory `node`; null for its attributes. */
  readonly name: string | null;
}

interface Watch {
  readonly suspects: Suspect[];
  looks: number;
  timer: NodeJS.Timeout | null;
}

export class LateChanges {
  readonly #deps: LateChangesDeps;
  readonly #looksMs: readonly number[];
  readonly #watches = new Map<number, Watch>();
  #stopped = false;

  constructor(deps: LateChangesDeps, looksMs: readonly number[] = defaultLooksMs) {
    this.#deps = deps;
    this.#looksMs = looksMs;
  }

  /** A replica is about to be brought up to date: what its late calls may have changed is compared, too. */
  mark(index: number): void {
    const watch = this.#watches.get(index) ?? { suspects: [], looks: 0, timer: null };
    for (const call of this.#deps.replica(index).lateCalls ?? []) {
      if (watch.suspects.some((suspect) => suspect.call === call)) continue;
      const suspect = this.#suspect(call);
      if (suspect !== null) watch.suspects.push(suspect);
    }
    this.#hush(watch);
    if (watch.suspects.length === 0) return;
    this.#watches.set(index, watch);
    for (const suspect of watch.suspects) this.#mark(index, suspect);
  }

  /** It is in sync: from now on it is looked at again and again. */
  joined(index: number): void {
    const watch = this.#watches.get(index);
    if (watch === undefined || this.#stopped) return;
    watch.looks = 0;
    this.#lookLater(index, watch, performance.now());
  }

  stop(): void {
    this.#stopped = true;
    for (const watch of this.#watches.values()) {
      this.#hush(watch);
      for (const { node } of watch.suspects) this.#deps.tree.unpin(node);
    }
    this.#watches.clear();
  }

  #hush(watch: Watch): void {
    if (watch.timer !== null) clearTimeout(watch.timer);
    watch.timer = null;
  }

  #lookLater(index: number, watch: Watch, joinedMs: number): void {
    this.#hush(watch);
    const afterMs = this.#looksMs[watch.looks];
    if (afterMs === undefined) {
      this.#end(index, watch);
      return;
    }
    const look = async () => {
      watch.timer = null;
      watch.looks++;
      await this.#look(index, watch);
      if (this.#watches.get(index) === watch && !this.#stopped && this.#isMember(index)) {
        this.#lookLater(index, watch, joinedMs);
      }
    };
    watch.timer = setTimeout(() => void look(), Math.max(1, joinedMs + afterMs - performance.now()));
    watch.timer.unref();
  }

  /** Nothing of it will happen any more. */
  #end(index: number, watch: Watch): void {
    this.#watches.delete(index);
    this.#deps.replica(index).settleLateCalls?.(watch.suspects.map(({ call }) => call));
    for (const { node } of watch.suspects) this.#deps.tree.unpin(node);
  }

  #isMember(index: number): boolean {
    const { inSync } = this.#deps.membership;
    return inSync.length > 1 && inSync.includes(index);
  }

  async #look(index: number, watch: Watch): Promise<void> {
    const { barrier, membership, log } = this.#deps;
    try {
      await barrier(async () => {
        const source = membership.inSync.find((other) => other !== index);
        if (source === undefined || !this.#isMember(index)) return; // it is compared when it comes back
        const different: Suspect[] = [];
        for (const suspect of watch.suspects) {
          if (await this.#differs(suspect, source, index)) different.push(suspect);
        }
        if (different.length === 0) return;
        log.warn("Changes that had no answer have happened late: what they changed is repaired", {
          replica: this.#deps.replica(index).name,
          objects: different.map(({ node, name }) => pathText(name === null ? node : { parent: node, name })),
        });
        membership.expel([index], "Diverged", 0);
        for (const suspect of different) this.#mark(index, suspect);
      });
    } catch (error) {
      log.warn("Late changes could not be looked for", { error: errorText(error) }); // whoever failed is found out by others
    }
  }

  async #differs({ node, name }: Suspect, source: number, index: number): Promise<boolean> {
    if (hasNoPlace(node)) return false;
    const from = { replica: this.#deps.replica(source), object: node };
    const to = { replica: this.#deps.replica(index), object: node };
    const wanted = name === null ? await attributesOf(from) : await lookupIn(from, name);
    const there = name === null ? await attributesOf(to) : await lookupIn(to, name);
    if (wanted === null || there === null) return wanted !== there;
    const kinds = compareAttributes(wanted, there).map(({ kind }) => kind);
    if (kinds.includes("mtime") && name === null) this.#deps.equalizeTimes(node);
    return kinds.some((kind) => kind !== "mtime"); // times may still be on their way to be made equal
  }

  #mark(index: number, { node, name }: Suspect): void {
    const set = this.#deps.missed.of(index);
    if (set === null || hasNoPlace(node)) return;
    const path = pathOf(node);
    if (name !== null) {
      set.entry(path, name);
      set.tree([...path, name]);
    } else set.tree(path);
  }

  /** null for what is none of the volume's tree, or is replaced as a whole. */
  #suspect(call: LateCall): Suspect | null {
    if (call.kind === "data") return null;
    const object = call.kind === "entry" ? call.directory : call.object;
    const node = this.#pin(object);
    return node === null ? null : { call, node, name: call.kind === "entry" ? call.name : null };
  }

  #pin(object: TreeObject): TreeNode | null {
    const { tree } = this.#deps;
    const path = pathOf(object);
    if (path[0] === CONTROL_DIRECTORY) return null;
    if (object instanceof TreeNode && (object === tree.root || object.pins > 0)) {
      if (hasNoPlace(object)) return null;
      object.pins++;
      return object;
    }
    let at = tree.root;
    at.pins++;
    for (const name of path) {
      const next = tree.pin(at, name);
      tree.unpin(at);
      at = next;
    }
    return at;
  }
}
