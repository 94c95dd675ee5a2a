/**
 * `--metrics ADDRESS`: the volume process has the figures, the holder serves them over HTTP, so that a scrape is answered
 * also while the volume process is being started again (with what it said last, and the holder's own figures).
 */
import type { Server } from "node:http";
import type { Logger } from "../util/logger.ts";
import { FailureError } from "./failure.ts";
import type { Holder } from "./holder.ts";

const VOLUME_ANSWER_MS = 2000;

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** "9100", ":9100", "127.0.0.1:9100", "[::1]:9100"; null if it is none of these. Without a host: this machine only. */
export function parseAddress(text: string): Address | null {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) return null;
  return { host: match[1] || match[2] || "127.0.0.1", port };
}

export class MetricsEndpoint {
  readonly #address: string;
  readonly #holder: Holder;
  readonly #logger: Logger;
  #server: Server | null = null;
  #last = "";

  constructor(address: string, holder: Holder, logger: Logger) {
    this.#address = address;
    this.#holder = holder;
    this.#logger = logger;
  }

  /** An address that is taken is logged, and no reason to end a mount. */
  async listen(): Promise<void> {
    const address = parseAddress(this.#address);
    if (address === null) throw new FailureError("usage", `Not an address for metrics: ${this.#address}`);
    const { createServer } = await import("node:http");
    const server = createServer((request, response) => {
      if (request.method !== "GET" || (request.url !== "/metrics" && request.url !== "/")) {
        response.writeHead(404).end("See /metrics\n");
        return;
      }
      void this.#text().then((text) => {
        response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
      });
    });
    this.#server = server;
    await new Promise<void>((resolve) => {
      server.on("error", (error) => {
        this.#logger.error("Metrics cannot be served", { address: this.#address, error });
        resolve();
      });
      server.listen(address.port, address.host, resolve);
    });
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    server?.closeAllConnections();
    if (server?.listening) await new Promise((resolve) => server.close(resolve));
  }

  async #text(): Promise<string> {
    const abort = AbortSignal.timeout(VOLUME_ANSWER_MS);
    let up = 1;
    try {
      const call = this.#holder.call("metrics", {}, { progress: () => {}, signal: abort });
      const text = await Promise.race([call, aborted(abort)]);
      if (typeof text === "string") this.#last = text;
    } catch {
      up = 0;
    }
    const label = `{volume=${JSON.stringify(this.#holder.config.volume.volume)}}`;
    return `${this.#last}# HELP chiron_volume_process_up The volume process answered this scrape.
# TYPE chiron_volume_process_up gauge
chiron_volume_process_up${label} ${up}
# HELP chiron_volume_process_restarts_total How often the volume process was started again on the same mount.
# TYPE chiron_volume_process_restarts_total counter
chiron_volume_process_restarts_total${label} ${this.#holder.restarts}
`;
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new Error("No answer in time")), { once: true });
  });
}
