/**
 * Inode numbers that applications see: the number on the replica that led when the object was first seen, tagged with
 * that replica's index in bits 50 to 52, so that numbers of different leaders never meet. A replica that comes back
 * may have been filled anew, and gives its files numbers that others have been shown under: so each time it moves on by
 * 2^42, within its 50 bits. Index 0 leaves a number as it is until then.
 *
 * So two files that anybody knows never have one number, as long as those of a replica are below 2^42 and it comes back
 * less than 256 times while the older of the two is known. Numbers of 2^50 and more are folded into 50 bits.
 */
const TAG = 2 ** 50;
const STEP = 2 ** 42;
const STEPS = TAG / STEP;

export class InodeNumbers {
  readonly #steps: number[];

  /** `steps`: what an earlier process had come to, by replica. */
  constructor(steps: readonly number[] = []) {
    this.#steps = [...steps];
  }

  /** By replica, for `InodeNumbers` of a later process. */
  get steps(): readonly number[] {
    return this.#steps;
  }

  /** The number that a file of this replica is shown under. */
  shown(replica: number, ino: number): number {
    const own = ino < TAG ? ino : foldHigh(ino);
    return replica * TAG + ((own + (this.#steps[replica] ?? 0) * STEP) % TAG);
  }

  /** The replica has come back: none of its numbers means what it did before. */
  renew(replica: number): void {
    this.#steps[replica] = ((this.#steps[replica] ?? 0) + 1) % STEPS;
  }
}

/** Whose number this is. */
export function replicaOfIno(shown: number): number {
  return Math.floor(shown / TAG);
}

function foldHigh(ino: number): number {
  const high = Math.floor(ino / TAG);
  const low = ino % TAG;
  return (low + high * 0x9e3779b97f) % TAG;
}
