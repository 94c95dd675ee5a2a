/** Programs that a test runs, each bounded in time. Never touch a mount from the test's own process: it could wait for itself. */
import { execFile, spawn } from "node:child_process";
import { join } from "node:path";

export const checkout = join(import.meta.dirname, "../..");
export const chiron = join(checkout, "bin/chiron");

export interface Ran {
  /** null if a signal ended it. */
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs a program and answers how it ended, whatever that was. */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const { timeoutMs = 60_000, cwd, env = process.env } = options;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      env,
      stdio: ["ignore", "pipe", "pipe"],
      ...(cwd === undefined ? {} : { cwd }),
    });
    let [out, err] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      err += text;
    });
    const timer = setTimeout(() => {
      err += `\n(killed: no end after ${timeoutMs} ms)`;
      child.kill("SIGKILL");
      child.stdout.destroy(); // grandchildren may hold it open
      child.stderr.destroy();
    }, timeoutMs);
    child.on("error", (error) => {
      err += String(error);
    });
    child.on("close", (status) => {
      clearTimeout(timer);
      resolve({ status, out, err });
    });
  });
}

/** The same, but anything but success is an error that shows what the program said. Answers its output. */
export async function must(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { status, out, err } = await run(program, args, options);
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: status ${status}\n${out}${err}`);
  return out;
}

export function shell(script: string, options: RunOptions = {}): Promise<string> {
  return must("bash", ["-euo", "pipefail", "-c", script], options);
}

/** Why the tests of mounts cannot run here; null if they can. */
export async function cannotMount(): Promise<string | null> {
  if (process.getuid?.() !== 0) return "must be root";
  const fuse = await new Promise<boolean>((resolve) =>
    execFile("test", ["-c", "/dev/fuse"], (error) => resolve(error === null)),
  );
  return fuse ? null : "there is no /dev/fuse";
}

/** Asks again and again until the answer is not null. */
export async function eventually<T>(what: string, ask: () => Promise<T | null>, timeoutMs = 60_000): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (Date.now() > end) throw new Error(`After ${timeoutMs} ms still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
