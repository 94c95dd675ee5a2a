/** Starting a holder as a daemon, and waiting until it says that it is ready or why it cannot be. */
import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { FailureError } from "../volume/failure.ts";
import { type HolderOutcome, programPath } from "../volume/holder-daemon.ts";
import type { HolderConfig } from "../volume/registry.ts";

const LOG_DIRECTORY = "/var/log/chiron";

export function defaultLogFile(volume: string): string {
  return `${LOG_DIRECTORY}/${volume}.log`;
}

/** Rejects with the daemon's `FailureError`. `message`: what it gets to read first. */
export async function startDaemon(
  argv: readonly string[],
  logFile: string,
  message: HolderConfig | null,
): Promise<void> {
  const log = openLog(logFile);
  const child = spawn(process.execPath, [programPath("holder-main"), ...argv], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", log, log, "ipc"],
  });
  closeSync(log);
  const stop = () => child.kill("SIGTERM");
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
  try {
    await new Promise<void>((resolve, reject) => {
      child.once("message", (outcome: HolderOutcome) => {
        if (outcome.type === "ready") resolve();
        else reject(FailureError.from(outcome.failure));
      });
      child.once("error", (cause) => reject(new FailureError("internal", "The holder cannot be started", { cause })));
      child.once("exit", (code, signal) => {
        reject(new FailureError("internal", `The holder ended (${signal ?? `code ${code}`}): see ${logFile}`));
      });
      if (message !== null) child.send(message);
    });
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
    if (child.connected) child.disconnect();
    child.unref();
  }
}

export function openLog(path: string): number {
  try {
    if (dirname(path) === LOG_DIRECTORY) mkdirSync(LOG_DIRECTORY, { recursive: true, mode: 0o750 });
    return openSync(path, "a", 0o640);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? `there is no directory ${dirname(path)}` : code;
    throw new FailureError("usage", `The log ${path} cannot be written (${why}): choose another file with --log`, {
      cause,
    });
  }
}
