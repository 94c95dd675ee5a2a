/**
 * The process of a backend pod: serves the directory where a claim is mounted to the node plugins, until it is told to
 * stop. It knows nothing of Kubernetes, and has no token.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { OffloadedReplica } from "../replica/offload.ts";
import { jsonLogger, type LogLevel } from "../util/logger.ts";
import { BackendServer } from "./server.ts";

const options = {
  directory: { type: "string", default: "/data" },
  port: { type: "string", default: "9811" },
  /** With `tls.crt`, `tls.key` and `ca.crt`. */
  "tls-dir": { type: "string", default: "/etc/chiron/backend" },
  "probe-port": { type: "string", default: "9812" },
  "log-level": { type: "string", default: "info" },
} as const;

/** Resolves when the process was told to stop, with its exit code. */
export async function runBackend(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options, strict: true });
  const logger = jsonLogger((line) => process.stderr.write(line), values["log-level"] as LogLevel);
  const told = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve()).once("SIGINT", () => resolve());
  });
  const replica = new OffloadedReplica({ name: "served", path: values.directory });
  await replica.connect({ signal: AbortSignal.timeout(60_000) });
  const file = (name: string) => readFileSync(join(values["tls-dir"], name));
  const tls = { key: file("tls.key"), cert: file("tls.crt"), ca: file("ca.crt") };
  const server = new BackendServer({ port: Number(values.port), tls, replica, logger });
  await server.listen();
  const probes = createServer((_request, response) => {
    Promise.resolve(replica.check()).then(
      (result) => response.writeHead(result >= 0 ? 200 : 503).end(),
      () => response.writeHead(503).end(),
    );
  }).listen(Number(values["probe-port"]));
  logger.info("serving", { directory: values.directory, port: Number(values.port) });
  await told;
  probes.close();
  await server.close();
  await replica.disconnect();
  return 0;
}

if (import.meta.main) process.exit(await runBackend(process.argv.slice(2)));
