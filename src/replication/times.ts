/**
 * Modification times, made equal. Every backend stamps its own clock, so what a change touched (a directory whose
 * entries changed, a new symbolic link, a file that was written) is noted here and later given the leader's time on all
 * other replicas: once for many changes. A noted node is pinned until then.
 */
import type { Answer } from "../replica/replica.ts";
import { ENOENT } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { type Op, wait } from "../util/op.ts";
import type { Intents, Membership, MissedChanges, ObjectLocks } from "./contracts.ts";
import { acquired, type FanOut } from "./fan-out.ts";
import type { Tree, TreeNode } from "./tree.ts";

export interface TimesDeps {
  readonly fanOut: FanOut;
  readonly membership: Membership;
  readonly missed: MissedChanges;
  readonly intents: Pick<Intents, "attributes">;
  readonly locks: ObjectLocks;
  readonly tree: Tree;
  /** A node is noted, or settled: kept across a restart of the process. */
  readonly onNoted: (node: TreeNode, noted: boolean) => void;
}

export class Times {
  readonly #deps: TimesDeps;
  readonly #noted = new Set<TreeNode>();

  constructor(deps: TimesDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#noted.size;
  }

  note(node: TreeNode): void {
    if (this.#noted.has(node) || node.detached) return;
    node.pins++;
    this.#noted.add(node);
    this.#deps.onNoted(node, true);
  }

  /** Makes one node's time equal now, if it is noted. Answers 0 or a negative errno. */
  *settle(node: TreeNode): Op<number> {
    if (!this.#noted.has(node)) return 0;
    const { membership, missed, locks, tree } = this.#deps;
    let result = 0;
    {
      using _lock = yield* acquired(locks.acquire(node));
      // The others may have followed while this waited.
      if (!this.#noted.delete(node)) return 0;
      if (!node.detached) {
        if (missed.active) missed.attributes(node);
        if (membership.inSync.length > 1 || membership.syncing.length > 0) result = yield* this.#equalize(node);
      }
    }
    this.#deps.onNoted(node, false);
    tree.unpin(node);
    return result === -ENOENT ? 0 : result;
  }

  *#equalize(node: TreeNode): Op<number> {
    const { fanOut, missed } = this.#deps;
    const attr = new FileAttr(); // of its own: others are settled meanwhile
    const handles = node.open?.handles;
    let leader = -1;
    const covered = yield* wait(this.#deps.intents.attributes(node));
    if (covered < 0) return covered;
    const read = yield* fanOut.read((replica, index) => {
      leader = index;
      const handle = handles?.[index] ?? -1;
      return handle >= 0 ? replica.fgetattr(handle, attr) : replica.getattr(node, attr);
    });
    if (read < 0) return read;
    const change = {
      atime: { seconds: attr.atime, nsec: attr.atimeNsec },
      mtime: { seconds: attr.mtime, nsec: attr.mtimeNsec },
    };
    if (missed.active) missed.attributes(node); // who follows it may be another one since
    return yield* fanOut.change({
      call: (replica, index) =>
        index === leader ? 0 : unlessGone(replica.setattr(node, handles?.[index] ?? -1, change, null)),
      follows: (replica) => missed.follows(replica, node),
      again: () => missed.attributes(node),
    });
  }

  /** Settles up to `limit` nodes; answers how many are left. */
  *settleSome(limit: number): Op<number> {
    let done = 0;
    for (const node of this.#noted) {
      if (done++ >= limit) break;
      yield* this.settle(node);
    }
    return this.#noted.size;
  }

  *settleAll(): Op<void> {
    while (this.#noted.size > 0) yield* this.settleSome(1024);
  }
}

/** Its name may be removed while its time is on the way: that is nobody's fault, and no difference. */
function unlessGone(answer: Answer): Answer {
  if (typeof answer === "number") return answer === -ENOENT ? 0 : answer;
  return answer.then((result) => (result === -ENOENT ? 0 : result));
}
