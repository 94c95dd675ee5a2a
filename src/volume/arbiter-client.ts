/**
 * The volume process's way to the ReplicatedVolume's status: the node plugin's socket, one HTTP request a call. The
 * plugin may be restarted at any time; a call then rejects, and is made again by whoever needs it.
 */
import { request } from "node:http";
import { text } from "node:stream/consumers";
import type { RecordStore } from "../replication/arbiter-status.ts";
import type { Held, StatusRecord } from "../replication/takeover-rules.ts";
import type { ArbiterConfig } from "./protocol.ts";

/** The plugin gives up earlier by itself, and says why. */
const CALL_TIMEOUT_MS = 12_000;

export class ArbiterClient implements RecordStore {
  readonly #config: ArbiterConfig;
  readonly #volume: string;

  constructor(config: ArbiterConfig, volume: string) {
    this.#config = config;
    this.#volume = volume;
  }

  async read(): Promise<Held & { readonly version: string }> {
    return (await this.#call("read", {})) as Held & { readonly version: string };
  }

  async swap(version: string, record: StatusRecord): Promise<boolean> {
    return ((await this.#call("swap", { version, record })) as { readonly swapped: boolean }).swapped;
  }

  /** Renews the volume's Lease; false if another node has it. */
  async renew(): Promise<boolean> {
    return ((await this.#call("renew", {})) as { readonly ours: boolean }).ours;
  }

  async #call(method: "read" | "swap" | "renew", params: object): Promise<unknown> {
    const body = JSON.stringify({ volume: this.#volume, ...params });
    const { socket: socketPath } = this.#config;
    const signal = AbortSignal.timeout(CALL_TIMEOUT_MS);
    const { code, answer } = await new Promise<{ readonly code: number; readonly answer: string }>(
      (resolve, reject) => {
        const call = request({ socketPath, path: `/${method}`, method: "POST", signal, agent: false }, (response) => {
          text(response).then((answered) => resolve({ code: response.statusCode ?? 0, answer: answered }), reject);
        });
        call.on("error", (cause) =>
          reject(new Error(`the node plugin does not answer on ${socketPath}: look at its pod`, { cause })),
        );
        call.end(body);
      },
    );
    const value = JSON.parse(answer) as { readonly error?: string };
    if (code !== 200) throw new Error(value.error ?? `the node plugin answered ${code}`);
    return value;
  }
}
