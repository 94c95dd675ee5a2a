/** One flush for all who ask while another one is under way. */
import { type Eventual, type Op, start } from "../util/op.ts";

export class SharedFlush {
  readonly #op: () => Op<number>;
  #running: Promise<number> | null = null;
  #next: Promise<number> | null = null;

  constructor(op: () => Op<number>) {
    this.#op = op;
  }

  /** Resolves with the result of a flush that began after this call. */
  flush(): Eventual<number> {
    if (this.#running === null) return this.#start();
    this.#next ??= this.#running.then(() => {
      this.#next = null;
      return this.#start();
    });
    return this.#next;
  }

  #start(): Eventual<number> {
    const flushed = start(this.#op());
    if (typeof flushed === "number") return flushed;
    const running = flushed.finally(() => {
      if (this.#running === running) this.#running = null;
    });
    this.#running = running;
    return running;
  }
}
