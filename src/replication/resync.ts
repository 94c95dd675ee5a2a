/**
 * Brings one replica up to date while the volume is in use, and lets it in: works off its dirty set, which the volume's
 * changes add to meanwhile; at the end, while no change is under way, everything goes to stable storage, and then the
 * replica into the membership. It can be stopped anywhere and goes on from there.
 */
import type { Replica } from "../replica/replica.ts";
import type { DirtySet } from "./dirty-set.ts";
import { markIntents } from "./intent-dirty.ts";
import type { IntentLog } from "./intent-log.ts";
import { readIntents, removeIntents, removeMarks } from "./intent-read.ts";
import type { MissedChangesLog } from "./missed-changes.ts";
import type { ResyncProgress } from "./model.ts";
import { type Copy, must, ReplicaCallError } from "./replica-call.ts";
import { type RepairDeps, type RepairOptions, rootObject } from "./resync-context.ts";
import { Repair } from "./resync-repair.ts";

export interface ResyncDeps extends RepairDeps {
  readonly missed: MissedChangesLog;
  readonly intents: Pick<IntentLog, "join" | "begunAt">;
  /** Runs `act` while no change is under way. */
  readonly barrier: <T>(act: () => Promise<T>) => Promise<T>;
  /** Records that the replica is in sync from now on. */
  readonly admit: (index: number) => Promise<void>;
}

export interface ResyncResult {
  readonly entries: number;
  readonly bytesWritten: number;
}

export class Resync {
  readonly #deps: ResyncDeps;
  readonly #index: number;
  readonly #target: Replica;
  readonly #set: DirtySet;
  readonly #options: RepairOptions;
  readonly #repair: Repair;
  #estimate = { files: 0, bytes: 0 };
  #counted = { files: 0, bytes: 0, atMs: Number.NEGATIVE_INFINITY };

  /** The replica is connected and takes nothing yet; `missed` has its dirty set. */
  constructor(deps: ResyncDeps, index: number, options: RepairOptions) {
    const set = deps.missed.of(index);
    if (set === null) throw new Error(`Replica ${index} is not left behind`);
    this.#deps = deps;
    this.#index = index;
    this.#target = deps.replica(index);
    this.#set = set;
    this.#options = options;
    this.#repair = new Repair(deps, index, set, options);
  }

  get progress(): ResyncProgress {
    const { work } = this.#repair;
    const now = performance.now();
    if (now - this.#counted.atMs > 500) this.#counted = { ...this.#set.counts(), atMs: now };
    const filesRemaining = this.#counted.files + Math.max(0, this.#estimate.files - work.seen.files);
    const underWay = work.isFull ? 0 : work.underWay.bytes; // of everything there is an estimate
    const bytesRemaining = this.#counted.bytes + underWay + Math.max(0, this.#estimate.bytes - work.seen.bytes);
    const done = work.seen.bytes + 4096 * (work.entries + work.seen.files);
    const left = bytesRemaining + 4096 * filesRemaining;
    return { filesRemaining, bytesRemaining, percent: left === 0 ? 100 : Math.floor((100 * done) / (done + left)) };
  }

  /** For how long no step has come to an end: a resync that makes no progress is an alert. */
  get stalledMs(): number {
    return performance.now() - this.#repair.work.lastProgressMs;
  }

  /** Resolves when the replica is in sync. Rejects if it failed or was stopped; what was done stays done. */
  async run(): Promise<ResyncResult> {
    const { missed } = this.#deps;
    this.#repair.since ??= await this.#deps.intents.begunAt();
    await this.#markOwn();
    await this.#estimateWork();
    this.#set.absorbs = false;
    this.#set.mustDrain = true;
    missed.setSyncing(this.#index, true);
    try {
      do {
        await this.#repair.run(async () => {
          if (this.#set.mustDrain) await this.#drain();
        });
        await must(this.#copy, "flush", this.#target.sync());
      } while (!(await this.#finish()));
    } catch (error) {
      missed.setSyncing(this.#index, false);
      throw error;
    } finally {
      this.#set.absorbs = true;
      this.#repair.close();
    }
    const { entries, bytesWritten } = this.#repair.work;
    return { entries, bytesWritten };
  }

  get #copy(): Copy {
    return { replica: this.#target, object: rootObject };
  }

  /** What it was told to change while it was a member, and the others may have lost in a power cut of their own. */
  async #markOwn(): Promise<void> {
    const own = await readIntents(this.#target);
    if (own.damage !== null) this.#set.tree([]);
    else markIntents(this.#set, own.records);
  }

  /** Changes that are under way may not be marked by name: they end before anything is looked at. */
  async #drain(): Promise<void> {
    this.#set.mustDrain = false;
    await this.#deps.barrier(async () => {});
  }

  /** Lets the replica in if nothing is left to do while no change is under way. */
  async #finish(): Promise<boolean> {
    const { barrier, intents, admit, missed } = this.#deps;
    const cleared = (await removeIntents(this.#target, "all")) || (await removeMarks(this.#target));
    if (cleared < 0) throw new ReplicaCallError(this.#copy, "clear the intents of", cleared);
    return await barrier(async () => {
      this.#options.signal.throwIfAborted();
      if (missed.of(this.#index) !== this.#set) throw new Error(`"${this.#target.name}" has left again`);
      if (!missed.isSyncing(this.#index))
        throw new Error(`"${this.#target.name}" failed a change that it was to follow`);
      if (!this.#set.isEmpty) return false;
      await must(this.#copy, "flush", this.#target.sync());
      const joined = await intents.join(this.#target);
      if (joined < 0)
        throw new Error(`The intents could not be flushed before "${this.#target.name}" joins (${joined})`);
      await admit(this.#index);
      missed.end(this.#index);
      return true;
    });
  }

  async #estimateWork(): Promise<void> {
    const source = this.#deps.sources()[0];
    if (source === undefined || !this.#repair.work.isFull) return;
    const stats = {
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    };
    if ((await this.#deps.replica(source).statfs(stats)) < 0) return;
    const files = Math.max(0, stats.files - stats.freeFiles);
    this.#estimate = { files, bytes: Math.max(0, stats.blocks - stats.freeBlocks) * stats.blockSizeBytes };
  }
}
