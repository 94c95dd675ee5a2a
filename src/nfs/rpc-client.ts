/**
 * One RPC connection to one server program, with many calls in flight.
 *
 * - Every call has a deadline, and answers a number >= 0 or a negative errno; it never rejects. ETIMEDOUT and ENOTCONN
 *   come from here: the call may or may not have taken effect, and may still do so. Servers' own answers are other
 *   numbers (see `fault` in the protocol layers).
 * - A broken connection is made anew with backoff while calls wait, and these are sent again with their XIDs, a bounded
 *   number of times. A decoder is told when its call was sent more than once.
 * - Once a call has been answered here, no byte of its buffers is read any more: a call that is given up while bytes
 *   of it may still be queued in this process takes the connection with it.
 * - After `close` nothing is sent, queued bytes are dropped (reset), and every call answers ENOTCONN.
 */
import type { Socket } from "node:net";
import { ENOTCONN, EPROTO, ETIMEDOUT } from "../util/errno.ts";
import { type DialTarget, dial } from "./dial.ts";
import { type Credential, RpcCall, readReplyHeader } from "./rpc-message.ts";
import { RecordReader } from "./rpc-record.ts";
import { type Rest, XdrError, XdrReader } from "./xdr.ts";

/** Reads the results, at once; what it answers is the call's answer. */
export type Decode = (results: XdrReader, resent: boolean) => number;

export interface RpcClientOptions {
  readonly target: DialTarget;
  readonly program: number;
  readonly version: number;
  readonly credential: Credential;
  /** The deadline of a call, from the moment it was asked for. */
  readonly timeoutMs: number;
  readonly reservedPort: boolean;
  readonly maxInFlight?: number;
  /** How often one call may be sent in all. */
  readonly maxSends?: number;
  /**
   * With calls in flight and nothing received for so long, the connection is given up and made anew. Only for protocols
   * that make a repeated call harmless, because the server may still do what it got on the old connection. Others stay
   * with a silent connection until a call's deadline.
   */
  readonly stallMs?: number;
  /** Runs after each reconnection, before waiting calls are sent again; its own calls are `urgent`. */
  readonly onReconnected?: () => Promise<void>;
}

export interface CallOptions {
  readonly timeoutMs?: number;
  /** May be sent while `onReconnected` runs. */
  readonly urgent?: boolean;
  /** The answer ends in data (`opaqueInto`), which may go to their place as they arrive. The decoder may then run twice. */
  readonly data?: boolean;
}

class PendingCall {
  readonly xid: number;
  readonly segments: readonly Uint8Array[];
  readonly decode: Decode;
  readonly resolve: (result: number) => void;
  readonly deadline: number;
  readonly urgent: boolean;
  readonly data: boolean;
  sends = 0;
  sentAt = 0;
  /** Sent on the connection that is open now. */
  inFlight = false;

  constructor(
    call: RpcCall,
    decode: Decode,
    resolve: (result: number) => void,
    deadline: number,
    { urgent = false, data = false }: CallOptions = {},
  ) {
    this.xid = call.xid;
    this.segments = call.seal();
    this.decode = decode;
    this.resolve = resolve;
    this.deadline = deadline;
    this.urgent = urgent;
    this.data = data;
  }
}

type State =
  | { readonly kind: "idle" }
  | { readonly kind: "dialing" }
  | { readonly kind: "backoff"; readonly timer: NodeJS.Timeout }
  /** `gated`: only urgent calls are sent, `onReconnected` is at work. */
  | { readonly kind: "open"; readonly socket: Socket; readonly gated: boolean }
  | { readonly kind: "closed" };

const maxRecordBytes = 16 * 1024 * 1024;
const firstBackoffMs = 20;
const maxBackoffMs = 1_000;

export class RpcClient {
  readonly #options: RpcClientOptions;
  readonly #maxInFlight: number;
  readonly #maxSends: number;
  /** Calls without an answer, in the order they were asked for. */
  readonly #pending = new Map<number, PendingCall>();
  /** Those of `#pending` that were never sent, or whose connection broke. */
  #waiting: PendingCall[] = [];
  #inFlight = 0;
  #state: State = { kind: "idle" };
  #xid = Math.floor(Math.random() * 0xffffffff);
  #timer: NodeJS.Timeout | null = null;
  #timerAt = 0;
  #backoffMs = firstBackoffMs;
  #localPort = 0;
  #wasConnected = false;
  #corked = false;
  #receivedAt = 0;
  #records: RecordReader | null = null;
  /** The call whose answer is being received right into its buffer. */
  #arriving: { readonly call: PendingCall; readonly result: number } | null = null;
  readonly #closing = new AbortController();

  constructor(options: RpcClientOptions) {
    this.#options = options;
    this.#maxInFlight = options.maxInFlight ?? 128;
    this.#maxSends = options.maxSends ?? 5;
  }

  /** Calls that have no answer yet. */
  get unanswered(): number {
    return this.#pending.size;
  }

  /** The first connection, with its system error if it fails. Calls connect by themselves too. */
  async open(): Promise<void> {
    if (this.#state.kind !== "idle") return;
    this.#state = { kind: "dialing" };
    try {
      const socket = await this.#dial();
      this.#opened(socket);
    } catch (error) {
      if (this.#stateIs("dialing")) this.#state = { kind: "idle" };
      throw error;
    }
  }

  /** A new call; add its arguments to `args`, then `send` it. */
  prepare(procedure: number, credential?: Credential): RpcCall {
    this.#xid = (this.#xid + 1) >>> 0;
    const { program, version } = this.#options;
    return new RpcCall(this.#xid, program, version, procedure, credential ?? this.#options.credential);
  }

  send(call: RpcCall, decode: Decode, options?: CallOptions): Promise<number> {
    return new Promise((resolve) => {
      if (this.#state.kind === "closed") {
        resolve(-ENOTCONN);
        return;
      }
      const timeoutMs = options?.timeoutMs ?? this.#options.timeoutMs;
      if (timeoutMs <= 0) {
        resolve(-ETIMEDOUT);
        return;
      }
      const pending = new PendingCall(call, decode, resolve, performance.now() + timeoutMs, options);
      this.#pending.set(pending.xid, pending);
      this.#armTimer(timeoutMs);
      if (this.#maySend(pending)) this.#transmit(pending);
      else {
        this.#waiting.push(pending);
        if (this.#state.kind === "idle") void this.#reconnect();
      }
    });
  }

  close(): void {
    const state = this.#state;
    if (state.kind === "closed") return;
    this.#state = { kind: "closed" };
    this.#closing.abort();
    if (state.kind === "open") state.socket.resetAndDestroy();
    if (state.kind === "backoff") clearTimeout(state.timer);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#waiting = [];
    for (const call of [...this.#pending.values()]) this.#answer(call, -ENOTCONN);
  }

  // Sending.

  #maySend(call: PendingCall): boolean {
    if (this.#state.kind !== "open" || this.#state.socket.destroyed) return false;
    if (call.urgent) return true;
    return !this.#state.gated && this.#inFlight < this.#maxInFlight;
  }

  #transmit(call: PendingCall): void {
    if (this.#state.kind !== "open") return;
    const { socket } = this.#state;
    if (call.sends >= this.#maxSends) {
      this.#answer(call, -ETIMEDOUT);
      return;
    }
    call.sends++;
    call.sentAt = performance.now();
    call.inFlight = true;
    this.#inFlight++;
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    for (const segment of call.segments) socket.write(segment);
  }

  #sendWaiting(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const [index, call] of waiting.entries()) {
      if (!this.#pending.has(call.xid)) continue; // given up meanwhile
      if (this.#maySend(call)) this.#transmit(call);
      else this.#waiting.push(call);
      if (this.#state.kind === "open" && this.#inFlight >= this.#maxInFlight) {
        this.#waiting.push(...waiting.slice(index + 1));
        return;
      }
    }
  }

  // Receiving.

  #received(record: Buffer): void {
    const reader = new XdrReader(record);
    const call = this.#pending.get(reader.u32());
    if (call === undefined) return; // the answer of a call that was given up, or a second one
    this.#answer(call, this.#decode(call, reader) ?? -EPROTO);
  }

  /** null if the message is cut short, or nonsense. */
  #decode(call: PendingCall, reader: XdrReader): number | null {
    try {
      const header = readReplyHeader(reader);
      return header < 0 ? header : call.decode(reader, call.sends > 1);
    } catch (error) {
      if (!(error instanceof XdrError)) throw error;
      return null;
    }
  }

  /** The beginning of a large answer: if it ends in data, these go straight to the buffer of the call. */
  #begins(start: Buffer, totalBytes: number): Rest | null {
    if (start.length < 4) return null;
    const reader = new XdrReader(start, totalBytes);
    const call = this.#pending.get(reader.u32());
    if (call?.data !== true) return null;
    const result = this.#decode(call, reader);
    if (result === null || reader.rest === null) return null;
    this.#arriving = { call, result };
    return reader.rest;
  }

  #ends(): void {
    const arriving = this.#arriving;
    this.#arriving = null;
    if (arriving !== null) this.#answer(arriving.call, arriving.result);
  }

  #answer(call: PendingCall, result: number): void {
    if (!this.#pending.delete(call.xid)) return;
    if (this.#arriving?.call === call) {
      this.#records?.abandon();
      this.#arriving = null;
    }
    if (call.inFlight) {
      call.inFlight = false;
      this.#inFlight--;
    }
    call.resolve(result);
  }

  // The connection.

  #stateIs(kind: State["kind"]): boolean {
    return this.#state.kind === kind;
  }

  #dial(): Promise<Socket> {
    const { target, reservedPort, timeoutMs } = this.#options;
    return dial(target, {
      reservedPort,
      localPort: this.#localPort,
      timeoutMs,
      signal: this.#closing.signal,
      onData: (socket, chunk) => this.#onData(socket, chunk),
    });
  }

  #onData(socket: Socket, chunk: Buffer): void {
    if (this.#state.kind !== "open" || this.#state.socket !== socket) return;
    this.#receivedAt = performance.now();
    this.#backoffMs = firstBackoffMs;
    try {
      this.#records?.push(chunk);
    } catch (error) {
      if (!(error instanceof XdrError)) throw error;
      socket.resetAndDestroy();
      return;
    }
    this.#sendWaiting();
  }

  #opened(socket: Socket): void {
    if (this.#stateIs("closed")) {
      socket.resetAndDestroy();
      return;
    }
    const again = this.#wasConnected && this.#options.onReconnected !== undefined;
    this.#wasConnected = true;
    this.#localPort = socket.localPort ?? 0;
    this.#corked = false;
    this.#receivedAt = performance.now();
    this.#arriving = null;
    this.#records = new RecordReader((record) => this.#received(record), maxRecordBytes, {
      begin: (start, totalBytes) => this.#begins(start, totalBytes),
      end: () => this.#ends(),
    });
    this.#state = { kind: "open", socket, gated: again };
    socket.on("error", () => {}); // "close" follows
    socket.once("close", () => this.#lost(socket));
    this.#sendWaiting(); // gated: urgent ones only, of an earlier recovery
    if (!again) return;
    void this.#options.onReconnected?.().finally(() => {
      if (this.#state.kind !== "open" || this.#state.socket !== socket) return;
      this.#state = { kind: "open", socket, gated: false };
      this.#sendWaiting();
    });
  }

  #lost(socket: Socket): void {
    if (this.#state.kind !== "open" || this.#state.socket !== socket) return;
    this.#state = { kind: "idle" };
    const unsent = this.#waiting.filter((call) => this.#pending.has(call.xid));
    this.#waiting = [];
    for (const call of this.#pending.values()) {
      if (!call.inFlight) continue;
      call.inFlight = false;
      this.#waiting.push(call);
    }
    this.#inFlight = 0;
    this.#waiting.push(...unsent);
    if (this.#waiting.length > 0) this.#backoff();
  }

  #backoff(): void {
    const ms = this.#backoffMs * (0.5 + Math.random() / 2);
    this.#backoffMs = Math.min(maxBackoffMs, this.#backoffMs * 2);
    this.#state = { kind: "backoff", timer: setTimeout(() => void this.#reconnect(), ms) };
  }

  async #reconnect(): Promise<void> {
    this.#state = { kind: "dialing" };
    try {
      const socket = await this.#dial();
      this.#opened(socket);
    } catch {
      if (!this.#stateIs("dialing")) return;
      if (this.#pending.size > 0) this.#backoff();
      else this.#state = { kind: "idle" };
    }
  }

  // Deadlines: one timer for the earliest, looked at again when it fires.

  #armTimer(inMs: number): void {
    const ms = Math.min(inMs, this.#options.stallMs ?? inMs);
    const at = performance.now() + ms;
    if (this.#timer !== null) {
      if (at >= this.#timerAt) return;
      clearTimeout(this.#timer);
    }
    this.#timerAt = at;
    // Decided after the loop has polled: what came while this process stood still is an answer.
    this.#timer = setTimeout(() => setImmediate(() => this.#expire()), Math.max(1, ms));
  }

  #expire(): void {
    if (this.#state.kind === "closed") return;
    this.#timer = null;
    const now = performance.now();
    let gaveUpSent = false;
    let next = Number.POSITIVE_INFINITY;
    let oldestSent = Number.POSITIVE_INFINITY;
    for (const call of [...this.#pending.values()]) {
      if (call.deadline > now + 1) {
        next = Math.min(next, call.deadline - now);
        if (call.inFlight) oldestSent = Math.min(oldestSent, call.sentAt);
        continue;
      }
      gaveUpSent ||= call.inFlight;
      this.#answer(call, -ETIMEDOUT);
    }
    const stallMs = this.#options.stallMs ?? Number.POSITIVE_INFINITY;
    const quietSince = Math.max(oldestSent, this.#receivedAt);
    const stalled = oldestSent !== Number.POSITIVE_INFINITY && now - quietSince >= stallMs - 1;
    if (this.#state.kind === "open") {
      const { socket } = this.#state;
      const dead = gaveUpSent && now - this.#receivedAt >= this.#options.timeoutMs - 1;
      if (stalled || dead || (gaveUpSent && socket.writableLength > 0)) this.#drop(socket);
    }
    if (oldestSent !== Number.POSITIVE_INFINITY) next = Math.min(next, Math.max(1, quietSince + stallMs - now));
    if (next !== Number.POSITIVE_INFINITY) this.#armTimer(next);
  }

  /** Gives the connection up now, not when its "close" is delivered. */
  #drop(socket: Socket): void {
    socket.resetAndDestroy();
    this.#lost(socket);
  }
}
