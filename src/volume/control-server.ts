/**
 * The holder's control socket: JSON lines, a `Call` in and `Reply`s out, any number at once on one connection. Only root
 * may connect (the socket's directory and mode say so). What a client sends is checked for form here; a client that
 * goes away aborts what it asked for where that can be aborted (`signal`).
 */
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { Logger } from "../util/logger.ts";
import { LineReader } from "./control-lines.ts";
import { failureOf } from "./failure.ts";
import type { Call, Reply } from "./protocol.ts";

const MAX_CALL_LENGTH = 64 * 1024;

export interface CallContext {
  progress(progress: unknown): void;
  /** Aborted when the client has gone. */
  readonly signal: AbortSignal;
  /** The connection, for a call that passes descriptors over it. */
  readonly socket: Socket;
}

/** Resolves with the reply's value; rejects with a `FailureError` (anything else is answered as "internal"). */
export type CallHandler = (call: Call, context: CallContext) => Promise<unknown>;

export class ControlServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #answers = new Set<Promise<void>>();
  readonly #handler: CallHandler;
  readonly #logger: Logger;

  constructor(handler: CallHandler, logger: Logger) {
    this.#handler = handler;
    this.#logger = logger;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Replaces a socket file that is there: whoever calls this holds the directory's lock. */
  async listen(path: string): Promise<void> {
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(path, () => {
        this.#server.off("error", reject);
        resolve();
      });
    });
    chmodSync(path, 0o600);
  }

  /** Takes no new connections and removes the socket's file; connections stay. */
  stopListening(): void {
    this.#server.close();
  }

  /**
   * Takes no new connections. Answers that are under way still go out: umount(2), say, takes its time to forget a large
   * tree after the file system has ended.
   */
  async close(answersMs = 20_000, goodbyeMs = 200): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      if (this.#sockets.size === 0 && !this.#server.listening) resolve();
      else if (this.#server.listening) this.#server.close(() => resolve());
      else this.#server.once("close", resolve);
    });
    await Promise.race([
      Promise.allSettled(this.#answers),
      new Promise((resolve) => setTimeout(resolve, answersMs).unref()),
    ]);
    for (const socket of this.#sockets) socket.end();
    const timer = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, goodbyeMs);
    await closed;
    clearTimeout(timer);
  }

  #serve(socket: Socket): void {
    const abort = new AbortController();
    const lines = new LineReader(MAX_CALL_LENGTH);
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.#sockets.delete(socket);
      abort.abort();
    });
    socket.on("data", (chunk) => {
      try {
        for (const line of lines.push(chunk)) this.#track(this.#answer(socket, parseCall(line), abort.signal));
      } catch (error) {
        this.#logger.warn("Control connection closed: malformed call", { error });
        send(socket, { id: 0, failure: { code: "usage", message: "Malformed call on the control socket" } });
        socket.destroySoon();
      }
    });
  }

  #track(answer: Promise<void>): void {
    this.#answers.add(answer);
    void answer.then(() => this.#answers.delete(answer));
  }

  async #answer(socket: Socket, call: Call, signal: AbortSignal): Promise<void> {
    const progress = (value: unknown) => send(socket, { id: call.id, progress: value });
    try {
      const value = await this.#handler(call, { progress, signal, socket });
      send(socket, { id: call.id, value: value ?? null });
    } catch (error) {
      const failure = failureOf(error);
      if (failure.code === "internal") this.#logger.error("Control call failed", { method: call.method, error });
      send(socket, { id: call.id, failure });
    }
  }
}

function send(socket: Socket, reply: Reply): void {
  if (!socket.destroyed && socket.writable) socket.write(`${JSON.stringify(reply)}\n`);
}

function parseCall(line: string): Call {
  const call = JSON.parse(line) as Partial<Call> | null;
  if (call === null || typeof call !== "object" || typeof call.id !== "number" || typeof call.method !== "string") {
    throw new TypeError("Not a call");
  }
  const params = typeof call.params === "object" && call.params !== null ? call.params : {};
  return { id: call.id, method: call.method, params };
}
