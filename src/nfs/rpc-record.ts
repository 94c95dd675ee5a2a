/**
 * Record marking (RFC 5531, section 11): finds the messages in a TCP stream. A record that arrived whole is handed out
 * where it is; one in pieces is put together in one buffer of the right size. What `onRecord` is given is valid only
 * until it returns.
 *
 * Of a large record `begin` is shown what has arrived so far; it may name the place where the rest belongs, which is
 * then copied there as it arrives, and `end` is called when it is complete.
 */
import { type Rest, XdrError } from "./xdr.ts";

const lastFragment = 0x80000000;
/** Smaller records are put together; larger ones may be taken in directly. */
const directBytes = 16 * 1024;

export interface DirectRecords {
  readonly begin: (start: Buffer, totalBytes: number) => Rest | null;
  readonly end: () => void;
}

export class RecordReader {
  readonly #onRecord: (record: Buffer) => void;
  readonly #maxBytes: number;
  readonly #direct: DirectRecords | null;
  /** Where the record that is arriving goes; null: to `#assembly`. */
  #rest: Rest | null = null;
  /** The header of a fragment, as far as it has arrived. */
  readonly #header = Buffer.alloc(4);
  #headerBytes = 0;
  #fragmentLeft = 0;
  #last = false;
  #assembly: Buffer = Buffer.alloc(0);
  #assembled = 0;

  constructor(onRecord: (record: Buffer) => void, maxBytes: number, direct: DirectRecords | null = null) {
    this.#onRecord = onRecord;
    this.#maxBytes = maxBytes;
    this.#direct = direct;
  }

  /** Throws `XdrError` on a record that is larger than allowed: the stream is not to be used any more. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#fragmentLeft === 0) {
        at = this.#readHeader(chunk, at);
        if (this.#headerBytes < 4) return;
        this.#beginFragment();
        if (this.#last && this.#assembled === 0 && chunk.length - at >= this.#fragmentLeft) {
          const end = at + this.#fragmentLeft;
          this.#fragmentLeft = 0;
          this.#onRecord(chunk.subarray(at, end));
          at = end;
          continue;
        }
        if (this.#beginsDirectly(chunk, at)) return;
        this.#reserve(this.#assembled + this.#fragmentLeft);
      }
      const bytes = Math.min(chunk.length - at, this.#fragmentLeft);
      if (this.#rest === null) {
        chunk.copy(this.#assembly, this.#assembled, at, at + bytes);
        this.#assembled += bytes;
      } else this.#fill(this.#rest, chunk, at, bytes);
      this.#fragmentLeft -= bytes;
      at += bytes;
      if (this.#fragmentLeft === 0 && this.#rest !== null) {
        this.#rest = null;
        this.#direct?.end();
      } else if (this.#fragmentLeft === 0 && this.#last) {
        const length = this.#assembled;
        this.#assembled = 0;
        this.#onRecord(this.#assembly.subarray(0, length));
      }
    }
  }

  /** Takes all that is left of the chunk as the beginning of a record that goes to its place directly. */
  #beginsDirectly(chunk: Buffer, at: number): boolean {
    if (this.#direct === null || !this.#last || this.#assembled > 0 || this.#fragmentLeft < directBytes) return false;
    this.#rest = this.#direct.begin(chunk.subarray(at), this.#fragmentLeft);
    if (this.#rest === null) return false;
    this.#fragmentLeft -= chunk.length - at;
    return true;
  }

  /** What follows the opaque is padding. */
  #fill(rest: Rest, chunk: Buffer, at: number, bytes: number): void {
    const wanted = Math.min(bytes, rest.length - rest.filled);
    rest.into.set(chunk.subarray(at, at + wanted), rest.filled);
    rest.filled += wanted;
  }

  /** The place of the record that is arriving is not to be touched any more. */
  abandon(): void {
    if (this.#rest !== null) this.#rest = { into: new Uint8Array(0), filled: 0, length: 0 };
  }

  #readHeader(chunk: Buffer, at: number): number {
    while (this.#headerBytes < 4 && at < chunk.length) this.#header[this.#headerBytes++] = chunk[at++] as number;
    return at;
  }

  #beginFragment(): void {
    this.#headerBytes = 0;
    const mark = this.#header.readUInt32BE(0);
    this.#last = mark >= lastFragment;
    this.#fragmentLeft = mark % lastFragment;
    if (this.#assembled + this.#fragmentLeft > this.#maxBytes) {
      throw new XdrError(`A record of more than ${this.#maxBytes} bytes: this is not an RPC server`);
    }
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#assembly.length) return;
    const larger = Buffer.allocUnsafe(Math.max(bytes, 64 * 1024));
    this.#assembly.copy(larger, 0, 0, this.#assembled);
    this.#assembly = larger;
  }
}
