/** Chiron's own processes, started as the chart starts them, with what they log kept for the tests. */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { run } from "./api-server.ts";

const root = join(import.meta.dirname, "../..");

export interface Daemon extends AsyncDisposable {
  readonly child: ChildProcess;
  /** All that it wrote to stderr. */
  readonly log: () => string;
  /** Resolves with its exit code, null after a signal. */
  readonly ended: Promise<number | null>;
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/**
 * Compiles the project into this directory, as the image has it: for tests of what a process costs, since running the
 * sources as they are takes 40 MiB more.
 */
export async function compileInto(directory: string): Promise<void> {
  const out = join(directory, "dist");
  const { code, stdout } = await run(join(root, "node_modules/.bin/tsc"), [
    "-p",
    join(root, "tsconfig.build.json"),
    "--outDir",
    out,
  ]);
  if (code !== 0) throw new Error(`the project does not compile: ${stdout}`);
  copyFileSync(join(root, "package.json"), join(directory, "package.json"));
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
}

/** Runs a `main.ts` of this project, or what was compiled of it into this directory. */
export function startDaemon(
  main: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  compiled: string | null = null,
): Daemon {
  const file =
    compiled === null ? join(root, main) : join(compiled, main.replace(/^src\//, "dist/").replace(/\.ts$/, ".js"));
  // As in the chart.
  const flags = compiled !== null && main === "src/node/main.ts" ? ["--max-semi-space-size=1"] : [];
  const child = spawn(process.execPath, [...flags, file, ...args], {
    env: { ...process.env, KUBECONFIG: "", ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    log += text;
    if (process.env["CHIRON_TEST_LOG"]) process.stderr.write(text);
  });
  const ended = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const stop = async (signal: NodeJS.Signals = "SIGTERM") => {
    child.kill(signal);
    const killer = setTimeout(() => child.kill("SIGKILL"), 20_000);
    const code = await ended;
    clearTimeout(killer);
    return code;
  };
  return {
    child,
    log: () => log,
    ended,
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
    },
  };
}

/** A TCP port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address ? address.port : 0;
}
