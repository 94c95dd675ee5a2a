/**
 * io_uring: calls that wait for a disk run in the kernel, without a thread of ours. Invariants:
 *
 * - Every submitted call ends in exactly one completion, which settles its promise; there are never more under way than
 *   the completion queue has room for, the rest waits in a queue of ours.
 * - Memory of a call is referenced until its completion has come.
 * - The rings are shared memory: our tail and head are stored, the kernel's loaded, with the ordering of Atomics.
 *
 * Where io_uring is not there, or is forbidden (`kernel.io_uring_disabled`, seccomp), `openIoUring` answers an errno.
 */
import koffi from "koffi";
import { EAGAIN, EINTR, ENOSYS } from "../util/errno.ts";
import { architecture } from "./architecture.ts";
import { MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE } from "./constants.ts";
import { close } from "./files.ts";
import { declare, sys } from "./libc.ts";
import { addressOf } from "./memory.ts";

const { io_uring_setup, io_uring_enter, io_uring_register } = architecture.call;
const callSetup = declare("long syscall(long number, long entries, void *params)");
const callEnter = declare(
  "long syscall(long number, long fd, long submit, long complete, long flags, void *sig, long size)",
);
const callRegister = declare("long syscall(long number, long fd, long opcode, void *argument, long count)");
const callMmap = declare(
  "int64_t mmap(void *address, size_t bytes, int protection, int flags, int fd, int64_t offset)",
);
const callMunmap = declare("int munmap(intptr_t address, size_t bytes)");

const IORING_OFF_SQ_RING = 0;
const IORING_OFF_SQES = 0x10000000;
const IORING_FEAT_SINGLE_MMAP = 1;
const IORING_REGISTER_IOWQ_MAX_WORKERS = 19;
const OP_FSYNC = 3;
const OP_FALLOCATE = 17;
const OP_READ = 22;
const OP_OPENAT2 = 28;
const FSYNC_DATASYNC = 1;
/** Words of a submission (64 bytes) and of a completion (16 bytes). */
const submissionWords = 16;
const completionWords = 4;

interface Call {
  readonly opcode: number;
  readonly fd: number;
  readonly offset: number;
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly keep: unknown;
  readonly resolve: (result: number) => void;
}

/** `maxWorkers`: kernel threads for what can't be started without waiting, such as fsync; for the whole process. */
export function openIoUring(entries: number, maxWorkers: number): IoUring | number {
  const params = new Uint32Array(30);
  const fd = sys(callSetup(io_uring_setup, entries, params));
  if (fd < 0) return fd;
  if (((params[5] as number) & IORING_FEAT_SINGLE_MMAP) === 0) {
    close(fd);
    return -ENOSYS;
  }
  // Kernels before 5.15 have no such limit to set, and their own will do.
  callRegister(io_uring_register, fd, IORING_REGISTER_IOWQ_MAX_WORKERS, Uint32Array.of(maxWorkers, 0), 2);
  const ring = new IoUring(fd, params);
  const mapped = ring.map();
  if (mapped < 0) {
    close(fd);
    return mapped;
  }
  return ring;
}

export class IoUring {
  readonly #fd: number;
  readonly #params: Uint32Array;
  readonly #mapped: { readonly address: number; readonly bytes: number }[] = [];
  /** Both queues' heads and tails, and the completions. */
  #rings = new Int32Array(0);
  #submissions = new Int32Array(0);
  readonly #underWay: (Call | null)[];
  readonly #freeSlots: number[] = [];
  #queue: Call[] = [];
  #watcher: ReturnType<typeof koffi.node.poll> | null = null;
  #closing = false;

  constructor(fd: number, params: Uint32Array) {
    this.#fd = fd;
    this.#params = params;
    const slots = params[0] as number;
    this.#underWay = new Array(slots).fill(null);
    for (let slot = slots - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
  }

  /** For `openIoUring`. */
  map(): number {
    const submissionBytes = (this.#params[0] as number) * submissionWords * 4;
    const ringBytes = Math.max(
      this.#submissionField(6) * 4 + (this.#params[0] as number) * 4,
      this.#completionField(5) * 4 + (this.#params[1] as number) * completionWords * 4,
    );
    const rings = this.#mapAt(IORING_OFF_SQ_RING, ringBytes);
    if (typeof rings === "number") return rings;
    const submissions = this.#mapAt(IORING_OFF_SQES, submissionBytes);
    if (typeof submissions === "number") return submissions;
    this.#rings = rings;
    this.#submissions = submissions;
    return 0;
  }

  #mapAt(offset: number, bytes: number): Int32Array<ArrayBuffer> | number {
    const flags = MAP_SHARED | MAP_POPULATE;
    const address = sys(callMmap(null, bytes, PROT_READ | PROT_WRITE, flags, this.#fd, offset));
    if (address < 0) return address;
    this.#mapped.push({ address, bytes });
    return new Int32Array(koffi.view(BigInt(address), bytes));
  }

  /** Word index in the rings of `struct io_sqring_offsets`' i-th field: head, tail, mask, entries, flags, dropped, array. */
  #submissionField(i: number): number {
    return (this.#params[10 + i] as number) >> 2;
  }

  /** The same of `struct io_cqring_offsets`: head, tail, mask, entries, overflow, cqes. */
  #completionField(i: number): number {
    return (this.#params[20 + i] as number) >> 2;
  }

  /** At most this many bytes; fewer at the end of the file, or for the caller to go on with. */
  read(fd: number, into: Buffer, bytes: number, position: number, at = 0): Promise<number> {
    return this.#run(OP_READ, fd, position, addressOf(into) + at, bytes, 0, into);
  }

  fsync(fd: number, dataOnly: boolean): Promise<number> {
    return this.#run(OP_FSYNC, fd, 0, 0, 0, dataOnly ? FSYNC_DATASYNC : 0, null);
  }

  fallocate(fd: number, mode: number, position: number, length: number): Promise<number> {
    return this.#run(OP_FALLOCATE, fd, position, length, mode, 0, null);
  }

  /** As `openat2`; `path`: a C string of its own, `how`: a `struct open_how`. Answers a descriptor. */
  openat2(directoryFd: number, path: Buffer, how: Uint32Array): Promise<number> {
    const keep = [path, how];
    const howAddress = addressOf(new Uint8Array(how.buffer, how.byteOffset, how.byteLength));
    return this.#run(OP_OPENAT2, directoryFd, howAddress, addressOf(path), how.byteLength, 0, keep);
  }

  #run(
    opcode: number,
    fd: number,
    offset: number,
    address: number,
    length: number,
    flags: number,
    keep: unknown,
  ): Promise<number> {
    return new Promise((resolve) => {
      const call = { opcode, fd, offset, address, length, flags, keep, resolve };
      const slot = this.#freeSlots.pop();
      if (slot === undefined) this.#queue.push(call);
      else this.#submit(call, slot);
    });
  }

  #submit(call: Call, slot: number): void {
    this.#underWay[slot] = call;
    if (this.#watcher === null) {
      this.#watcher = koffi.node.poll(this.#fd, { readable: true }, () => this.#complete());
    } else if (this.#freeSlots.length === this.#underWay.length - 1) {
      this.#watcher.ref();
    }
    const rings = this.#rings;
    const tailAt = this.#submissionField(1);
    const tail = Atomics.load(rings, tailAt);
    const index = tail & Atomics.load(rings, this.#submissionField(2));
    const words = this.#submissions;
    const at = index * submissionWords;
    words.fill(0, at, at + submissionWords);
    words[at] = call.opcode;
    words[at + 1] = call.fd;
    set64(words, at + 2, call.offset);
    set64(words, at + 4, call.address);
    words[at + 6] = call.length;
    words[at + 7] = call.flags;
    words[at + 8] = slot;
    rings[this.#submissionField(6) + index] = index;
    Atomics.store(rings, tailAt, (tail + 1) | 0);
    let submitted: number;
    do submitted = sys(callEnter(io_uring_enter, this.#fd, 1, 0, 0, null, 0));
    while (submitted === -EINTR);
    if (submitted > 0) return;
    // Not taken: the entry is ours again.
    Atomics.store(rings, tailAt, tail);
    this.#finish(slot, submitted === 0 ? -EAGAIN : submitted);
    this.#rest();
  }

  /** Settles what has ended. Called when the ring is readable; may be called at any time. */
  #complete(): void {
    const rings = this.#rings;
    const headAt = this.#completionField(0);
    const mask = Atomics.load(rings, this.#completionField(2));
    const entries = this.#completionField(5);
    let head = Atomics.load(rings, headAt);
    while (head !== Atomics.load(rings, this.#completionField(1))) {
      const at = entries + (head & mask) * completionWords;
      const slot = rings[at] as number;
      const result = rings[at + 2] as number;
      head = (head + 1) | 0;
      Atomics.store(rings, headAt, head);
      this.#finish(slot, result);
    }
    this.#rest();
  }

  /** Nothing is under way: nothing keeps the process alive, or the ring if it is to be closed. */
  #rest(): void {
    if (this.#freeSlots.length < this.#underWay.length) return;
    if (this.#closing) this.#release();
    else this.#watcher?.unref();
  }

  #finish(slot: number, result: number): void {
    const call = this.#underWay[slot] as Call;
    this.#underWay[slot] = null;
    const next = this.#queue.shift();
    if (next === undefined) this.#freeSlots.push(slot);
    else this.#submit(next, slot);
    call.resolve(result);
  }

  /** Queued calls answer `result`; the rest goes on, and the ring with the last of them. */
  close(result: number): void {
    this.#closing = true;
    const queued = this.#queue;
    this.#queue = [];
    for (const call of queued) call.resolve(result);
    this.#rest();
  }

  /** Nothing may touch the rings after this, a loop over completions included. */
  #release(): void {
    if (this.#mapped.length === 0) return;
    this.#watcher?.stop();
    this.#watcher?.close();
    this.#watcher = null;
    this.#rings = new Int32Array(0);
    this.#submissions = new Int32Array(0);
    for (const { address, bytes } of this.#mapped.splice(0)) callMunmap(address, bytes);
    close(this.#fd);
  }
}

function set64(words: Int32Array, at: number, value: number): void {
  words[at] = value % 2 ** 32;
  words[at + 1] = value / 2 ** 32;
}
