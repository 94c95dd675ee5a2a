/**
 * Inode numbers that applications see: the number on the replica that led when the object was first seen, tagged with
 * that replica's index in bits 50 to 52, so that numbers of different leaders never meet. Index 0 leaves it as it is.
 * Numbers of 2^50 and more are folded into 50 bits: only there two files could share one.
 */
const TAG = 2 ** 50;

export function tagIno(replica: number, ino: number): number {
  return replica * TAG + (ino < TAG ? ino : foldHigh(ino));
}

/** Whose number this is. */
export function replicaOfIno(tagged: number): number {
  return Math.floor(tagged / TAG);
}

function foldHigh(ino: number): number {
  const high = Math.floor(ino / TAG);
  const low = ino % TAG;
  return (low + high * 0x9e3779b97f) % TAG;
}
