/**
 * What starts the holders of a node's mounts, as the node plugin sees it: a process of its own (`mountd.ts`), reached
 * over HTTP on a unix socket. It only starts them; each holder then answers its own control socket, so a mount that is
 * there needs the daemon for nothing.
 */
import { request } from "node:http";
import { text } from "node:stream/consumers";
import { FailureError } from "../volume/failure.ts";
import type { Failure } from "../volume/protocol.ts";
import type { HolderConfig } from "../volume/registry.ts";

export interface MountDaemon {
  /** Resolves when it is mounted; rejects with a `FailureError`, and has then left nothing behind. */
  mount(config: HolderConfig, options: { readonly signal: AbortSignal }): Promise<void>;
}

export class MountDaemonClient implements MountDaemon {
  readonly #socketPath: string;
  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  async mount(config: HolderConfig, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted();
    const body = JSON.stringify(config);
    const { code, answer } = await new Promise<{ code: number; answer: string }>((resolve, reject) => {
      const call = request({ socketPath: this.#socketPath, path: "/mount", method: "POST", signal }, (response) => {
        text(response).then((answered) => resolve({ code: response.statusCode ?? 0, answer: answered }), reject);
      });
      call.on("error", (cause) => {
        const told = `the mount daemon does not answer on ${this.#socketPath}; look at its pod`;
        const aborted: unknown = signal.reason;
        reject(aborted instanceof Error ? aborted : new FailureError("not-mounted", told, { cause }));
      });
      call.end(body);
    });
    if (code === 200) return;
    if (code === 422) throw FailureError.from(JSON.parse(answer) as Failure);
    throw new FailureError("internal", `the mount daemon answered ${code}: ${answer.slice(0, 200)}`);
  }
}
