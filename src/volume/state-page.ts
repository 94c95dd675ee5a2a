/**
 * The status page: a small file on tmpfs that the volume process maps and writes with plain stores, and that its holder
 * reads now and then to see whether the process is at work, idle or stuck, and in which replica's call. It tells the
 * truth about a process that cannot answer any more (killed, stopped, in uninterruptible sleep).
 *
 * - Little-endian 32-bit words; one process writes, the holder only reads. A new process begins with `attach`.
 * - Counters wrap; only whether they moved means something.
 */
import type { SharedMemory } from "../posix/memory.ts";

export const STATE_PAGE_NAME = "status-page";
export const STATE_PAGE_BYTES = 4096;

const MAGIC = 0x4e524843; // "CHRN"
const VERSION = 1;
const MAX_REPLICAS = 8;

// Word offsets.
const AT_MAGIC = 0;
const AT_VERSION = 1;
const AT_PID = 2;
const AT_TURNS = 3;
const AT_WORKING = 4;
const AT_OPCODE = 7;
const AT_UNIQUE_LOW = 8;
const AT_UNIQUE_HIGH = 9;
const AT_UNTIL_LOW = 10;
const AT_UNTIL_HIGH = 11;
const AT_THREAD_CALLS = 16;
const AT_LOOP_CALLS = 24;

/** The volume process's side. Every method is one or two stores to memory. */
export class StatePageWriter {
  readonly #words: Uint32Array;

  constructor(memory: SharedMemory | ArrayBuffer) {
    this.#words = new Uint32Array(memory instanceof ArrayBuffer ? memory : memory.buffer, 0, STATE_PAGE_BYTES / 4);
  }

  /** This process owns the page from now on. Counts as at work until the first `rest`. */
  attach(pid: number): void {
    this.#words.fill(0);
    this.#words[AT_VERSION] = VERSION;
    this.#words[AT_PID] = pid;
    this.#words[AT_WORKING] = 1;
    this.#words[AT_MAGIC] = MAGIC;
  }

  /** The loop has woken and works: until `rest`, it has to move within the deadline. */
  wake(): void {
    this.#words[AT_WORKING] = 1;
    this.#words[AT_TURNS] = (this.#words[AT_TURNS] as number) + 1;
  }

  /** The loop goes to wait for events: taking as long as it likes is fine. */
  rest(): void {
    this.#words[AT_WORKING] = 0;
  }

  /** A word that is 1 while a call of this replica is running on the loop: the process hangs if it does. */
  loopCalls(replica: number): Int32Array {
    return new Int32Array(this.#words.buffer, this.#words.byteOffset + (AT_LOOP_CALLS + replica) * 4, 1);
  }

  /** The request that is being carried out, for the log if it is the last one. */
  request(opcode: number, unique: bigint): void {
    this.#words[AT_OPCODE] = opcode;
    this.#words[AT_UNIQUE_LOW] = Number(unique & 0xffffffffn);
    this.#words[AT_UNIQUE_HIGH] = Number((unique >> 32n) & 0xffffffffn);
  }

  /** The process must not run longer than until then (`monotonicMs`); 0: for as long as it likes. */
  runUntil(ms: number): void {
    this.#words[AT_UNTIL_LOW] = ms % 2 ** 32;
    this.#words[AT_UNTIL_HIGH] = Math.floor(ms / 2 ** 32);
  }

  /** Calls of a replica that are running on threads: they outlive the process if they hang in the kernel. */
  threadCalls(replica: number, count: number): void {
    this.#words[AT_THREAD_CALLS + replica] = count;
  }
}

/** A clock that all processes of the machine share, and that nobody sets. Whole milliseconds. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

/** What the page says at one moment. */
export interface StatePage {
  readonly pid: number;
  readonly turns: number;
  readonly working: boolean;
  /** Index of the replica whose call is running on the loop; null if none is. */
  readonly callReplica: number | null;
  readonly opcode: number;
  readonly unique: bigint;
  /** By `monotonicMs`; 0 without a bound. */
  readonly runUntilMs: number;
  /** Running calls on threads, by replica index. */
  readonly threadCalls: readonly number[];
}

/** null if these bytes are not a page of this version, or no process has attached to it yet. */
export function decodeStatePage(bytes: Uint8Array): StatePage | null {
  if (bytes.byteLength < (AT_LOOP_CALLS + MAX_REPLICAS) * 4) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at: number) => view.getUint32(at * 4, true);
  if (word(AT_MAGIC) !== MAGIC || word(AT_VERSION) !== VERSION) return null;
  const callReplica = Array.from({ length: MAX_REPLICAS }, (_, i) => word(AT_LOOP_CALLS + i)).findIndex((w) => w !== 0);
  return {
    pid: word(AT_PID),
    turns: word(AT_TURNS),
    working: word(AT_WORKING) !== 0,
    callReplica: callReplica < 0 ? null : callReplica,
    opcode: word(AT_OPCODE),
    unique: (BigInt(word(AT_UNIQUE_HIGH)) << 32n) | BigInt(word(AT_UNIQUE_LOW)),
    runUntilMs: word(AT_UNTIL_HIGH) * 2 ** 32 + word(AT_UNTIL_LOW),
    threadCalls: Array.from({ length: MAX_REPLICAS }, (_, replica) => word(AT_THREAD_CALLS + replica)),
  };
}

/** Indices of the replicas on which this process has a call that has not ended. */
export function replicasInCall(page: StatePage | null): number[] {
  if (page === null) return [];
  const loop = page.callReplica;
  return page.threadCalls.flatMap((count, replica) => (count > 0 || replica === loop ? [replica] : []));
}
