/**
 * Record marking (RFC 5531, section 11): finds the messages in a TCP stream. A record that arrived whole is handed out
 * where it is; one in pieces is put together in one buffer of the right size, so each byte is copied at most once. What
 * `onRecord` is given is valid only until it returns.
 */
import { XdrError } from "./xdr.ts";

const lastFragment = 0x80000000;

export class RecordReader {
  readonly #onRecord: (record: Buffer) => void;
  readonly #maxBytes: number;
  /** The header of a fragment, as far as it has arrived. */
  readonly #header = Buffer.alloc(4);
  #headerBytes = 0;
  #fragmentLeft = 0;
  #last = false;
  #assembly: Buffer = Buffer.alloc(0);
  #assembled = 0;

  constructor(onRecord: (record: Buffer) => void, maxBytes: number) {
    this.#onRecord = onRecord;
    this.#maxBytes = maxBytes;
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
        this.#reserve(this.#assembled + this.#fragmentLeft);
      }
      const bytes = Math.min(chunk.length - at, this.#fragmentLeft);
      chunk.copy(this.#assembly, this.#assembled, at, at + bytes);
      this.#assembled += bytes;
      this.#fragmentLeft -= bytes;
      at += bytes;
      if (this.#fragmentLeft === 0 && this.#last) {
        const length = this.#assembled;
        this.#assembled = 0;
        this.#onRecord(this.#assembly.subarray(0, length));
      }
    }
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
