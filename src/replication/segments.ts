/** Where the data of a file are, and where its holes: SEEK_DATA and SEEK_HOLE as a sequence of segments. */
import type { ReplicaHandle } from "../replica/replica.ts";
import { ENXIO } from "../util/errno.ts";
import { type Copy, ReplicaCallError } from "./replica-call.ts";

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

export interface Segment {
  readonly start: number;
  readonly end: number;
  readonly isData: boolean;
}

/** Segments of bytes [start, end) of a file of `sizeBytes`, in order and without gaps; where a backend cannot tell, all is data. */
export async function* segmentsOf(
  copy: Copy,
  handle: ReplicaHandle,
  start: number,
  end: number,
): AsyncGenerator<Segment> {
  let at = start;
  while (at < end) {
    const data = await copy.replica.seek(handle, at, SEEK_DATA);
    if (data === -ENXIO) {
      yield { start: at, end, isData: false }; // no data from here on
      return;
    }
    if (data < 0) {
      yield { start: at, end, isData: true };
      return;
    }
    if (data > at) yield { start: at, end: Math.min(data, end), isData: false };
    if (data >= end) return;
    const hole = await copy.replica.seek(handle, data, SEEK_HOLE);
    if (hole < 0 && hole !== -ENXIO) throw new ReplicaCallError(copy, "find holes of", hole);
    const stop = hole < 0 ? end : Math.min(hole, end);
    if (stop <= data) return; // cut short meanwhile
    yield { start: Math.max(data, at), end: stop, isData: true };
    at = stop;
  }
}
