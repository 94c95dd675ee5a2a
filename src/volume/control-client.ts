/** Calls to the holder of a mount, over its control socket. */
import { connect, type Socket } from "node:net";
import { LineReader } from "./control-lines.ts";
import { FailureError } from "./failure.ts";
import type { Call, CallParams, Reply } from "./protocol.ts";

const MAX_REPLY_LENGTH = 256 * 1024 * 1024; // a report of very many differences
const CONNECT_TIMEOUT_MS = 5000;

export interface CallOptions {
  readonly params?: CallParams;
  readonly onProgress?: (progress: unknown) => void;
  /** Without it a call may take as long as it likes. */
  readonly timeoutMs?: number;
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly onProgress: ((progress: unknown) => void) | undefined;
}

export class ControlClient {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const lines = new LineReader(MAX_REPLY_LENGTH);
    socket.on("data", (chunk) => {
      try {
        for (const line of lines.push(chunk)) this.#receive(JSON.parse(line) as Reply);
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      for (const pending of this.#pending.values()) {
        pending.reject(new FailureError("not-mounted", "The mount's holder closed the connection"));
      }
      this.#pending.clear();
    });
  }

  /** Rejects with `not-mounted` if no holder listens there. */
  static async connect(path: string): Promise<ControlClient> {
    const socket = connect(path);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", reject);
        socket.setTimeout(CONNECT_TIMEOUT_MS, () => reject(new Error("no answer")));
      });
    } catch (cause) {
      socket.destroy();
      throw new FailureError("not-mounted", `Nobody answers on ${path}`, { cause });
    }
    socket.setTimeout(0);
    socket.removeAllListeners("error");
    return new ControlClient(socket);
  }

  /** Rejects with a `FailureError`. */
  call(method: Call["method"], options: CallOptions = {}): Promise<unknown> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const settle = () => {
        clearTimeout(timer);
        this.#pending.delete(id);
      };
      this.#pending.set(id, {
        resolve: (value) => {
          settle();
          resolve(value);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
        onProgress: options.onProgress,
      });
      if (options.timeoutMs !== undefined) {
        timer = setTimeout(() => {
          settle();
          reject(new FailureError("internal", `The mount's holder did not answer "${method}" in time`));
        }, options.timeoutMs);
      }
      const call: Call = { id, method, params: options.params ?? {} };
      if (this.#socket.destroyed) {
        this.#pending.get(id)?.reject(new FailureError("not-mounted", "The mount's holder closed the connection"));
      } else this.#socket.write(`${JSON.stringify(call)}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(reply: Reply): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return;
    if ("progress" in reply) pending.onProgress?.(reply.progress);
    else if ("failure" in reply) pending.reject(FailureError.from(reply.failure));
    else pending.resolve(reply.value);
  }
}
