/**
 * XDR (RFC 4506) as NFS uses it: big-endian 32-bit units. The writer collects a message as segments, so that a payload
 * goes out as it is, without a copy; the reader works on the receive buffer, and what it hands out (`opaque`) is valid
 * only until the decoder returns. Reading past the end throws `XdrError`: a message that is cut short or nonsense.
 */
import type { ByteString } from "../util/byte-string.ts";

export class XdrError extends Error {
  override readonly name = "XdrError";
}

const two32 = 2 ** 32;

export class XdrWriter {
  /** Finished parts of the message; `finish` adds the last. */
  readonly segments: Uint8Array[] = [];
  #buffer: Buffer;
  #start = 0;
  #at = 0;
  #finishedBytes = 0;

  constructor(sizeHint = 512) {
    this.#buffer = Buffer.allocUnsafe(sizeHint);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#finishedBytes + this.#at - this.#start;
  }

  u32(value: number): this {
    const at = this.#room(4);
    const b = this.#buffer;
    b[at] = value >>> 24;
    b[at + 1] = value >>> 16;
    b[at + 2] = value >>> 8;
    b[at + 3] = value;
    return this;
  }

  /** An unsigned hyper from a whole number below 2^53. */
  u64(value: number): this {
    return this.u32(Math.floor(value / two32)).u32(value % two32);
  }

  big64(value: bigint): this {
    return this.u32(Number(value >> 32n)).u32(Number(value & 0xffffffffn));
  }

  /** A signed hyper (NFSv4 times), exact within 2^53. */
  i64(value: number): this {
    return this.u32(Math.floor(value / two32)).u32(value - Math.floor(value / two32) * two32);
  }

  bool(value: boolean): this {
    return this.u32(value ? 1 : 0);
  }

  /** Fixed-length opaque: no length in front. */
  fixed(bytes: Uint8Array): this {
    const padded = (bytes.length + 3) & ~3;
    const at = this.#room(padded);
    this.#buffer.set(bytes, at);
    if (padded !== bytes.length) this.#buffer.fill(0, at + bytes.length, at + padded);
    return this;
  }

  opaque(bytes: Uint8Array): this {
    return this.u32(bytes.length).fixed(bytes);
  }

  /** A string of bytes (latin1, one byte for each character). */
  string(text: ByteString): this {
    this.u32(text.length);
    const padded = (text.length + 3) & ~3;
    const at = this.#room(padded);
    this.#buffer.write(text, at, text.length, "latin1");
    if (padded !== text.length) this.#buffer.fill(0, at + text.length, at + padded);
    return this;
  }

  /** A variable-length opaque that is sent from where it is: it must not change until the message was sent. */
  payload(bytes: Uint8Array): this {
    this.u32(bytes.length);
    if (bytes.length === 0) return this;
    this.#cut();
    this.segments.push(bytes);
    this.#finishedBytes += bytes.length;
    const padding = -bytes.length & 3;
    if (padding > 0) {
      const at = this.#room(padding);
      this.#buffer.fill(0, at, at + padding);
    }
    return this;
  }

  /** A place for a u32 that is known only later: `hole.writeUInt32BE(value)`, at any time before the message is sent. */
  hole(): Buffer {
    const at = this.#room(4);
    return this.#buffer.subarray(at, at + 4);
  }

  /** The message's parts, in order. */
  finish(): Uint8Array[] {
    this.#cut();
    return this.segments;
  }

  #cut(): void {
    if (this.#at === this.#start) return;
    this.segments.push(this.#buffer.subarray(this.#start, this.#at));
    this.#finishedBytes += this.#at - this.#start;
    this.#start = this.#at;
  }

  /** When the buffer is full it becomes a segment and a new one is begun, so that nothing moves and holes stay valid. */
  #room(bytes: number): number {
    if (this.#at + bytes > this.#buffer.length) {
      this.#cut();
      this.#buffer = Buffer.allocUnsafe(Math.max(bytes, 1024));
      this.#start = 0;
      this.#at = 0;
    }
    const at = this.#at;
    this.#at += bytes;
    return at;
  }
}

/** Where the rest of an opaque goes that has not arrived yet. */
export interface Rest {
  readonly into: Uint8Array;
  /** How far it is filled, and up to where it will be. */
  filled: number;
  readonly length: number;
}

export class XdrReader {
  #bytes: Buffer;
  #at: number;
  #end: number;
  /** Of the whole message, of which only the beginning may be here. */
  readonly #totalBytes: number;
  /** Set by `opaqueInto` when a part is still to come. */
  rest: Rest | null = null;

  constructor(bytes: Buffer, totalBytes = bytes.length) {
    this.#bytes = bytes;
    this.#at = 0;
    this.#end = bytes.length;
    this.#totalBytes = totalBytes;
  }

  get position(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#end - this.#at;
  }

  u32(): number {
    const at = this.#take(4);
    return this.#bytes.readUInt32BE(at);
  }

  /** An unsigned hyper; above 2^53 the last bits are lost. */
  u64(): number {
    const at = this.#take(8);
    return this.#bytes.readUInt32BE(at) * two32 + this.#bytes.readUInt32BE(at + 4);
  }

  i64(): number {
    const at = this.#take(8);
    return this.#bytes.readInt32BE(at) * two32 + this.#bytes.readUInt32BE(at + 4);
  }

  big64(): bigint {
    return this.#bytes.readBigUInt64BE(this.#take(8));
  }

  bool(): boolean {
    return this.u32() !== 0;
  }

  /** A view of the receive buffer: copy what has to last. */
  fixed(length: number): Buffer {
    const at = this.#take((length + 3) & ~3);
    return this.#bytes.subarray(at, at + length);
  }

  opaque(maxBytes = 0x7fffffff): Buffer {
    const length = this.u32();
    if (length > maxBytes) throw new XdrError(`An opaque of ${length} bytes where at most ${maxBytes} are allowed`);
    return this.fixed(length);
  }

  /**
   * Copies an opaque to where it is wanted, and answers its length. The one call that works on a message of which only
   * the beginning has arrived: the rest is copied later, and must be all that is left.
   */
  opaqueInto(into: Uint8Array): number {
    const length = this.u32();
    if (length > into.length) throw new XdrError(`An opaque of ${length} bytes where at most ${into.length} fit`);
    const here = Math.min(length, this.#end - this.#at);
    if (here < length && this.#at + length > this.#totalBytes)
      throw new XdrError("An opaque is longer than its message");
    into.set(this.#bytes.subarray(this.#at, this.#at + here));
    if (here < length) this.rest = { into, filled: here, length };
    this.#at = Math.min(this.#end, this.#at + ((length + 3) & ~3));
    return length;
  }

  string(maxBytes = 0x7fffffff): ByteString {
    const length = this.u32();
    if (length > maxBytes) throw new XdrError(`A string of ${length} bytes where at most ${maxBytes} are allowed`);
    const at = this.#take((length + 3) & ~3);
    return this.#bytes.toString("latin1", at, at + length);
  }

  skip(bytes: number): void {
    this.#take(bytes);
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (bytes < 0 || at + bytes > this.#end)
      throw new XdrError(`The message ends ${at + bytes - this.#end} bytes early`);
    this.#at = at + bytes;
    return at;
  }
}
