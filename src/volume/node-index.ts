/**
 * Nodes by their ids, which count up and are never used twice: in blocks of an array each, since a Map takes three times
 * the memory. A block whose nodes are all gone goes as well.
 */
const blockSize = 1024;

interface Block<T> {
  readonly items: (T | undefined)[];
  count: number;
}

export class NodeIndex<T> {
  readonly #blocks = new Map<number, Block<T>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    return this.#blocks.get(Math.floor(id / blockSize))?.items[id % blockSize];
  }

  set(id: number, item: T): void {
    const at = Math.floor(id / blockSize);
    let block = this.#blocks.get(at);
    if (block === undefined) {
      block = { items: new Array(blockSize).fill(undefined), count: 0 };
      this.#blocks.set(at, block);
    }
    if (block.items[id % blockSize] === undefined) {
      block.count++;
      this.#size++;
    }
    block.items[id % blockSize] = item;
  }

  delete(id: number): void {
    const at = Math.floor(id / blockSize);
    const block = this.#blocks.get(at);
    if (block?.items[id % blockSize] === undefined) return;
    block.items[id % blockSize] = undefined;
    this.#size--;
    if (--block.count === 0) this.#blocks.delete(at);
  }

  *values(): Generator<T> {
    for (const { items } of this.#blocks.values()) {
      for (const item of items) if (item !== undefined) yield item;
    }
  }
}
