/**
 * A bounded set of threads for one replica's calls that may wait for a disk or hang for ever. Invariants:
 *
 * - Jobs begin in the order of their arrival, at most `maxThreads` at a time, each thread with one.
 * - A job that was begun is never abandoned: its promise settles when the call has ended, which may be never, and what
 *   it was given stays referenced till then. A stuck thread harms nobody but the jobs queued behind all stuck threads.
 * - Threads start with the first job and stop after `idleMs` without one, since each costs ten megabytes; and one more
 *   starts only when all have been busy for a while. They start one at a time: that takes the processor for long.
 */
import { extname } from "node:path";
import { SHARE_ENV, Worker } from "node:worker_threads";
import { EIO, ENOTCONN } from "../util/errno.ts";

export interface ThreadsOptions {
  /** Module that the threads run, beside this one, without extension. */
  readonly module: "threads-worker" | "offload-worker";
  readonly workerData?: unknown;
  readonly maxThreads: number;
  readonly idleMs: number;
}

interface Job<Q, A> {
  readonly question: Q;
  /** Memory that the call uses. */
  readonly keep: unknown;
  readonly resolve: (answer: A | number) => void;
}

interface Thread<Q, A> {
  readonly worker: Worker;
  job: Job<Q, A> | null;
  timer: NodeJS.Timeout | null;
}

/** A queue that is still there after this time is worth a thread. */
const patienceMs = 2;

/** `Q`: what can be cloned to the thread; `A`: its answer. A thread that dies answers -EIO. */
export class Threads<Q, A> {
  readonly #options: ThreadsOptions;
  readonly #threads = new Set<Thread<Q, A>>();
  readonly #idle: Thread<Q, A>[] = [];
  #queue: Job<Q, A>[] = [];
  #stopped = false;
  #growing = false;
  #starting = false;
  #waiting: (() => void)[] = [];

  constructor(options: ThreadsOptions) {
    this.#options = options;
  }

  /** Threads that there are now, and jobs that wait for one. */
  get size(): { readonly threads: number; readonly busy: number; readonly queued: number } {
    const threads = this.#threads.size;
    return { threads, busy: threads - this.#idle.length, queued: this.#queue.length };
  }

  /** Answers the thread's answer, or a negative errno: ENOTCONN after `stop`, EIO if the thread died of it. */
  run(question: Q, keep: unknown = null): Promise<A | number> {
    return new Promise((resolve) => {
      const job = { question, keep, resolve };
      if (this.#stopped) return resolve(-ENOTCONN);
      const thread = this.#idle.pop() ?? (this.#threads.size === 0 ? this.#start() : null);
      if (thread !== null) return this.#begin(thread, job);
      this.#queue.push(job);
      this.#growLater();
    });
  }

  #growLater(): void {
    if (this.#growing || this.#threads.size >= this.#options.maxThreads) return;
    this.#growing = true;
    setTimeout(() => {
      this.#growing = false;
      if (this.#queue.length === 0 || this.#threads.size >= this.#options.maxThreads) return;
      if (!this.#starting) this.#begin(this.#start(), this.#queue.shift() as Job<Q, A>);
      if (this.#queue.length > 0) this.#growLater();
    }, patienceMs);
  }

  /** Jobs that have not begun answer ENOTCONN. */
  dropQueue(): void {
    const queued = this.#queue;
    this.#queue = [];
    for (const job of queued) job.resolve(-ENOTCONN);
  }

  /** When there is no job. */
  async idle(): Promise<void> {
    if (this.#threads.size > this.#idle.length) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Queued jobs answer ENOTCONN; begun ones go on, and their threads end after them. May be followed by `restart`. */
  stop(): void {
    this.#stopped = true;
    this.dropQueue();
    for (const thread of this.#idle.splice(0)) this.#end(thread);
  }

  restart(): void {
    this.#stopped = false;
  }

  #start(): Thread<Q, A> {
    const { module, workerData } = this.#options;
    const worker = new Worker(new URL(`./${module}${extname(import.meta.url)}`, import.meta.url), {
      workerData,
      env: SHARE_ENV,
      resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64, stackSizeMb: 1 },
    });
    const thread: Thread<Q, A> = { worker, job: null, timer: null };
    this.#starting = true;
    worker.on("online", () => {
      this.#starting = false;
    });
    worker.on("message", (answer: A) => this.#answered(thread, answer));
    worker.on("error", () => this.#died(thread));
    worker.on("exit", () => this.#died(thread));
    this.#threads.add(thread);
    return thread;
  }

  #begin(thread: Thread<Q, A>, job: Job<Q, A>): void {
    if (thread.timer !== null) {
      clearTimeout(thread.timer);
      thread.timer = null;
    }
    thread.job = job;
    thread.worker.ref();
    thread.worker.postMessage(job.question);
  }

  #answered(thread: Thread<Q, A>, answer: A): void {
    const job = thread.job;
    thread.job = null;
    job?.resolve(answer);
    const next = this.#queue.shift();
    if (next !== undefined) {
      this.#begin(thread, next);
      return;
    }
    thread.worker.unref();
    if (this.#stopped) {
      this.#end(thread);
    } else {
      this.#idle.push(thread);
      thread.timer = setTimeout(() => this.#retire(thread), this.#options.idleMs).unref();
    }
    this.#tellIdle();
  }

  #tellIdle(): void {
    if (this.#threads.size === this.#idle.length) for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #retire(thread: Thread<Q, A>): void {
    const at = this.#idle.indexOf(thread);
    if (at < 0) return;
    this.#idle.splice(at, 1);
    this.#end(thread);
  }

  #end(thread: Thread<Q, A>): void {
    if (thread.timer !== null) clearTimeout(thread.timer);
    this.#threads.delete(thread);
    thread.worker.postMessage(null); // it closes what it has open, and ends
  }

  #died(thread: Thread<Q, A>): void {
    this.#starting = false;
    this.#threads.delete(thread);
    const at = this.#idle.indexOf(thread);
    if (at >= 0) this.#idle.splice(at, 1);
    const job = thread.job;
    thread.job = null;
    job?.resolve(-EIO);
    const next = this.#queue.shift();
    if (next !== undefined && !this.#stopped) this.#begin(this.#start(), next);
    this.#tellIdle();
  }
}
