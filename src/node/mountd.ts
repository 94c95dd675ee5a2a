/**
 * The mount daemon: starts a holder for each mount that the node plugin asks for. Holders are processes of their own,
 * in sessions of their own: they outlive this one, and when a new daemon starts (an upgrade) it takes over from the
 * holders that it finds, mount by mount, without a failed request. It never unmounts: only unstage does.
 */
import { type ChildProcess, fork, type StdioOptions } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, renameSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { jsonLogger, type Logger, type LogLevel } from "../util/logger.ts";
import { FailureError, failureOf } from "../volume/failure.ts";
import type { Failure } from "../volume/protocol.ts";
import { controlSocket, type HolderConfig, listMounts } from "../volume/registry.ts";

import { reviveMounts } from "./mount-revival.ts";

/** Longer than the plugin's own deadline for a call: a holder that nobody waits for any more still ends by itself. */
const startTimeoutMs = 150_000;

/** A program of the data path: `.ts` in a checkout, `.js` as built. */
const holderProgram = fileURLToPath(
  new URL(`../volume/holder-main.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`, import.meta.url),
);

interface HolderStart {
  readonly args: readonly string[];
  readonly config: HolderConfig | null;
  readonly logFile: string | null;
  /** Becomes the holder's descriptor 3. */
  readonly fuseFd?: number;
}

/** Starts a holder and resolves when it serves; it is on its own then. */
export function startHolder({ args, config, logFile, fuseFd }: HolderStart): Promise<void> {
  const out = logFile === null ? "inherit" : openSync(logFile, "a", 0o600);
  const stdio: StdioOptions = fuseFd === undefined ? ["ignore", out, out, "ipc"] : ["ignore", out, out, fuseFd, "ipc"];
  const child: ChildProcess = fork(holderProgram, [...args], { detached: true, stdio });
  if (typeof out === "number") closeSync(out);
  return new Promise((resolve, reject) => {
    const settle = (failure: Failure | null) => {
      clearTimeout(timer);
      child.removeAllListeners();
      if (child.connected) child.disconnect();
      child.unref();
      if (failure) reject(FailureError.from(failure));
      else resolve();
    };
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      settle({ code: "internal", message: `the volume was not mounted within ${startTimeoutMs / 1000} s` });
    }, startTimeoutMs);
    child.once("message", (message) => {
      const outcome = message as { readonly type: "ready" } | { readonly type: "failed"; readonly failure: Failure };
      settle(outcome.type === "ready" ? null : outcome.failure);
    });
    child.once("error", (error) => settle(failureOf(error)));
    child.once("exit", (code, signal) =>
      settle({ code: "internal", message: `the holder ended (${signal ?? code}) before it mounted` }),
    );
    if (config) child.send(config);
  });
}

export interface MountdOptions {
  readonly socketPath: string;
  readonly logger: Logger;
}

export async function startMountd({ socketPath, logger }: MountdOptions): Promise<Server> {
  const server = createServer((request, response) => {
    const answer = (code: number, body: string) =>
      response.writeHead(code, { "content-type": "application/json" }).end(body);
    if (request.url === "/healthz") {
      answer(200, "{}");
      return;
    }
    if (request.method !== "POST" || request.url !== "/mount") {
      answer(404, "{}");
      return;
    }
    text(request)
      .then(async (body) => {
        const config = JSON.parse(body) as HolderConfig;
        await startHolder({ args: [], config, logFile: config.logFile });
        logger.info("mounted", { volume: config.volume.volume, mountpoint: config.volume.mountpoint });
        answer(200, "{}");
      })
      .catch((error: unknown) => {
        logger.warn("cannot mount", { error });
        answer(422, JSON.stringify(failureOf(error)));
      });
  });
  server.requestTimeout = 0;
  server.timeout = 0;
  // Bound under a name of its own: a daemon that ends removes what it had bound, and its successor may live already.
  mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
  const own = join(dirname(socketPath), `.${randomBytes(4).toString("hex")}`);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(own, resolve);
  });
  chmodSync(own, 0o600);
  renameSync(own, socketPath);
  return server;
}

/**
 * A new daemon takes over from the holders that it finds: they belong to one that is about to end, an older version
 * perhaps, and in a pod everything of it ends with it. A mount that cannot be taken over goes on as it is.
 */
export async function takeOverMounts(logger: Logger): Promise<void> {
  await Promise.all(
    listMounts().map(async ({ directory, record }) => {
      if (record.state !== "mounted") return;
      const { volume } = record.config.volume;
      if (!existsSync(controlSocket(directory))) return;
      try {
        await startHolder({ args: ["takeover", directory], config: null, logFile: record.config.logFile });
        logger.info("took a mount over", { volume, fromVersion: record.programVersion });
      } catch (error) {
        logger.warn("cannot take a mount over", { volume, error });
      }
    }),
  );
}

const options = {
  socket: { type: "string", default: "/run/chiron/mountd.sock" },
  /** Where the node plugin keeps copies of the mounts' descriptors. */
  "vault-socket": { type: "string", default: "/run/chiron/vault.sock" },
  /** Written once everything that an earlier daemon held was taken over. */
  "ready-file": { type: "string" },
  "log-level": { type: "string", default: "info" },
} as const;

/** Resolves when the process was told to stop, with its exit code. Its mounts stay. */
export async function runMountd(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options, strict: true });
  const logger = jsonLogger((line) => process.stderr.write(line), values["log-level"] as LogLevel);
  const told = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve()).once("SIGINT", () => resolve());
  });
  const server = await startMountd({ socketPath: values.socket, logger });
  await takeOverMounts(logger);
  if (values["ready-file"] !== undefined) writeFileSync(values["ready-file"], "");
  const stop = new AbortController();
  const revival = reviveMounts(
    {
      vaultSocket: values["vault-socket"],
      logger,
      adopt: ({ directory, record }, fuseFd, pid) =>
        startHolder({ args: ["adopt", directory, String(pid)], config: null, logFile: record.config.logFile, fuseFd }),
    },
    stop.signal,
  );
  await told;
  stop.abort();
  await revival;
  server.close();
  return 0;
}

if (import.meta.main) process.exit(await runMountd(process.argv.slice(2)));
