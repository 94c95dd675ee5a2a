/**
 * Intents as records on all in-sync replicas, in generations: written on all before anything goes on, flushed together, and
 * taken over from an earlier process. What they say, and what they cover, is `intent-log.ts`'s.
 *
 * A disk that is full must not keep anybody from deleting: a spare generation is kept ready, with one intent for the
 * whole tree, and takes effect by a rename.
 */
import type { Replica } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EDQUOT, EEXIST, ENOENT, ENOSPC } from "../util/errno.ts";
import { type Eventual, type Op, start, wait } from "../util/op.ts";
import { SharedFlush } from "./intent-flush.ts";
import { adoptGenerations, type Generation, newGeneration } from "./intent-generations.ts";
import { intentsPlace, SPARE, sparePlace } from "./intent-places.ts";
import type { ReadIntents } from "./intent-read.ts";
import { encodeIntent, type IntentBody, type IntentRecord } from "./intent-record.ts";

const owner = { uid: 0, gid: 0 };

export interface ReplicaResult {
  readonly replica: number;
  /** 0, or a negative errno. */
  readonly result: number;
}

export interface IntentRecordsDeps {
  readonly replica: (index: number) => Replica;
  /** Indices of the in-sync replicas, the leader first; a new array at each change. */
  readonly inSync: () => readonly number[];
  /**
   * A record or its flush did not succeed everywhere. Expels whom it has to, and answers 0 if the change may go on, or
   * the errno for it.
   */
  readonly onFailed: (results: readonly ReplicaResult[]) => number;
}

export class IntentRecords {
  readonly #deps: IntentRecordsDeps;
  #generation = 1;
  #current: Generation | null = null;
  /** Not cleared yet, oldest first. */
  #older: Generation[] = [];
  /** The generation in which everything is covered, by the spare intent. */
  #everythingIn = 0;
  #seq = 0;
  #sparing: Promise<void> | null = null;
  readonly #flushing = new SharedFlush(() => this.#flushOp());
  /** Told whenever a generation gets its first record. */
  onBegun: () => void = () => {};

  constructor(deps: IntentRecordsDeps) {
    this.#deps = deps;
  }

  /** The number of the generation that new records belong to. */
  get generation(): number {
    return this.#generation;
  }

  /** The spare intent names the whole tree: nothing more has to be recorded in this generation. */
  get coversEverything(): boolean {
    return this.#everythingIn === this.#generation;
  }

  /** All generations that have records and are not cleared, oldest first. */
  get all(): readonly Generation[] {
    return this.#current === null ? this.#older : [...this.#older, this.#current];
  }

  /** What an earlier process has left on the members is kept until the next checkpoint. */
  adopt(read: ReadonlyMap<number, ReadIntents>): void {
    this.#older = adoptGenerations(read);
    for (const { records, number } of this.#older) {
      for (const { seq } of records) this.#seq = Math.max(this.#seq, seq);
      this.#generation = Math.max(this.#generation, number + 1);
    }
    for (const { alike, joined } of read.values()) {
      this.#generation = Math.max(this.#generation, alike + 1, joined + 1);
    }
    if (this.#older.length > 0) this.onBegun();
  }

  /** The next generation begins. What the earlier ones hold stays until it is cleared. */
  renew(): void {
    if (this.#current !== null) this.#older.push(this.#current);
    this.#current = null;
    this.#generation++;
  }

  /** These are over. */
  clear(done: readonly Generation[]): void {
    this.#older = this.#older.filter((generation) => !done.includes(generation));
  }

  /** Puts one record on every in-sync replica, each in its own words. */
  *write(bodyFor: (replica: number, seq: number) => IntentBody): Op<number> {
    const members = this.#deps.inSync();
    const generation = this.#begin();
    const seq = ++this.#seq;
    generation.records.push({ ...bodyFor(members[0] ?? 0, seq), generation: generation.number, seq });
    generation.unflushed = true;
    const results = yield* this.#onAll(members, (replica, index) =>
      this.#place(replica, index, generation, seq, encodeIntent(bodyFor(index, seq))),
    );
    if (results.every(({ result }) => result === 0)) return 0;
    if (results.some(({ result }) => result === -ENOSPC || result === -EDQUOT)) return yield* this.#useSpare();
    return this.#deps.onFailed(results);
  }

  #begin(): Generation {
    if (this.#current !== null) return this.#current;
    const number = this.#generation;
    const first: IntentRecord = { kind: "begin", generation: number, seq: ++this.#seq };
    this.#current = newGeneration(number, first);
    this.onBegun();
    return this.#current;
  }

  *#place(replica: Replica, index: number, to: Generation, seq: number, target: ByteString): Op<number> {
    if (!to.members.has(index)) {
      const made = yield* wait(replica.mkdir(intentsPlace, to.place.name, 0o700, owner, null));
      if (made < 0 && made !== -EEXIST) return made;
      const first = to.records[0] as IntentRecord;
      const begun = yield* wait(replica.symlink(to.place, String(first.seq), encodeIntent(first), owner, null));
      if (begun < 0 && begun !== -EEXIST) return begun;
      to.members.add(index);
    }
    return yield* wait(replica.symlink(to.place, String(seq), target, owner, null));
  }

  /** No space for a record: the spare generation, which names the whole tree, becomes the current one everywhere. */
  *#useSpare(): Op<number> {
    while (this.#sparing !== null) yield this.#sparing;
    if (this.#everythingIn === this.#generation) return 0;
    const sparing = Promise.withResolvers<void>();
    this.#sparing = sparing.promise;
    try {
      this.renew();
      const number = this.#generation;
      const generation = newGeneration(number, { kind: "tree", path: [], generation: number, seq: ++this.#seq });
      const { place } = generation;
      this.#current = generation;
      this.onBegun();
      const results = yield* this.#onAll(this.#deps.inSync(), function* (replica, index) {
        const result = yield* wait(replica.rename(intentsPlace, SPARE, intentsPlace, place.name, 0));
        replica.forget(sparePlace);
        if (result === 0) generation.members.add(index);
        return result === -ENOENT ? -ENOSPC : result; // it is in use already
      });
      const answer = results.every(({ result }) => result === 0) ? 0 : this.#deps.onFailed(results);
      const flushed = answer === 0 ? yield* wait(this.flush()) : answer;
      if (flushed === 0 && this.#generation === number) this.#everythingIn = number;
      return flushed;
    } finally {
      this.#sparing = null;
      sparing.resolve();
    }
  }

  *prepareSpare(replica: Replica): Op<void> {
    const made = yield* wait(replica.mkdir(intentsPlace, SPARE, 0o700, owner, null));
    if (made < 0 && made !== -EEXIST) return; // without it a full disk refuses what needs a new intent
    const target = encodeIntent({ kind: "tree", path: [] });
    yield* wait(replica.symlink(sparePlace, "0", target, owner, null));
  }

  *#onAll(
    members: readonly number[],
    call: (replica: Replica, index: number) => Op<number>,
  ): Op<readonly ReplicaResult[]> {
    const answers = members.map((index) => start(call(this.#deps.replica(index), index)));
    const results: ReplicaResult[] = [];
    for (const [i, answer] of answers.entries()) {
      const result = typeof answer === "number" ? answer : yield* wait(answer);
      results.push({ replica: members[i] as number, result: Math.min(0, result) });
    }
    return results;
  }

  /** Everything on record so far is on stable storage. Answers 0 or an errno. */
  flush(): Eventual<number> {
    return this.#flushing.flush();
  }

  *#flushOp(): Op<number> {
    for (const generation of this.all) {
      if (!generation.unflushed) continue;
      generation.unflushed = false;
      const members = this.#deps.inSync().filter((index) => generation.members.has(index));
      const results = yield* this.#onAll(members, function* (replica) {
        const result = yield* wait(replica.fsyncdir(generation.place));
        return result < 0 ? result : yield* wait(replica.fsyncdir(intentsPlace));
      });
      if (results.every(({ result }) => result === 0)) continue;
      const answer = this.#deps.onFailed(results);
      if (answer === 0) continue;
      generation.unflushed = true;
      return answer;
    }
    return 0;
  }
}
