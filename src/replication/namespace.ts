/**
 * Names on all replicas: lookups, creation, removal, renames, listings. Each change runs under the locks of the
 * directories that it touches, after its intent is on record, and moves the tree when it has happened.
 *
 * `again` marks a change that an earlier process may have carried out on some replicas already: there "exists" after a
 * creation, or "does not exist" after a removal, means done. (The kernel looks before it asks, under the directory's
 * lock, so a change that could not work is not asked for.)
 */
import type { Answer, DirectoryEntries, Owner, Replica } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, EINVAL, ENOENT } from "../util/errno.ts";
import { FileAttr, S_IFDIR, S_IFMT, S_ISGID } from "../util/file-attr.ts";
import { type Op, start, wait } from "../util/op.ts";
import type { Intents, Membership, MissedChanges, ObjectLocks } from "./contracts.ts";
import { acquired, type Change, type FanOut, type ReplicaCall } from "./fan-out.ts";
import type { InodeNumbers } from "./inode-numbers.ts";
import { OpenFile } from "./open-file.ts";
import type { Orphans } from "./orphans.ts";
import type { Times } from "./times.ts";
import type { Tree, TreeNode } from "./tree.ts";
import { classify } from "./verdict.ts";

const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

/**
 * Remembers across a restart of the process what two names meant on each replica before they were exchanged: done twice,
 * an exchange would be undone.
 */
export interface ExchangeMemo {
  /** Inode numbers of both names, by replica; null if the request that is sent again had not begun. */
  load(): ReadonlyMap<number, readonly [number, number]> | null;
  save(inos: ReadonlyMap<number, readonly [number, number]>): void;
}

export interface NamespaceDeps {
  readonly fanOut: FanOut;
  readonly membership: Membership;
  readonly intents: Intents;
  readonly missed: MissedChanges;
  readonly locks: ObjectLocks;
  readonly tree: Tree;
  readonly orphans: Orphans;
  readonly times: Times;
  readonly numbers: InodeNumbers;
  /** How many slots for replicas there are. */
  readonly slots: number;
}

export class Namespace {
  readonly #deps: NamespaceDeps;
  readonly #scratch = new FileAttr();

  constructor(deps: NamespaceDeps) {
    this.#deps = deps;
  }

  lookup(directory: TreeNode, name: ByteString, attr: FileAttr): Op<number> {
    const directoryOf = (): TreeNode => directory;
    return this.#deps.fanOut.readAttr(directoryOf, attr, (replica, _index, into) =>
      replica.lookup(directory, name, into),
    );
  }

  *readdir(directory: TreeNode, into: DirectoryEntries): Op<number> {
    let leader = 0;
    const result = yield* this.#deps.fanOut.read((replica, index) => {
      leader = index;
      into.names.length = into.types.length = into.inos.length = 0; // from the one that failed
      return replica.readdir(directory, into);
    });
    const { numbers } = this.#deps;
    for (const [i, ino] of into.inos.entries()) into.inos[i] = numbers.shown(leader, ino);
    return result;
  }

  /** Creates and opens a regular file. The open file has one user. */
  *create(
    directory: TreeNode,
    name: ByteString,
    mode: number,
    owner: Owner,
    again: boolean,
    attr: FileAttr,
  ): Op<OpenFile | number> {
    const { tree, intents } = this.#deps;
    const handles = new Array<number>(this.#deps.slots).fill(-1);
    const result = yield* this.#make(directory, name, attr, (replica, index, into) => {
      const keep = (handle: number): number => {
        if (handle < 0) return handle;
        handles[index] = handle;
        return 0;
      };
      const answer = replica.create(directory, name, mode, owner, into);
      if (again) return start(this.#createdBefore(answer, replica, directory, name, mode, owner, into, keep));
      return typeof answer === "number" ? keep(answer) : answer.then(keep);
    });
    if (result < 0) return result;
    const node = tree.pin(directory, name);
    const file = node.open ?? new OpenFile(node, this.#deps.slots);
    for (const [i, handle] of handles.entries()) {
      if (handle < 0) continue;
      file.handles[i] = handle;
      file.writable[i] = true;
    }
    node.open = file;
    file.users++;
    intents.created(directory, node);
    return file;
  }

  /** EEXIST in a creation sent again: an earlier process made it, and may have died before it gave it its owner. */
  *#createdBefore(
    answer: Answer,
    replica: Replica,
    directory: TreeNode,
    name: ByteString,
    mode: number,
    owner: Owner,
    attr: FileAttr | null,
    keep: (handle: number) => number,
  ): Op<number> {
    const result = yield* wait(answer);
    if (result !== -EEXIST) return keep(result);
    const object = { parent: directory, name };
    const looked = yield* wait(replica.getattr(directory, this.#scratch));
    if (looked < 0) return looked;
    const gid = (this.#scratch.mode & S_ISGID) !== 0 ? {} : { gid: owner.gid };
    const set = yield* wait(replica.setattr(object, -1, { mode: mode & 0o7777, uid: owner.uid, ...gid }, attr));
    return set < 0 ? set : keep(yield* wait(replica.open(object, "read-write")));
  }

  mkdir(d: TreeNode, name: ByteString, mode: number, owner: Owner, again: boolean, attr: FileAttr): Op<number> {
    return this.#make(d, name, attr, (r, _i, into) =>
      this.#orThere(r.mkdir(d, name, mode, owner, into), again, r, d, name, into),
    );
  }

  *mknod(
    d: TreeNode,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    again: boolean,
    attr: FileAttr,
  ): Op<number> {
    return yield* this.#make(d, name, attr, (r, _i, into) =>
      this.#orThere(r.mknod(d, name, mode, rdev, owner, into), again, r, d, name, into),
    );
  }

  *symlink(
    d: TreeNode,
    name: ByteString,
    target: ByteString,
    owner: Owner,
    again: boolean,
    attr: FileAttr,
  ): Op<number> {
    return yield* this.#make(d, name, attr, (r, _i, into) =>
      this.#orThere(r.symlink(d, name, target, owner, into), again, r, d, name, into),
    );
  }

  *link(node: TreeNode, d: TreeNode, name: ByteString, again: boolean, attr: FileAttr): Op<number> {
    const result = yield* this.#make(d, name, attr, (r, _i, into) =>
      this.#orThere(r.link(node, d, name, into), again, r, d, name, into),
    );
    return result;
  }

  /** EEXIST in a change sent again: it is there, and done. */
  #orThere(
    answer: Answer,
    again: boolean,
    replica: Replica,
    directory: TreeNode,
    name: ByteString,
    attr: FileAttr | null,
  ): Answer {
    if (!again) return answer;
    const there = (result: number): Answer => (result === -EEXIST ? replica.lookup(directory, name, attr) : result);
    return typeof answer === "number" ? there(answer) : answer.then(there);
  }

  /** What all creations share. */
  *#make(directory: TreeNode, name: ByteString, attr: FileAttr, call: ReplicaCall): Op<number> {
    const result = yield* this.#changeEntry(directory, name, {
      call,
      attr,
      reread: (replica, _index, into) => replica.lookup(directory, name, into),
    });
    if (result >= 0) this.#deps.times.note(directory);
    return result;
  }

  /** One name comes, goes or is replaced. */
  *#changeEntry(directory: TreeNode, name: ByteString, change: Omit<Change, "follows" | "again">): Op<number> {
    const { fanOut, intents, missed, locks } = this.#deps;
    return yield* fanOut.changeLocked(locks.acquire(directory), () => intents.entries(directory), {
      ...change,
      follows: (replica) => missed.followsEntry(replica, directory, name),
      again: () => missed.entry(directory, name),
    });
  }

  *unlink(directory: TreeNode, name: ByteString, again: boolean): Op<number> {
    const { tree, orphans } = this.#deps;
    const node = tree.get(directory, name);
    // One name among the orphans is enough: of a file that has one already the others are just removed.
    if (node?.open !== undefined && node.open !== null && node.orphanLinks === 0) {
      const moved = yield* this.#move(directory, name, orphans.directory, orphans.nameOf(node), 0, again);
      if (moved < 0) return moved;
      node.orphanLinks = 1;
      tree.rename(directory, name, orphans.directory, orphans.nameOf(node));
      return 0;
    }
    const result = yield* this.#remove(directory, name, (r) => this.#orGone(r.unlink(directory, name), again));
    if (result >= 0) tree.remove(directory, name);
    return result;
  }

  *rmdir(directory: TreeNode, name: ByteString, again: boolean): Op<number> {
    const result = yield* this.#remove(directory, name, (r) => this.#orGone(r.rmdir(directory, name), again));
    if (result >= 0) {
      const node = this.#deps.tree.remove(directory, name);
      if (node !== undefined) this.forget(node);
    }
    return result;
  }

  /** Removes an orphan whose last user is gone. */
  *discard(node: TreeNode): Op<number> {
    const { tree, orphans } = this.#deps;
    const name = orphans.nameOf(node);
    const result = yield* this.#changeEntry(orphans.directory, name, {
      call: (r) => this.#orGone(r.unlink(orphans.directory, name), true),
      moves: [{ parent: orphans.directory, name }],
    });
    if (result >= 0) {
      node.orphanLinks = 0;
      tree.remove(orphans.directory, name);
    }
    return result;
  }

  #orGone(answer: Answer, again: boolean): Answer {
    if (!again) return answer;
    const gone = (result: number): number => (result === -ENOENT ? 0 : result);
    return typeof answer === "number" ? gone(answer) : answer.then(gone);
  }

  *#remove(directory: TreeNode, name: ByteString, call: ReplicaCall): Op<number> {
    const result = yield* this.#changeEntry(directory, name, { call, moves: [{ parent: directory, name }] });
    if (result >= 0) this.#deps.times.note(directory);
    return result;
  }

  *rename(
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    flags: number,
    again: boolean,
    memo: ExchangeMemo,
  ): Op<number> {
    const { tree, orphans } = this.#deps;
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) return -EINVAL;
    const target = tree.get(to, toName);
    let kept: TreeNode | null = null;
    const needsOrphan = target?.open !== undefined && target.open !== null && target.orphanLinks === 0;
    if (flags === 0 && needsOrphan && target !== tree.get(from, fromName)) {
      // The open file that is about to be replaced gets a second name first, so that the rename itself stays atomic.
      const saved = yield* this.#saveOrphan(target);
      if (saved < 0) return saved;
      kept = target;
    }
    const result = yield* this.#move(from, fromName, to, toName, flags, again, memo);
    if (kept !== null) {
      if (result >= 0) {
        kept.orphanLinks = 1;
        tree.link(kept, orphans.directory, orphans.nameOf(kept));
      } else yield* this.discard(kept);
    }
    if (result < 0) return result;
    if (flags === RENAME_EXCHANGE) tree.exchange(from, fromName, to, toName);
    else {
      tree.rename(from, fromName, to, toName);
      if (target?.detached === true && target.type === S_IFDIR) this.forget(target);
    }
    return result;
  }

  *#saveOrphan(node: TreeNode): Op<number> {
    const { orphans } = this.#deps;
    const name = orphans.nameOf(node);
    return yield* this.#changeEntry(orphans.directory, name, {
      call: (r) => this.#orThere(r.link(node, orphans.directory, name, null), true, r, orphans.directory, name, null),
    });
  }

  /** The rename itself, on the replicas; the tree is the caller's. */
  *#move(
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    flags: number,
    again: boolean,
    memo: ExchangeMemo | null = null,
  ): Op<number> {
    const { fanOut, intents, missed, locks, tree, times, orphans } = this.#deps;
    using _locks = yield* this.#lockBoth(locks, from, to);
    for (const directory of from === to ? [from] : [from, to]) {
      const covered = intents.entries(directory);
      if (covered !== 0) {
        const result = yield* wait(covered);
        if (result < 0) return result;
      }
    }
    const exchange = flags === RENAME_EXCHANGE;
    let recorded = 0;
    if (this.#mayBeDirectory(tree.get(from, fromName)) || (exchange && this.#mayBeDirectory(tree.get(to, toName)))) {
      recorded = yield* wait(intents.rename(from, fromName, to, toName, exchange));
      if (recorded < 0) return recorded;
    }
    const followed: number[] = [];
    const before =
      exchange && memo !== null ? yield* this.#beforeExchange(from, fromName, to, toName, again, memo) : null;
    const result = yield* fanOut.change({
      call: (r, index) => {
        const pair = before?.get(index);
        if (exchange && again && pair !== undefined) {
          return start(this.#exchangeAgain(r, from, fromName, to, toName, pair[1]));
        }
        return this.#orMoved(r.rename(from, fromName, to, toName, flags), again && !exchange, r, to, toName);
      },
      follows: (replica) => missed.followsEntry(replica, from, fromName) && missed.followsEntry(replica, to, toName),
      again: () => {}, // it is told below, without whom it failed on
      followed,
      moves: [
        { parent: from, name: fromName },
        { parent: to, name: toName },
      ],
    });
    if (result >= 0) {
      if (missed.active) missed.rename(from, fromName, to, toName, exchange, followed);
      times.note(from);
      if (to !== orphans.directory) times.note(to);
    } else {
      if (missed.active) {
        // Some may have done it, and are out for that.
        missed.entry(from, fromName);
        missed.entry(to, toName);
      }
      // Else a later change below a name would be looked for under the other one, after a power cut.
      if (recorded > 0 && classify(result) === "answer") yield* wait(intents.renameRefused(recorded));
    }
    return result;
  }

  *#beforeExchange(
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    again: boolean,
    memo: ExchangeMemo,
  ): Op<ReadonlyMap<number, readonly [number, number]> | null> {
    const earlier = again ? memo.load() : null;
    if (earlier !== null) return earlier;
    const inos = new Map<number, readonly [number, number]>();
    for (const index of this.#deps.membership.inSync) {
      const replica = this.#deps.fanOut.replica(index);
      const a = yield* wait(replica.lookup(from, fromName, this.#scratch));
      const ino = this.#scratch.ino;
      const b = yield* wait(replica.lookup(to, toName, this.#scratch));
      if (a >= 0 && b >= 0) inos.set(index, [ino, this.#scratch.ino]);
    }
    memo.save(inos);
    return null;
  }

  /** Exchanged already, if the one name now means what the other one meant before. */
  *#exchangeAgain(
    replica: Replica,
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    otherIno: number,
  ): Op<number> {
    const looked = yield* wait(replica.lookup(from, fromName, this.#scratch));
    if (looked >= 0 && this.#scratch.ino === otherIno) return 0;
    return yield* wait(replica.rename(from, fromName, to, toName, RENAME_EXCHANGE));
  }

  #mayBeDirectory(node: TreeNode | undefined): boolean {
    return node !== undefined && (node.type === 0 || (node.type & S_IFMT) === S_IFDIR);
  }

  /** ENOENT (or, without replacing, EEXIST) in a rename sent again: done, if the new name is there. */
  #orMoved(answer: Answer, again: boolean, replica: Replica, to: TreeNode, toName: ByteString): Answer {
    if (!again) return answer;
    const moved = (result: number): Answer =>
      result === -ENOENT || result === -EEXIST ? replica.lookup(to, toName, null) : result;
    return typeof answer === "number" ? moved(answer) : answer.then(moved);
  }

  /** Always in the same order, so that two renames cannot wait for each other. */
  *#lockBoth(locks: ObjectLocks, a: TreeNode, b: TreeNode): Op<Disposable> {
    if (a === b) return yield* acquired(locks.acquire(a));
    const [first, second] = a.id < b.id ? [a, b] : [b, a];
    const one = yield* acquired(locks.acquire(first));
    const two = yield* acquired(locks.acquire(second));
    return {
      [Symbol.dispose]: () => {
        two[Symbol.dispose]();
        one[Symbol.dispose]();
      },
    };
  }

  /** A node that is gone or dropped: the replicas keep nothing for it any longer. */
  forget(node: TreeNode): void {
    for (let i = 0; i < this.#deps.slots; i++) this.#deps.fanOut.slot(i)?.forget(node);
  }
}
