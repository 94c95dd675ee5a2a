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

/**
 * Reads the segments of one open file. What was learnt of the last data and the last hole is kept until `forget`, since
 * to look for the end of long data costs file systems a walk through them.
 */
export class SegmentReader {
  readonly #copy: Copy;
  readonly #handle: ReplicaHandle;
  #data = { start: 0, end: 0 };
  #hole = { start: 0, end: 0 };

  constructor(copy: Copy, handle: ReplicaHandle) {
    this.#copy = copy;
    this.#handle = handle;
  }

  /** The file may have been written to: bytes in what was a hole must not be missed. (What was data may be read still.) */
  forgetHoles(): void {
    this.#hole = { start: 0, end: 0 };
  }

  /** The file may have changed. */
  forget(): void {
    this.#data = { start: 0, end: 0 };
    this.#hole = { start: 0, end: 0 };
  }

  /** Segments of bytes [start, end), in order and without gaps; where a backend cannot tell, all is data. */
  async *between(start: number, end: number): AsyncGenerator<Segment> {
    for (let at = start; at < end; ) {
      let stop = isIn(this.#data, at) ? this.#data.end : 0;
      const isData = stop > 0;
      if (!isData) stop = isIn(this.#hole, at) ? this.#hole.end : 0;
      if (stop === 0) {
        if (await this.#learn(at)) continue;
        return;
      }
      const until = Math.min(stop, end);
      yield { start: at, end: until, isData };
      at = until;
    }
  }

  /** Finds out what is at a position. False if the file was cut short meanwhile. */
  async #learn(at: number): Promise<boolean> {
    const { replica } = this.#copy;
    const data = await replica.seek(this.#handle, at, SEEK_DATA);
    if (data < 0) {
      // No data from here on; or the backend cannot tell.
      if (data === -ENXIO) this.#hole = { start: at, end: Number.POSITIVE_INFINITY };
      else this.#data = { start: at, end: Number.POSITIVE_INFINITY };
      return true;
    }
    if (data > at) this.#hole = { start: at, end: data };
    const hole = await replica.seek(this.#handle, data, SEEK_HOLE);
    if (hole < 0 && hole !== -ENXIO) throw new ReplicaCallError(this.#copy, "find holes of", hole);
    if (hole >= 0 && hole <= data) return false;
    this.#data = { start: data, end: hole < 0 ? Number.POSITIVE_INFINITY : hole };
    return true;
  }
}

function isIn(segment: { readonly start: number; readonly end: number }, at: number): boolean {
  return at >= segment.start && at < segment.end;
}
