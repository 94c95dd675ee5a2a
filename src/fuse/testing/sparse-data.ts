/** The contents of a file in memory: chunks where something was written, holes elsewhere. */
const chunkBytes = 4096;

export class SparseData {
  size = 0;
  readonly #chunks = new Map<number, Buffer>();

  get allocatedBytes(): number {
    return this.#chunks.size * chunkBytes;
  }

  read(offset: number, into: Uint8Array): number {
    const bytes = Math.max(0, Math.min(into.byteLength, this.size - offset));
    for (let done = 0; done < bytes; ) {
      const { index, within, length } = piece(offset + done, bytes - done);
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) into.fill(0, done, done + length);
      else into.set(chunk.subarray(within, within + length), done);
      done += length;
    }
    return bytes;
  }

  write(offset: number, data: Uint8Array): number {
    for (let done = 0; done < data.byteLength; ) {
      const { index, within, length } = piece(offset + done, data.byteLength - done);
      this.#chunk(index).set(data.subarray(done, done + length), within);
      done += length;
    }
    this.size = Math.max(this.size, offset + data.byteLength);
    return data.byteLength;
  }

  truncate(size: number): void {
    if (size < this.size) this.punch(size, this.size - size);
    this.size = size;
  }

  /** Zeros, without changing the size. */
  punch(offset: number, bytes: number): void {
    const end = Math.min(offset + bytes, this.size);
    for (const [index, chunk] of this.#chunks) {
      const start = index * chunkBytes;
      const from = Math.max(offset, start);
      const to = Math.min(end, start + chunkBytes);
      if (from >= to) continue;
      if (to - from === chunkBytes || (from === start && to === this.size)) this.#chunks.delete(index);
      else chunk.fill(0, from - start, to - start);
    }
  }

  allocate(offset: number, bytes: number): void {
    for (let at = offset; at < offset + bytes; at += chunkBytes) this.#chunk(Math.floor(at / chunkBytes));
  }

  /** The first byte at or after `offset` that is in a chunk (or in a hole); -1 if `offset` is at or past the end. */
  seek(offset: number, what: "data" | "hole"): number {
    if (offset >= this.size) return -1;
    for (let at = offset; at < this.size; at = (Math.floor(at / chunkBytes) + 1) * chunkBytes) {
      if (this.#chunks.has(Math.floor(at / chunkBytes)) === (what === "data")) return at;
    }
    return what === "hole" ? this.size : -1;
  }

  #chunk(index: number): Buffer {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = Buffer.alloc(chunkBytes);
      this.#chunks.set(index, chunk);
    }
    return chunk;
  }
}

function piece(at: number, most: number): { index: number; within: number; length: number } {
  const index = Math.floor(at / chunkBytes);
  const within = at - index * chunkBytes;
  return { index, within, length: Math.min(most, chunkBytes - within) };
}
