/** A mount served by a child process, and real programs that use it: never by the process that serves it. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { abortConnection, findMount, unmount } from "../device.ts";

const run = promisify(execFile);
const timeoutMs = 60_000;

export class Mounted {
  readonly dir: string;
  readonly child: ChildProcess;
  /** What the server logged. */
  readonly log: string[] = [];
  /** What it said. */
  readonly said: string[] = [];
  #onNews: (() => void) | null = null;
  #exited = false;

  constructor(dir: string, child: ChildProcess) {
    this.dir = dir;
    this.child = child;
    child.once("close", () => {
      this.#exited = true;
      this.#onNews?.();
    });
    if (child.stderr) createInterface(child.stderr).on("line", (line) => this.log.push(line));
    if (child.stdout) {
      createInterface(child.stdout).on("line", (line) => {
        this.said.push(line);
        this.#onNews?.();
      });
    }
  }

  /** Waits until the server has said a line that begins so, at or after a place in `said`, and answers it. */
  async until(begin: string, from = 0): Promise<string> {
    for (;;) {
      const line = this.said.slice(from).find((said) => said.startsWith(begin));
      if (line !== undefined) return line;
      if (this.#exited) throw new Error(`The server ended: ${this.log.join("\n")}`);
      await new Promise<void>((resolve) => {
        this.#onNews = resolve;
      });
    }
  }

  /** What a shell script prints, run in the mount. */
  async sh(script: string): Promise<string> {
    const { stdout } = await run("sh", ["-euc", script], { cwd: this.dir, timeout: timeoutMs, maxBuffer: 1 << 26 });
    return stdout;
  }

  async python(script: string, ...args: string[]): Promise<string> {
    const options = { cwd: this.dir, timeout: timeoutMs, maxBuffer: 1 << 26 };
    const { stdout } = await run("python3", ["-c", script, ...args], options);
    return stdout;
  }

  /** Unmounts and waits until the server has ended; by force if it does not. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { child, dir } = this;
    const exited = new Promise<void>((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) resolve();
      else child.once("exit", () => resolve());
    });
    child.kill("SIGTERM");
    const timer = setTimeout(() => {
      const mount = findMount(dir);
      if (mount !== null) abortConnection(mount.connection);
      child.kill("SIGKILL");
    }, 10_000);
    await exited;
    clearTimeout(timer);
    if (findMount(dir) !== null) unmount(dir, "detach");
    await rmdir(dir);
  }
}

/** Starts one of this folder's servers on a new mount point. */
export async function serve(script: string, ...options: string[]): Promise<Mounted> {
  const dir = await mkdtemp(join(tmpdir(), "chiron-fuse-"));
  const path = join(import.meta.dirname, script);
  const child = spawn(process.execPath, [path, dir, ...options], { stdio: ["ignore", "pipe", "pipe"] });
  const mounted = new Mounted(dir, child);
  await mounted.until("ready");
  return mounted;
}
