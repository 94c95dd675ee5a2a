/**
 * The heart of replication: sends a change to every in-sync replica at once, turns the outcomes into one answer, and
 * reads from one replica, going on with the next when it fails. Invariants:
 *
 * - A change is answered only when every replica that is in sync holds it, and everyone who does not is off the record
 *   (`membership.settled`).
 * - The caller holds the object's lock around a change, and has recorded the intent.
 * - Attributes come from the leader, the first in-sync replica.
 */
import type { Answer, Replica } from "../replica/replica.ts";
import { EIO, ENODEV, ENOENT, EROFS } from "../util/errno.ts";
import type { FileAttr } from "../util/file-attr.ts";
import { type Eventual, type Op, wait } from "../util/op.ts";
import type { Membership, MissedChanges, ObjectLock, ObjectLocks } from "./contracts.ts";
import type { InodeNumbers } from "./inode-numbers.ts";
import type { FullPolicy } from "./model.ts";
import { Moves, type NamePlace } from "./moves.ts";
import { besideMoves } from "./moves-replica.ts";
import type { TreeNode } from "./tree.ts";
import { classify, decideChange } from "./verdict.ts";

/** One replica's part in an operation. `attr` is given to the leader alone. */
export type ReplicaCall = (replica: Replica, index: number, attr: FileAttr | null) => Answer;

export interface FanOutDeps {
  /** By index; null where a slot is empty. The owner changes it when replicas are added and removed. */
  readonly replicas: readonly (Replica | null)[];
  readonly membership: Membership;
  readonly missed: MissedChanges;
  readonly locks: ObjectLocks;
  readonly numbers: InodeNumbers;
  /** A change may have left replicas different that all stay in sync: what the intents name has to be compared. */
  readonly onSuspect: () => void;
}

export interface Change {
  readonly call: ReplicaCall;
  /** The object whose contents or attributes change, for `FanOut.beforeChange`. */
  readonly object?: TreeNode;
  /** Receives the leader's attributes. */
  readonly attr?: FileAttr;
  /** Reads `attr` again, where the leader that gave it has just been expelled. */
  readonly reread?: ReplicaCall;
  /** Does this syncing replica take the change as well? */
  readonly follows: (replica: number) => boolean;
  /** Tells `missed` of the change once more, after such a replica has failed at it. */
  readonly again?: () => void;
  /** Receives the syncing replicas that have taken it. */
  readonly followed?: number[];
  /** Names that mean something else from now on: calls by them, and by what is below, keep clear of it. The tree is
   *  changed before whoever asked for this change waits again. */
  readonly moves?: readonly NamePlace[];
}

export class FanOut {
  readonly #deps: FanOutDeps;
  readonly #fullPolicy: FullPolicy;
  /** Changes that have begun and not ended since the last `drained` asked, and those from before it. */
  #underWay = { count: 0, onZero: null as (() => void) | null };
  #begun = 0;
  /** Asked before each change of an object's contents or attributes, which goes on when this has answered. */
  beforeChange: ((object: TreeNode) => Eventual<number>) | null = null;
  /** Pending while a barrier holds changes back. */
  #gate: Promise<void> | null = null;
  #draining: Promise<void> = Promise.resolve();
  readonly #moves = new Moves();
  /** The replicas in their slots, and what they are to everybody here. */
  readonly #raw: (Replica | null)[] = [];
  readonly #guarded: (Replica | null)[] = [];

  constructor(deps: FanOutDeps, options: { readonly fullPolicy: FullPolicy }) {
    this.#deps = deps;
    this.#fullPolicy = options.fullPolicy;
  }

  /** As everybody has to use it whose calls go by names that may move meanwhile. */
  slot(index: number): Replica | null {
    const replica = this.#deps.replicas[index] ?? null;
    if (replica !== this.#raw[index]) {
      this.#raw[index] = replica;
      this.#guarded[index] = replica === null ? null : besideMoves(replica, this.#moves);
    }
    return this.#guarded[index] ?? null;
  }

  replica(index: number): Replica {
    const replica = this.slot(index);
    if (replica === null) throw new Error(`No replica has index ${index}`);
    return replica;
  }

  /** How many changes have been sent so far; tells an idle volume. */
  get changes(): number {
    return this.#begun;
  }

  /** Runs `act` while no change is under way; those that come meanwhile wait. */
  async barrier<T>(act: () => Promise<T>): Promise<T> {
    while (this.#gate !== null) await this.#gate;
    const gate = Promise.withResolvers<void>();
    this.#gate = gate.promise;
    try {
      await this.drained();
      return await act();
    } finally {
      this.#gate = null;
      gate.resolve();
    }
  }

  /** Resolves when every change that is under way now has ended; new ones are not held back. */
  drained(): Promise<void> {
    const before = this.#underWay;
    if (before.count > 0) {
      this.#underWay = { count: 0, onZero: null };
      const ended = new Promise<void>((resolve) => {
        before.onZero = resolve;
      });
      const earlier = this.#draining;
      this.#draining = ended.then(() => earlier);
    }
    return this.#draining;
  }

  /**
   * A change from its lock to its end: locked, its intent on record (`cover`), told to `missed` by the change's `again`,
   * sent to all. Every change of an object or a name goes this way; a rename, which has two of everything, by hand.
   */
  *changeLocked(lock: Eventual<ObjectLock>, cover: () => Eventual<number>, change: Change): Op<number> {
    using _lock = yield* acquired(lock);
    const covered = cover();
    if (covered !== 0) {
      const result = yield* wait(covered);
      if (result < 0) return result;
    }
    if (this.#deps.missed.active) change.again?.();
    return yield* this.change(change);
  }

  /** Carries a change out on all in-sync replicas; answers what the application is told. */
  *change(change: Change): Op<number> {
    const { membership } = this.#deps;
    if (this.#gate !== null || membership.held !== null || this.beforeChange !== null) {
      if (!(yield* this.#mayBegin(change))) return -EIO;
    }
    const underWay = this.#underWay;
    underWay.count++;
    this.#begun++;
    try {
      using move = change.moves === undefined ? null : yield* this.#moves.begin(change.moves);
      if (move?.waited === true) change.again?.();
      return yield* this.#carryOut(change);
    } finally {
      if (--underWay.count === 0) underWay.onZero?.();
    }
  }

  /** True in a turn in which nothing holds changes back, and nothing has to be done before this one; false: never. */
  *#mayBegin(change: Change): Op<boolean> {
    for (let waited = false; ; waited = true) {
      if (waited) change.again?.(); // who is out, and what is repaired there, may have changed
      if (this.#gate !== null || this.#deps.membership.held !== null) {
        while (this.#gate !== null) yield this.#gate;
        if (!(yield* this.#mayChange())) return false;
        continue;
      }
      const before = change.object === undefined ? 0 : (this.beforeChange?.(change.object) ?? 0);
      if (typeof before === "number") return true;
      yield before;
    }
  }

  *#carryOut(change: Change): Op<number> {
    const { membership } = this.#deps;
    if (membership.quorumLost) return -EROFS;
    const members = membership.inSync;
    const leader = members[0];
    if (leader === undefined) return -EIO;
    const answers = new Array<Answer>(members.length);
    let later = false;
    for (let i = 0; i < members.length; i++) {
      const index = members[i] as number;
      const answer = change.call(this.replica(index), index, index === leader ? (change.attr ?? null) : null);
      answers[i] = answer;
      if (typeof answer !== "number") later = true;
    }
    const followers = membership.syncing.length === 0 ? null : this.#follow(change);
    if (later) for (let i = 0; i < members.length; i++) answers[i] = yield* wait(answers[i] as Answer);
    if (followers !== null) yield followers;

    const first = answers[0] as number;
    let result = first;
    if (first < 0 || !answers.every((answer) => answer === first)) {
      result = this.#judge(members, answers as number[]);
    }
    // `settled` is asked whatever the outcome: another change may have expelled somebody who has missed this one.
    if (membership.settled !== null && !(yield* this.#settle())) return -EIO;
    if (membership.held !== null && !(yield* this.#mayChange())) return -EIO;
    if (result < 0 || change.attr === undefined) return result;
    if (membership.inSync[0] !== leader && change.reread !== undefined && !membership.inSync.includes(leader)) {
      const { attr, reread } = change;
      const reading = yield* this.read((replica, index) => reread(replica, index, attr));
      return reading < 0 ? reading : result;
    }
    change.attr.ino = this.#deps.numbers.shown(leader, change.attr.ino);
    return result;
  }

  /** Decides what a mixed outcome means, and starts the expulsions. */
  #judge(members: readonly number[], results: readonly number[]): number {
    const { membership } = this.#deps;
    let verdict = decideChange(members, results, membership, this.#fullPolicy, true);
    // Full after all, though the free space was looked at: who did it has it, and who could not is left behind.
    if (verdict.kind === "undo") verdict = decideChange(members, results, membership, "DropReplica", true);
    for (const { replica, reason, errno } of verdict.expel) membership.expel([replica], reason, errno);
    if (verdict.suspect) this.#deps.onSuspect();
    return verdict.result;
  }

  /** False if this process has not been the one that changes the volume for too long. */
  *#mayChange(): Op<boolean> {
    try {
      while (this.#deps.membership.held !== null) yield this.#deps.membership.held;
      return true;
    } catch {
      return false;
    }
  }

  *#settle(): Op<boolean> {
    try {
      while (this.#deps.membership.settled !== null) yield this.#deps.membership.settled;
      return true;
    } catch {
      return false; // not on record: nothing may be acknowledged
    }
  }

  /** The syncing replicas that are repaired here take the change too; a failure is the resync's matter alone. */
  async #follow(change: Change): Promise<void> {
    const { membership, missed } = this.#deps;
    const calls: { readonly index: number; readonly answer: Answer }[] = [];
    for (const index of membership.syncing) {
      if (change.follows(index)) calls.push({ index, answer: change.call(this.replica(index), index, null) });
    }
    for (const { index, answer } of calls) {
      const result = await answer;
      if (result < 0) missed.failed(index, result, change.again ?? null);
      else change.followed?.push(index);
    }
  }

  /** Attributes and listings: the leader's answer; the next one's where it fails, and then the failed one is out. */
  *read(call: (replica: Replica, index: number) => Answer): Op<number> {
    const failed: { readonly replica: number; readonly errno: number }[] = [];
    for (;;) {
      const index = this.#deps.membership.inSync.find((i) => !failed.some((f) => f.replica === i));
      if (index === undefined) return failed.length === 0 ? -EIO : this.#allFailed(failed);
      const answer = call(this.replica(index), index);
      const result = typeof answer === "number" ? answer : yield* wait(answer);
      if (classify(result) !== "fault") {
        if (failed.length > 0) this.#expelFailed(failed);
        return result;
      }
      failed.push({ replica: index, errno: result });
    }
  }

  /** A replica that cannot read what another one can is no longer the same. */
  #expelFailed(failed: readonly { readonly replica: number; readonly errno: number }[]): void {
    for (const { replica, errno } of failed) {
      if (this.#deps.membership.inSync.includes(replica)) this.#deps.membership.expel([replica], "Fault", errno);
    }
  }

  #allFailed(failed: readonly { readonly errno: number }[]): number {
    return failed.every((f) => f.errno === -ENODEV) ? -ENODEV : -EIO;
  }

  /**
   * Attributes of something that the tree knows, or a lookup. ENOENT from the leader is believed only if the others
   * agree: where a replica was changed behind our back, what still exists is kept and whoever lacks it is out. They are
   * asked under the lock of the directory that holds the name, so that nobody is half way through removing it.
   */
  *readAttr(directoryOf: () => TreeNode, attr: FileAttr, call: ReplicaCall): Op<number> {
    let leader = -1;
    const result = yield* this.read((replica, index) => {
      leader = index;
      return call(replica, index, attr);
    });
    if (result >= 0) {
      attr.ino = this.#deps.numbers.shown(leader, attr.ino);
      return result;
    }
    if (result !== -ENOENT || this.#deps.membership.inSync.length < 2) return result;
    return yield* this.#missing(leader, directoryOf, attr, call);
  }

  *#missing(leader: number, directoryOf: () => TreeNode, attr: FileAttr, call: ReplicaCall): Op<number> {
    // A cheap look without the lock first, all others at once: nearly always everyone agrees that there is nothing.
    const answers: Answer[] = [];
    for (const index of this.#deps.membership.inSync) {
      if (index !== leader) answers.push(call(this.replica(index), index, null));
    }
    let present = false;
    for (const answer of answers) {
      const result = typeof answer === "number" ? answer : yield* wait(answer);
      if (result >= 0) present = true;
    }
    if (!present) return -ENOENT;
    using _lock = yield* this.#lockHolder(directoryOf);
    const without: number[] = [];
    let found = -1;
    for (const index of this.#deps.membership.inSync) {
      const result = yield* wait(call(this.replica(index), index, found < 0 ? attr : null));
      if (result === -ENOENT) without.push(index);
      else if (result >= 0 && found < 0) found = index;
    }
    if (found < 0) return -ENOENT;
    attr.ino = this.#deps.numbers.shown(found, attr.ino);
    if (without.length > 0) {
      this.#deps.membership.expel(without, "Diverged", -ENOENT);
      if (!(yield* this.#settle())) return -EIO;
    }
    return 0;
  }

  /** The lock of the directory that holds a name, whichever that is by the time that it is had. */
  *#lockHolder(directoryOf: () => TreeNode): Op<Disposable> {
    for (;;) {
      const directory = directoryOf();
      const lock = yield* acquired(this.#deps.locks.acquire(directory));
      if (directoryOf() === directory) return lock;
      lock[Symbol.dispose]();
    }
  }
}

/** A lock for `using` inside an operation. */
export function* acquired(lock: Eventual<{ release(): void }>): Op<Disposable> {
  const held = yield* wait(lock);
  return { [Symbol.dispose]: () => held.release() };
}
