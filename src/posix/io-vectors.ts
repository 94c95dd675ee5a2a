/** `struct iovec[]` over JavaScript buffers, for writev, preadv2 and sendmsg. */
import koffi from "koffi";

/**
 * Keeps its buffers referenced while it holds their addresses. Only for buffers that live outside V8's heap: those of
 * `Buffer.alloc` and larger than 64 bytes, or views of a shared or mapped memory.
 */
export class IoVectors {
  readonly raw: BigUint64Array;
  readonly #buffers: (Uint8Array | null)[];

  constructor(capacity: number) {
    this.raw = new BigUint64Array(capacity * 2);
    this.#buffers = new Array(capacity).fill(null);
  }

  set(index: number, buffer: Uint8Array, bytes = buffer.byteLength): void {
    if (this.#buffers[index] !== buffer) {
      this.#buffers[index] = buffer;
      this.raw[index * 2] = koffi.address(buffer);
    }
    this.raw[index * 2 + 1] = BigInt(bytes);
  }

  /** Lets go of the buffers. */
  clear(): void {
    this.#buffers.fill(null);
  }
}
