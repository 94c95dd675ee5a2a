/** What the kubelet's probes and Prometheus ask a process: `/healthz`, `/readyz`, `/metrics`. */
import { createServer, type Server } from "node:http";

export interface ProbesOptions {
  /** `host:port` or `:port`. */
  readonly address: string;
  /** Why the process must be restarted, or null. */
  readonly sick?: () => string | null;
  /** Why the process cannot serve now, or null. */
  readonly notReady: () => string | null;
  readonly metrics?: () => Promise<string>;
}

export async function startProbes(options: ProbesOptions): Promise<Server> {
  const match = /^(\[[^\]]*\]|[^:]*):(\d+)$/.exec(options.address);
  if (!match) throw new Error(`Cannot listen on "${options.address}"; write it like :9810 or 127.0.0.1:9810`);
  const server = createServer((request, response) => {
    const say = (code: number, text: string, type = "text/plain; charset=utf-8") =>
      response.writeHead(code, { "content-type": type }).end(`${text}\n`);
    const problem = request.url === "/healthz" ? (options.sick?.() ?? null) : options.notReady();
    if (request.url === "/healthz" || request.url === "/readyz") say(problem === null ? 200 : 503, problem ?? "ok");
    else if (request.url === "/metrics" && options.metrics)
      options.metrics().then(
        (text) => say(200, text, "text/plain; version=0.0.4; charset=utf-8"),
        (error: unknown) => say(500, String(error)),
      );
    else say(404, "there are /healthz, /readyz and /metrics");
  });
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(Number(match[2]), (match[1] ?? "").replaceAll(/[[\]]/g, "") || undefined, resolve);
  });
  return server;
}
