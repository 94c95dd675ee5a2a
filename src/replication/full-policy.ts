/**
 * Refuses changes before a replica is full, so that none of them can succeed on some replicas and not on others
 * (`fullPolicy: FailWrites`), or before the volume has more bytes than its capacity.
 *
 * - A change is refused only because of a measurement, never of an estimate: an application that overwrites in place uses
 *   no space, however much it writes. What was written since the last measurement only says when to measure again.
 * - A replica's free space is what its `statfs` says less a reserve, which covers what is admitted while a measurement is
 *   under way. Where all is used up, each attempt asks anew, but not more often than `REFUSED_RETRY_MS`.
 * - The capacity is compared with the space that the tree occupies, which is found by walking it (`measureUse`), since
 *   a file system may hold other things as well. So it can be exceeded by what is written during one walk.
 *   What is removed counts at once where it is told (`freed`).
 * - `DropReplica` leaves full replicas to the verdict, and refuses nothing but beyond the capacity.
 */
import { ENOSPC } from "../util/errno.ts";
import type { Eventual } from "../util/op.ts";
import type { FullPolicy } from "./model.ts";

/** Kept free on each replica: one part in so many, but at least and at most so much. */
const RESERVE_PART = 100;
const RESERVE_MIN_BYTES = 16 * 2 ** 20;
const RESERVE_MAX_BYTES = 2 ** 30;
const MEASURE_AFTER_BYTES = 64 * 2 ** 20;
const MEASURE_AFTER_MS = 1_000;
const REFUSED_RETRY_MS = 100;
/** A walk over the tree may take this part of the time. */
const WALK_PART = 20;
/** What was full is so no more when this part of the reserve, or of the capacity, is free beside. */
const ROOM_PART = 4;
const ROOM_CAPACITY_PART = 100;

export interface Space {
  readonly totalBytes: number;
  /** For us: without what the file system keeps for others. */
  readonly availableBytes: number;
}

export interface FullPolicyDeps {
  /** Of an in-sync replica; null where it cannot be had. */
  readonly space: (replica: number) => Eventual<Space | null>;
  readonly inSync: () => readonly number[];
  /** Bytes that the tree occupies. */
  readonly measureUse: () => Promise<number>;
  /** Changes begin to be refused because of this replica (null: of the volume's capacity), or there is room again. */
  readonly onFull: (full: { readonly replica: number | null } | null) => void;
  /** A clock that never goes back. */
  readonly nowMs: () => number;
}

export interface FullPolicyOptions {
  readonly fullPolicy: FullPolicy;
  readonly capacityBytes: number | null;
}

export function reserveOf({ totalBytes }: Space): number {
  // A file system that is hardly larger than the reserve is still to be of use.
  const least = Math.min(RESERVE_MIN_BYTES, totalBytes / 20);
  return Math.floor(Math.min(RESERVE_MAX_BYTES, Math.max(least, totalBytes / RESERVE_PART)));
}

/** What applications may still write, by what was measured. */
export function roomLeft(
  spaces: readonly Space[],
  { fullPolicy, capacityBytes }: FullPolicyOptions,
  usedBytes: number,
): number {
  const rooms = spaces.map((space) => space.availableBytes - (fullPolicy === "FailWrites" ? reserveOf(space) : 0));
  // A replica that is dropped when it is full does not bound the volume, the last one does.
  const backends = fullPolicy === "FailWrites" ? Math.min(...rooms) : Math.max(...rooms);
  const capacity = capacityBytes === null ? Number.POSITIVE_INFINITY : capacityBytes - usedBytes;
  return Math.max(0, Math.min(backends, capacity));
}

export class FullGuard {
  readonly #deps: FullPolicyDeps;
  #options: FullPolicyOptions;
  #spaces: readonly (Space & { readonly replica: number })[] = [];
  #isFull = false;
  #measuredFor: readonly number[] | null = null;
  #measuredAtMs = Number.NEGATIVE_INFINITY;
  #writtenBytes = 0;
  #measuring = false;
  #usedBytes = 0;
  #useKnown = false;
  #useWrittenBytes = 0;
  #walking = false;
  #walkAgainAtMs = Number.NEGATIVE_INFINITY;

  constructor(deps: FullPolicyDeps, options: FullPolicyOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** May a change go on that writes so many bytes (0: a name, an attribute)? 0, or -ENOSPC. */
  admit(bytes: number): number {
    this.#writtenBytes += bytes;
    if (this.#options.fullPolicy === "FailWrites") {
      const refused = this.#fullReplica(bytes) !== null;
      if (this.#isSpaceOld(refused)) this.#measureSpace();
      // Where statfs answers at once the refusal is looked at again.
      const replica = refused ? this.#fullReplica(bytes) : null;
      if (replica !== null) return this.#refuse(replica);
    }
    const { capacityBytes } = this.#options;
    if (capacityBytes !== null && bytes > 0) {
      this.#useWrittenBytes += bytes;
      this.#walkIfDue();
      if (this.#useKnown && this.#usedBytes + bytes > capacityBytes) return this.#refuse(null);
    }
    if (this.#isFull && this.#hasRoom()) {
      this.#isFull = false;
      this.#deps.onFull(null);
    }
    return 0;
  }

  #refuse(replica: number | null): number {
    if (!this.#isFull) {
      this.#isFull = true;
      this.#deps.onFull({ replica });
    }
    return -ENOSPC;
  }

  #hasRoom(): boolean {
    const { fullPolicy, capacityBytes } = this.#options;
    const isFree = (space: Space): boolean => space.availableBytes > reserveOf(space) * (1 + 1 / ROOM_PART);
    if (fullPolicy === "FailWrites" && !this.#spaces.every(isFree)) return false;
    return capacityBytes === null || this.#usedBytes < capacityBytes * (1 - 1 / ROOM_CAPACITY_PART);
  }

  /** So much of the tree is gone. */
  freed(bytes: number): void {
    this.#usedBytes = Math.max(0, this.#usedBytes - bytes);
  }

  /** Bytes that the tree occupies, as far as they are measured (with a capacity). */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  get capacityBytes(): number | null {
    return this.#options.capacityBytes;
  }

  /** The volume may hold so much from now on. */
  resize(capacityBytes: number | null): void {
    this.#options = { ...this.#options, capacityBytes };
  }

  /** Begins the first measurements, and has `admit` rest on them when they are there. */
  start(): void {
    this.#measureSpace();
    if (this.#options.capacityBytes !== null) this.#walk();
  }

  #fullReplica(bytes: number): number | null {
    return this.#spaces.find((space) => space.availableBytes - bytes < reserveOf(space))?.replica ?? null;
  }

  #isSpaceOld(refused: boolean): boolean {
    if (this.#measuredFor !== this.#deps.inSync()) return true;
    // The less there is, the more often it is looked at.
    const room = Math.min(...this.#spaces.map((space) => space.availableBytes - reserveOf(space)));
    if (this.#writtenBytes >= Math.min(MEASURE_AFTER_BYTES, room / 4)) return true;
    return this.#deps.nowMs() - this.#measuredAtMs >= (refused ? REFUSED_RETRY_MS : MEASURE_AFTER_MS);
  }

  #measureSpace(): void {
    if (this.#measuring) return;
    const inSync = this.#deps.inSync();
    const answers = inSync.map((replica) => this.#deps.space(replica));
    const known = (spaces: readonly (Space | null)[]): void => {
      this.#spaces = spaces.flatMap((space, i) => (space === null ? [] : [{ ...space, replica: inSync[i] as number }]));
      this.#measuredFor = inSync;
      this.#measuredAtMs = this.#deps.nowMs();
      this.#writtenBytes = 0;
    };
    const atOnce = answers.flatMap((answer) => (answer instanceof Promise ? [] : [answer]));
    if (atOnce.length === answers.length) {
      known(atOnce);
      return;
    }
    this.#measuring = true;
    void Promise.allSettled(answers.map((answer) => Promise.resolve(answer))).then((settled) => {
      this.#measuring = false;
      known(settled.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : null)));
    });
  }

  #walkIfDue(): void {
    const { capacityBytes } = this.#options;
    if (capacityBytes === null || this.#walking) return;
    // While the tree would fit even if every byte had been new, there is nothing to find out.
    if (this.#useKnown && this.#usedBytes + this.#useWrittenBytes <= capacityBytes) return;
    if (this.#deps.nowMs() >= this.#walkAgainAtMs) this.#walk();
  }

  #walk(): void {
    this.#walking = true;
    const begunAtMs = this.#deps.nowMs();
    const before = this.#useWrittenBytes;
    const end = (): void => {
      const tookMs = this.#deps.nowMs() - begunAtMs;
      this.#walking = false;
      this.#walkAgainAtMs = this.#deps.nowMs() + Math.max(REFUSED_RETRY_MS, tookMs * WALK_PART);
    };
    this.#deps.measureUse().then((usedBytes) => {
      this.#usedBytes = usedBytes;
      this.#useWrittenBytes -= before;
      this.#useKnown = true;
      end();
    }, end);
  }
}
