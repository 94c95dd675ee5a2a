/** What a holder's process needs of its surroundings, in the foreground or as a daemon. */
import { readFileSync, writeFileSync, writeSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { release } from "node:os";
import { fileURLToPath } from "node:url";
import { jsonLogger, type LogFields, type Logger, type LogLevel } from "../util/logger.ts";
import { kernelMounts, nativeMounts } from "./holder-mount.ts";
import type { HolderEnvironment, RunningMount } from "./holder-run.ts";
import type { Failure } from "./protocol.ts";
import type { HolderConfig } from "./registry.ts";

/** What a daemon tells the parent that started it. */
export type HolderOutcome = { readonly type: "ready" } | { readonly type: "failed"; readonly failure: Failure };

const STOP_GRACE_MS = 5000;
const RESEND_SINCE = [6, 9] as const;

/** A program beside this one: `.ts` in a checkout, `.js` as built. */
export function programPath(name: string): string {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return fileURLToPath(new URL(`./${name}.${extension}`, import.meta.url));
}

export function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}

export function kernelCanResend(kernelRelease = release()): boolean {
  const [major = 0, minor = 0] = kernelRelease.split(".").map((part) => Number.parseInt(part, 10));
  return major > RESEND_SINCE[0] || (major === RESEND_SINCE[0] && minor >= RESEND_SINCE[1]);
}

/** To standard error, which the daemon's parent made the log file, or another. A log that cannot be written stops nothing. */
function holderLogger(logFd: number, level: LogLevel, fields: LogFields): Logger {
  const sink = (line: string) => {
    try {
      writeSync(logFd, line);
    } catch {
      // nobody to tell
    }
  };
  return jsonLogger(sink, level, { process: "holder", ...fields });
}

export function holderEnvironment(config: Pick<HolderConfig, "volume">, logFd = 2): HolderEnvironment {
  const native = config.volume.binding === "fuse-native";
  return {
    logger: holderLogger(logFd, config.volume.logLevel, { volume: config.volume.volume }),
    mounts: native ? nativeMounts : kernelMounts,
    program: { program: programPath("main"), logFd },
    version: packageVersion(),
    canResend: kernelCanResend() && process.env["CHIRON_NO_RESEND"] === undefined,
    endsWithProcess: native,
    ...(native ? { options: { spare: false } } : {}),
  };
}

/** A process that lives as long as the mount: out of the way of directories, terminals and the OOM killer. */
export function becomeDaemon(): void {
  process.chdir("/");
  process.umask(0);
  process.on("SIGHUP", () => {});
  try {
    writeFileSync("/proc/self/oom_score_adj", "-900"); // the volume process inherits it: the applications' data pass there
  } catch {
    // not allowed in this container
  }
  setTimeout(flushCompileCache, 5000).unref();
}

/** SIGTERM and SIGINT unmount in order. */
export function stopOnSignals({ holder }: RunningMount): void {
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => void holder.stop(STOP_GRACE_MS));
}
