/**
 * A session of NFS v4.1 (RFC 8881, chapter 2.10): compounds go out on slots, several at once, and each is executed
 * exactly once, also when it is sent again on another connection.
 *
 * - All who use a replica of a volume present one client owner, each with a verifier of its own: to the server that is
 *   one client that restarted, so the latest session ends all earlier ones (18.35.4, 18.36.3). A session that another
 *   process ended is never renewed ("fenced"): everything answers ESTALE from then on.
 * - A server that restarted has forgotten the session; then `mayResume` is asked, a session is made anew, and it is
 *   asked again. `onRenewed` claims back what was open. Calls whose first execution may have been before the restart are
 *   marked as repeated.
 */
import { ENOTCONN, EPROTO, ESTALE, ETIMEDOUT } from "../util/errno.ts";
import { tryLater } from "./nfs3-wire.ts";
import { errnoOfStatus4, Nfs4Status, Op, sessionIdBytes } from "./nfs4-wire.ts";
import { plain, repeated } from "./repeated.ts";
import type { RpcClient } from "./rpc-client.ts";
import { EPROTONOSUPPORT } from "./rpc-message.ts";
import type { XdrReader, XdrWriter } from "./xdr.ts";

export type SessionLoss = "fenced" | "restarted";

export interface SessionOptions {
  readonly clientOwner: string;
  readonly timeoutMs: number;
  readonly onLoss: (loss: SessionLoss) => void;
  readonly mayResume: () => Promise<boolean>;
  /** The server restarted and a new session was made: claim back what was open, then RECLAIM_COMPLETE. */
  readonly onRenewed: () => Promise<void>;
}

export interface CompoundOptions {
  /** The server keeps the answer for a repetition: for what cannot be done twice. */
  readonly once?: boolean;
  readonly urgent?: boolean;
  /** The answer ends in data; see the RPC client's option. */
  readonly data?: boolean;
  /** Belongs to the recovery itself. */
  readonly recovering?: boolean;
  /** Answers by then, `performance.now()`. */
  readonly until?: number;
}

/** Operations that are being written. */
export class Compound {
  readonly args: XdrWriter;
  readonly #count: Buffer;
  #operations = 0;

  constructor(args: XdrWriter, minor: number) {
    this.args = args;
    args.u32(0).u32(minor);
    this.#count = args.hole();
  }

  /** Begins an operation; its arguments follow. */
  op(operation: number): XdrWriter {
    this.#operations++;
    this.#count.writeUInt32BE(this.#operations);
    return this.args.u32(operation);
  }

  putfh(handle: Uint8Array): this {
    this.op(Op.putfh).opaque(handle);
    return this;
  }
}

/** The results, operation by operation. */
export class CompoundResults {
  readonly reader: XdrReader;

  constructor(reader: XdrReader) {
    this.reader = reader;
  }

  /** 0 if the next operation succeeded: its results follow. A negative errno if it failed: nothing follows. */
  next(operation: number): number {
    if (this.reader.remaining < 8) return -EPROTO;
    const got = this.reader.u32();
    const status = this.reader.u32();
    if (got !== operation) return status === 0 ? -EPROTO : errnoOfStatus4(status);
    return errnoOfStatus4(status);
  }

  /** The same for several operations without results. */
  pass(...operations: number[]): number {
    for (const operation of operations) {
      const status = this.next(operation);
      if (status < 0) return status;
    }
    return 0;
  }
}

interface Slot {
  readonly index: number;
  sequence: number;
}

interface Session {
  readonly id: Buffer;
  readonly slots: Slot[];
  readonly free: Slot[];
}

const askedSlots = 64;
const transferBytes = (1 << 20) + 4096;

export class Nfs4Session {
  readonly #rpc: RpcClient;
  readonly #options: SessionOptions;
  /** The same for the life of this object: a new one is a new client instance. */
  readonly #verifier = BigInt.asUintN(64, (BigInt(Date.now()) << 24n) | BigInt(Math.floor(Math.random() * 2 ** 24)));
  #minor = 2;
  #session: Session | null = null;
  #clientId = 0n;
  #clientSequence = 0;
  #waiting: ((slot: Slot | null) => void)[] = [];
  #recovery: Promise<boolean> | null = null;
  #state: "new" | "alive" | "fenced" | "closed" = "new";
  #maxRequestBytes = 0;
  #maxResponseBytes = 0;
  #renewal: NodeJS.Timeout | null = null;
  #usedAt = 0;

  constructor(rpc: RpcClient, options: SessionOptions) {
    this.#rpc = rpc;
    this.#options = options;
  }

  get minor(): number {
    return this.#minor;
  }
  get clientId(): bigint {
    return this.#clientId;
  }
  get fenced(): boolean {
    return this.#state === "fenced";
  }
  /** The largest request and answer, headers included. */
  get maxRequestBytes(): number {
    return this.#maxRequestBytes;
  }
  get maxResponseBytes(): number {
    return this.#maxResponseBytes;
  }

  /** Makes the session, which ends those of all earlier clients with this owner. 0 or a negative errno. */
  async start(): Promise<number> {
    const result = await this.#establish(performance.now() + this.#options.timeoutMs);
    if (result === 0) this.#state = "alive";
    return result;
  }

  /**
   * EXCHANGE_ID and CREATE_SESSION, again while the server needs time, or has just handled another EXCHANGE_ID with our
   * owner: one of an attempt that was given up may arrive in between.
   */
  async #establish(until: number): Promise<number> {
    for (;;) {
      let result = await this.#exchangeId(0);
      if (result === -EPROTONOSUPPORT && this.#minor === 2) {
        this.#minor = 1;
        continue;
      }
      if (result === 0) result = await this.#createSession();
      const again = result === -tryLater || result === Nfs4Status.staleClientId || result === Nfs4Status.seqMisordered;
      if (!again) return result;
      if (performance.now() + 100 > until) return -ETIMEDOUT;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Sends a SEQUENCE now and then while nothing else does, so that the lease goes on. */
  keepAlive(leaseSeconds: number): void {
    const everyMs = Math.max(500, (leaseSeconds * 1_000) / 3);
    this.#renewal = setInterval(() => {
      if (performance.now() - this.#usedAt < everyMs / 2) return;
      void this.call(
        () => {},
        () => 0,
      );
    }, everyMs);
    this.#renewal.unref();
  }

  /** Another session takes its place on the same connection; calls that are under way end. */
  retire(): void {
    if (this.#renewal !== null) clearInterval(this.#renewal);
  }

  close(): void {
    this.#state = "closed";
    this.retire();
    for (const wake of this.#waiting.splice(0)) wake(null);
    this.#rpc.close();
  }

  /** One compound, SEQUENCE in front; `write` may run several times. Never rejects. */
  async call(
    write: (compound: Compound) => void,
    read: (results: CompoundResults) => number,
    options: CompoundOptions = {},
  ): Promise<number> {
    const until = Math.min(options.until ?? Number.POSITIVE_INFINITY, performance.now() + this.#options.timeoutMs);
    let twice = false;
    for (let pauseMs = 20; ; ) {
      if (this.#state === "fenced") return -ESTALE;
      if (this.#state === "closed") return -ENOTCONN;
      const left = until - performance.now();
      if (left <= 0) return -ETIMEDOUT;
      if (this.#recovery !== null && options.recovering !== true) {
        await deadline(this.#recovery, left);
        continue;
      }
      const session = this.#session;
      if (session === null) return -ENOTCONN;
      const slot = session.free.pop() ?? (await this.#nextSlot(left));
      if (slot === null || this.#session !== session) continue;
      const { result, sequenced, sentTwice } = await this.#send(session, slot, write, read, options, left);
      // Whatever is sent anew from here on may be done already: by a first transmission whose answer was lost.
      if (!sequenced || result === Nfs4Status.badSession || result === Nfs4Status.deadSession) twice ||= sentTwice;
      if (result === Nfs4Status.badSession || result === Nfs4Status.deadSession) {
        if (options.recovering === true) return -ESTALE;
        await deadline(this.#recover(session), until - performance.now());
        if (this.#session === session) await new Promise((resolve) => setTimeout(resolve, 50)); // it failed: not at once
        continue;
      }
      if (result === -tryLater) {
        if (performance.now() + pauseMs > until) return -ETIMEDOUT;
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        pauseMs = Math.min(1_000, pauseMs * 2);
        continue;
      }
      // Sent twice, done once, and the answer not kept: either it does no harm to do it again, or it is looked into.
      if (result === Nfs4Status.retryUncached) {
        twice = true;
        continue;
      }
      if (!sequenced && result === Nfs4Status.seqMisordered) continue; // the slot is lost, another will do
      return twice && result < 0 && result > -tryLater ? repeated(result) : result;
    }
  }

  async #send(
    session: Session,
    slot: Slot,
    write: (compound: Compound) => void,
    read: (results: CompoundResults) => number,
    { once = false, urgent = false, data = false }: CompoundOptions,
    timeoutMs: number,
  ): Promise<{ readonly result: number; readonly sequenced: boolean; readonly sentTwice: boolean }> {
    const call = this.#rpc.prepare(1);
    const compound = new Compound(call.args, this.#minor);
    compound
      .op(Op.sequence)
      .fixed(session.id)
      .u32(slot.sequence)
      .u32(slot.index)
      .u32(session.slots.length - 1)
      .bool(once);
    write(compound);
    let sequenced = false;
    let sentTwice = false;
    this.#usedAt = performance.now();
    const result = await this.#rpc.send(
      call,
      (reader, resent) => {
        sentTwice = resent;
        const status = reader.u32();
        reader.skip((reader.u32() + 3) & ~3);
        if (reader.u32() === 0) return errnoOfStatus4(status) || -EPROTO;
        const results = new CompoundResults(reader);
        const sequence = results.next(Op.sequence);
        if (sequence < 0) return sequence;
        sequenced = true;
        reader.skip(sessionIdBytes + 20);
        return read(results);
      },
      { timeoutMs, urgent, data },
    );
    if (sequenced || result === Nfs4Status.retryUncached) slot.sequence = (slot.sequence + 1) >>> 0;
    // Without an answer to each transmission nobody knows what the server has on this slot; so it is left alone: another
    // call there might be given the answer of this one.
    const unknown =
      !sequenced &&
      (plain(result) === -ETIMEDOUT ||
        result === Nfs4Status.seqMisordered ||
        (sentTwice && plain(result) === -tryLater));
    if (!unknown) this.#release(session, slot);
    return { result, sequenced, sentTwice };
  }

  // Slots.

  /** The next slot that becomes free; null if none does in time, or the session is lost. */
  #nextSlot(timeoutMs: number): Promise<Slot | null> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => wake(null), timeoutMs);
      const wake = (given: Slot | null) => {
        clearTimeout(timer);
        const index = this.#waiting.indexOf(wake);
        if (index >= 0) this.#waiting.splice(index, 1);
        resolve(given);
      };
      this.#waiting.push(wake);
    });
  }

  #release(session: Session, slot: Slot): void {
    if (this.#session !== session) return;
    const wake = this.#waiting.shift();
    if (wake === undefined) session.free.push(slot);
    else wake(slot);
  }

  // Sessions.

  /** True if calls may go on, with another session. One at a time. */
  #recover(lost: Session): Promise<boolean> {
    if (this.#session !== lost) return Promise.resolve(true);
    this.#recovery ??= this.#renew().finally(() => {
      this.#recovery = null;
    });
    return this.#recovery;
  }

  async #renew(): Promise<boolean> {
    const until = performance.now() + this.#options.timeoutMs;
    // With "update", nothing changes on the server: it only tells whether our client is still the one it knows.
    const known = await this.#exchangeId(0x40000000);
    if (known === Nfs4Status.notSame) return this.#fence();
    if (known < 0 && known !== -2) return false;
    if (known !== 0) this.#options.onLoss("restarted");
    for (const wake of this.#waiting.splice(0)) wake(null);
    if (!(await this.#options.mayResume())) return this.#fence();
    // Still the one that the server knows: a session of this client can be made, and no other is ended by that.
    const made = known === 0 ? await this.#createSession() : await this.#establish(until);
    if (made < 0) return false;
    if (!(await this.#options.mayResume())) return this.#fence();
    await this.#options.onRenewed();
    return true;
  }

  #fence(): false {
    if (this.#state === "fenced") return false;
    this.#state = "fenced";
    for (const wake of this.#waiting.splice(0)) wake(null);
    this.#options.onLoss("fenced");
    return false;
  }

  async #exchangeId(flags: number): Promise<number> {
    return this.#bare(
      (compound) => {
        const args = compound.op(Op.exchangeId).big64(this.#verifier);
        args.opaque(Buffer.from(this.#options.clientOwner)).u32(flags).u32(0).u32(0);
      },
      (results) => {
        const status = results.next(Op.exchangeId);
        if (status < 0) return status;
        this.#clientId = results.reader.big64();
        this.#clientSequence = results.reader.u32();
        return 0;
      },
    );
  }

  async #createSession(): Promise<number> {
    const channel = (args: XdrWriter, bytes: number, cachedBytes: number, operations: number, slots: number) =>
      args.u32(0).u32(bytes).u32(bytes).u32(cachedBytes).u32(operations).u32(slots).u32(0);
    return this.#bare(
      (compound) => {
        const args = compound.op(Op.createSession).big64(this.#clientId).u32(this.#clientSequence).u32(0);
        channel(args, transferBytes, 2048, 16, askedSlots);
        channel(args, 4096, 0, 2, 1);
        args.u32(0x40000000).u32(1).u32(0);
      },
      (results) => {
        const status = results.next(Op.createSession);
        if (status < 0) return status;
        const { reader } = results;
        const id = Buffer.from(reader.fixed(sessionIdBytes));
        this.#clientSequence = reader.u32() + 1;
        reader.skip(8);
        this.#maxRequestBytes = reader.u32();
        this.#maxResponseBytes = reader.u32();
        reader.skip(8);
        const count = Math.max(1, Math.min(askedSlots, reader.u32()));
        const slots = Array.from({ length: count }, (_, index): Slot => ({ index, sequence: 1 }));
        this.#session = { id, slots, free: slots.slice().reverse() };
        return 0;
      },
    );
  }

  /** A compound without a session. */
  async #bare(write: (compound: Compound) => void, read: (results: CompoundResults) => number): Promise<number> {
    const call = this.#rpc.prepare(1);
    write(new Compound(call.args, this.#minor));
    return this.#rpc.send(
      call,
      (reader) => {
        const status = reader.u32();
        reader.skip((reader.u32() + 3) & ~3);
        return reader.u32() === 0 ? errnoOfStatus4(status) || -EPROTO : read(new CompoundResults(reader));
      },
      { urgent: true },
    );
  }
}

/** Waits for it, or until there is no time left. */
async function deadline(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([
    promise,
    new Promise((resolve) => {
      timer = setTimeout(resolve, Math.max(1, timeoutMs));
    }),
  ]);
  clearTimeout(timer);
}
