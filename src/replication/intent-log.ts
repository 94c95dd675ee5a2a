/**
 * Intents on all in-sync replicas. A change that is covered already costs the comparison of two integers: each node
 * knows the generation in which it was last put on record.
 *
 * - A record is answered by every in-sync replica before the change is sent to any of them; who fails leaves the set.
 *   Metadata persist in their order, so no change can be on a disk without its intent. Data persist in any order:
 *   before bytes are overwritten in place, the intent is flushed, many together.
 * - An intent on a directory covers changes of its entries, and every child that has changed since (told by ctime): so a
 *   file that is created, or moved in, needs none of its own. A file with several names does, since it can change under
 *   one name and then lose it; its record says so.
 * - A generation's records are removed only when every change that was asked about in it has ended and every replica
 *   has synced since; and never while a replica is out, because they also say what that one may lack.
 */
import type { Replica, TimeSpec } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EDQUOT, EEXIST, EIO, ENOSPC } from "../util/errno.ts";
import { FileAttr, isDirectory, S_IFDIR, S_IFMT } from "../util/file-attr.ts";
import { type Eventual, type Op, start, wait } from "../util/op.ts";
import type { Intents } from "./contracts.ts";
import { begunAt } from "./intent-generations.ts";
import { type ControlPlace, intentsPlace } from "./intent-places.ts";
import { isBefore, putMark, type ReadIntents, readIntents, removeIntents, removeMarks } from "./intent-read.ts";
import { type IntentBody, type IntentRecord, maxTargetBytes, pathThatFits } from "./intent-record.ts";
import { IntentRecords, type IntentRecordsDeps, type ReplicaResult } from "./intent-records.ts";
import { withoutFailed } from "./intent-renames.ts";
import { hasNoPlace, type Path, pathOf } from "./node-path.ts";
import type { TreeNode } from "./tree.ts";

const owner = { uid: 0, gid: 0 };

export interface IntentLogDeps extends IntentRecordsDeps {
  /** True while a replica of the volume is not in sync: nothing is cleared. */
  readonly isDegraded: () => boolean;
  /**
   * Resolves when every change whose intent was asked for before this call has ended, and modification times that such
   * changes left to be made equal are.
   */
  readonly drained: () => Promise<void>;
}

export interface IntentLogOptions {
  /** False while a backend persists metadata in any order: each record is flushed then. */
  readonly isOrdered?: () => boolean;
  /** For tests that have to see that it is needed. */
  readonly flush?: boolean;
}

export class IntentLog implements Intents {
  readonly #deps: IntentLogDeps;
  readonly #isOrdered: () => boolean;
  readonly #flushes: boolean;
  readonly #records: IntentRecords;
  /** While a replica is out whose intents had to be cleared all the same: since when they had been. */
  #keptSince: Map<number, TimeSpec> | null = null;
  /** What is asked for and not answered yet, and by which nodes. */
  readonly #asked = new Set<Promise<number>>();
  readonly #pending = new Map<TreeNode, Promise<number>>();
  #checkpointing: Promise<boolean> | null = null;

  constructor(deps: IntentLogDeps, options: IntentLogOptions = {}) {
    this.#deps = deps;
    this.#records = new IntentRecords(deps);
    this.#isOrdered = options.isOrdered ?? (() => true);
    this.#flushes = options.flush ?? true;
  }

  /** Told whenever a generation gets its first record. */
  set onBegun(told: () => void) {
    this.#records.onBegun = told;
  }

  /** What `coveredIn` and `dataCoveredIn` are compared with. */
  get generation(): number {
    return this.#records.generation;
  }

  get #flushEach(): boolean {
    return !this.#isOrdered();
  }

  /** Records that no checkpoint has cleared. */
  get count(): number {
    return this.#records.all.reduce((n, { records }) => n + records.length, 0);
  }

  /** What may not be on stable storage everywhere, as `MissedChangesLog.begin` wants it for a replica that leaves. */
  get uncleared(): readonly IntentRecord[] {
    const records = this.#records.all.flatMap((generation) => generation.records);
    return withoutFailed(records, records);
  }

  /** When, by each in-sync replica's own time, the first of these was made: what has changed since may be among them. */
  async begunAt(): Promise<(replica: number) => TimeSpec | null> {
    const begun = new Map<number, TimeSpec | null>();
    for (const index of this.#deps.inSync()) {
      const own = await begunAt(this.#deps.replica(index), index, this.#records.all);
      const kept = this.#keptSince === null ? null : (this.#keptSince.get(index) ?? { seconds: 0, nsec: 0 });
      begun.set(index, kept !== null && (own === null || isBefore(kept, own)) ? kept : own);
    }
    return (replica) => begun.get(replica) ?? null;
  }

  /**
   * Makes ready on all in-sync replicas. What is there from an earlier process, whose work this one goes on with, is
   * kept until the next checkpoint; after a reconcile there is nothing.
   */
  async open(): Promise<void> {
    const read = new Map<number, ReadIntents>();
    const results: ReplicaResult[] = [];
    for (const index of this.#deps.inSync()) {
      const replica = this.#deps.replica(index);
      const made = await replica.mkdir(intentsPlace.parent as ControlPlace, intentsPlace.name, 0o700, owner, null);
      results.push({ replica: index, result: made === -EEXIST ? 0 : Math.min(0, made) });
      read.set(index, await readIntents(replica));
      await start(this.#records.prepareSpare(replica));
    }
    if (results.some(({ result }) => result < 0)) this.#deps.onFailed(results);
    this.#records.adopt(read);
  }

  entries(directory: TreeNode): Eventual<number> {
    if (directory.coveredIn === this.generation || this.#records.coversEverything) return 0;
    return this.#cover(directory, () => this.#coverEntries(directory));
  }

  attributes(node: TreeNode): Eventual<number> {
    if (node.coveredIn === this.generation || this.#records.coversEverything) return 0;
    return this.#cover(node, () => this.#coverAttributes(node));
  }

  data(node: TreeNode): Eventual<number> {
    if (node.dataCoveredIn === this.generation || this.#records.coversEverything) return 0;
    return this.#cover(node, () => this.#coverData(node));
  }

  created(directory: TreeNode, node: TreeNode): void {
    // Whatever is in a new file came after the intent: blocks are given to it by later metadata operations.
    node.coveredIn = directory.coveredIn;
    node.dataCoveredIn = directory.coveredIn;
  }

  /** A covered file was cut to nothing: its data are as a new file's from now on. */
  truncated(node: TreeNode): void {
    if (node.coveredIn === this.generation) node.dataCoveredIn = this.generation;
  }

  rename(from: TreeNode, fromName: ByteString, to: TreeNode, toName: ByteString, exchange: boolean): Eventual<number> {
    if (this.#records.coversEverything) return 0;
    return this.#ask(start(this.#recordRename(from, fromName, to, toName, exchange)));
  }

  renameRefused(record: number): Eventual<number> {
    return this.#ask(start(this.#records.write(() => ({ kind: "failed", of: record }))));
  }

  /** The next generation begins: nothing is covered any more. What the earlier ones hold stays until a checkpoint. */
  renew(): void {
    this.#records.renew();
  }

  /** A replica has left: from here on the intents say what it may lack, as long as nothing is cleared. */
  recordOut(name: string): Eventual<number> {
    return start(this.#records.write(() => ({ kind: "out", replica: name })));
  }

  /** The replica of this name is another one from now on: what is on record of its absence is void, for certain. */
  recordUnknown(name: string): Eventual<number> {
    return start(this.#writeFlushed({ kind: "unknown", replica: name }));
  }

  *#writeFlushed(body: IntentBody): Op<number> {
    const result = yield* this.#records.write(() => body);
    return result === 0 ? yield* wait(this.#records.flush()) : result;
  }

  /**
   * Everything asked about so far reaches stable storage on all replicas, and its intents are removed. False if that
   * did not happen: a replica is out, or has failed.
   */
  checkpoint(options: { readonly evenDegraded?: boolean } = {}): Promise<boolean> {
    this.#checkpointing ??= this.#checkpoint(options.evenDegraded ?? false).finally(() => {
      this.#checkpointing = null;
    });
    return this.#checkpointing;
  }

  /**
   * Before a replica joins, while no change is under way: new changes are recorded on it too, and those that were
   * covered before it came are named on the others for certain.
   */
  async join(newcomer: Replica): Promise<number> {
    const made = await newcomer.mkdir(intentsPlace.parent as ControlPlace, intentsPlace.name, 0o700, owner, null);
    if (made < 0 && made !== -EEXIST) return made;
    await start(this.#records.prepareSpare(newcomer));
    const marked = await putMark(newcomer, { kind: "joined", generation: this.generation });
    if (marked < 0) return marked;
    this.renew();
    return await this.#records.flush();
  }

  async #checkpoint(evenDegraded: boolean): Promise<boolean> {
    if (this.#deps.isDegraded() && !evenDegraded) return false;
    if (this.#records.all.length === 0) return true;
    await this.#deps.drained(); // times that are made equal now are covered by what is about to be cleared
    this.renew();
    const done = [...this.#records.all];
    await this.#drained();
    const members = this.#deps.inSync();
    const answers = members.map((index) => this.#deps.replica(index).sync());
    const results: ReplicaResult[] = [];
    for (const [i, answer] of answers.entries()) {
      results.push({ replica: members[i] as number, result: Math.min(0, await answer) });
    }
    if (results.some(({ result }) => result < 0)) this.#deps.onFailed(results);
    // Whoever has left meanwhile may lack what these intents name.
    if (results.some(({ result }) => result < 0) || this.#deps.inSync() !== members) return false;
    if (this.#deps.isDegraded() && !evenDegraded) return false;
    // Who is out has marks that count from here on, although what they came from is cleared.
    const since = this.#deps.isDegraded() ? await this.begunAt() : null;
    this.#keptSince =
      since === null ? null : new Map(members.map((index) => [index, since(index) ?? { seconds: 0, nsec: 0 }]));
    const upTo = Math.max(...done.map(({ number }) => number));
    if (!(await this.#markAlike(members, upTo))) return false;
    this.#records.clear(done);
    for (const index of members) {
      const numbers = done.filter((generation) => generation.members.has(index)).map((generation) => generation.number);
      const result = await removeIntents(this.#deps.replica(index), numbers);
      if (result < 0 && this.#deps.inSync().includes(index)) this.#deps.onFailed([{ replica: index, result }]);
      else {
        await removeMarks(this.#deps.replica(index), upTo);
        await start(this.#records.prepareSpare(this.#deps.replica(index)));
      }
    }
    return true;
  }

  /** On all of them, before anything is removed. On a full disk that may have to wait. */
  async #markAlike(members: readonly number[], generation: number): Promise<boolean> {
    const answers = members.map((index) => putMark(this.#deps.replica(index), { kind: "alike", generation }));
    const results: ReplicaResult[] = [];
    for (const [i, answer] of answers.entries()) {
      results.push({ replica: members[i] as number, result: await answer });
    }
    const failed = results.filter(({ result }) => result < 0);
    if (failed.some(({ result }) => result !== -ENOSPC && result !== -EDQUOT)) this.#deps.onFailed(results);
    return failed.length === 0;
  }

  /** A change may ask for two or three intents, one after the other; only then is it where `drained` sees it. */
  async #drained(): Promise<void> {
    for (let i = 0; i < 3; i++) {
      await Promise.all(this.#asked);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await this.#deps.drained();
  }

  #cover(node: TreeNode, cover: () => Op<number>): Eventual<number> {
    if (hasNoPlace(node)) return 0;
    const before = this.#pending.get(node);
    const covering = start(before === undefined ? cover() : this.#after(before, cover));
    if (typeof covering === "number") return covering;
    const pending = covering.finally(() => {
      if (this.#pending.get(node) === pending) this.#pending.delete(node);
    });
    this.#pending.set(node, pending);
    return this.#ask(pending);
  }

  #ask(answer: Eventual<number>): Eventual<number> {
    if (typeof answer === "number") return answer;
    const asked = answer.finally(() => this.#asked.delete(asked));
    this.#asked.add(asked);
    return asked;
  }

  *#after(before: Promise<number>, cover: () => Op<number>): Op<number> {
    yield before;
    return yield* cover();
  }

  *#coverEntries(directory: TreeNode): Op<number> {
    const generation = this.generation;
    if (directory.coveredIn === generation) return 0;
    const result = yield* this.#writePath("entries", pathOf(directory), false, this.#flushEach);
    if (result === 0) directory.coveredIn = generation;
    return result;
  }

  *#coverAttributes(node: TreeNode): Op<number> {
    const generation = this.generation;
    if (node.coveredIn === generation) return 0;
    const byParent = node.parent !== null && node.parent.coveredIn === generation;
    const isDir = node.parent === null || (node.type & S_IFMT) === S_IFDIR;
    // A directory's `coveredIn` says that its entries are covered, so there its attributes alone don't set it.
    if (isDir) return byParent ? 0 : yield* this.#coverEntries(node);
    const severalNames = yield* this.#hasSeveralNames(node);
    if (severalNames === null) return byParent ? 0 : yield* this.#coverEntries(node); // it is a directory
    if (!byParent || severalNames) {
      const result = yield* this.#writePath("attributes", pathOf(node), severalNames, this.#flushEach);
      if (result !== 0) return result;
    }
    node.coveredIn = generation;
    return 0;
  }

  *#coverData(node: TreeNode): Op<number> {
    const generation = this.generation;
    if (node.dataCoveredIn === generation) return 0;
    const severalNames = (yield* this.#hasSeveralNames(node)) ?? false;
    const result = yield* this.#writePath("data", pathOf(node), severalNames, this.#flushes);
    if (result !== 0) return result;
    node.coveredIn = generation;
    node.dataCoveredIn = generation;
    return 0;
  }

  /** null for a directory. */
  *#hasSeveralNames(node: TreeNode): Op<boolean | null> {
    const leader = this.#deps.inSync()[0];
    if (leader === undefined) return true;
    const attr = new FileAttr();
    const result = yield* wait(this.#deps.replica(leader).getattr(node, attr));
    if (result < 0) return true; // not known, so with care
    return isDirectory(attr.mode) ? null : attr.nlink > 1;
  }

  *#writePath(kind: "entries" | "attributes" | "data", path: Path, severalNames: boolean, flush: boolean): Op<number> {
    const fits = pathThatFits(path);
    const body: IntentBody =
      fits.length < path.length
        ? { kind: "tree", path: fits }
        : kind === "entries"
          ? { kind, path }
          : { kind, path, severalNames };
    const result = yield* this.#records.write(() => body);
    return result === 0 && flush ? yield* wait(this.#records.flush()) : result;
  }

  *#recordRename(
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    exchange: boolean,
  ): Op<number> {
    for (const directory of [from, to]) {
      const covered = yield* wait(this.entries(directory));
      if (covered !== 0) return covered;
    }
    const fromPath = [...pathOf(from), fromName];
    const toPath = [...pathOf(to), toName];
    const inos = new Map<number, readonly [number, number]>();
    let isDir = false;
    for (const index of this.#deps.inSync()) {
      const a = yield* this.#directoryIno(index, from, fromName);
      const b = exchange ? yield* this.#directoryIno(index, to, toName) : 0;
      if (a !== 0 || b !== 0) isDir = true;
      inos.set(index, [a, b]);
    }
    if (!isDir) return 0; // found by its ctime, in a directory whose entries are covered
    const length = fromPath.join("/").length + toPath.join("/").length;
    if (length > maxTargetBytes - 64) {
      for (const path of [fromPath, toPath]) {
        const result = yield* this.#records.write(() => ({ kind: "tree", path: pathThatFits(path) }));
        if (result !== 0) return result;
      }
      return 0;
    }
    let recorded = 0;
    const result = yield* this.#records.write((index, seq) => {
      recorded = seq;
      const [ino, otherIno] = inos.get(index) ?? [0, 0];
      return { kind: "rename", from: fromPath, to: toPath, exchange, ino, otherIno };
    });
    const flushed = result === 0 && this.#flushEach ? yield* wait(this.#records.flush()) : result;
    return flushed === 0 ? recorded : flushed;
  }

  /** 0 if it is no directory, or cannot be told. */
  *#directoryIno(index: number, directory: TreeNode, name: ByteString): Op<number> {
    const attr = new FileAttr();
    const result = yield* wait(this.#deps.replica(index).lookup(directory, name, attr));
    return result >= 0 && isDirectory(attr.mode) ? attr.ino : 0;
  }
}

/** The usual `onFailed`: whoever failed leaves, if somebody has succeeded; else nobody is blamed, and the change fails. */
export function expelFailed(expel: (replicas: readonly number[], errno: number) => void) {
  return (results: readonly ReplicaResult[]): number => {
    const failed = results.filter(({ result }) => result < 0);
    const first = failed[0];
    if (first === undefined) return 0;
    if (failed.length === results.length && results.length > 1) return first.result === 0 ? -EIO : first.result;
    if (results.length === 1 && failed.length === 1) return first.result;
    expel(
      failed.map(({ replica }) => replica),
      first.result,
    );
    return 0;
  };
}
