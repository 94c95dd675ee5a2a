/** `workload.py` under way: an application that checks every byte, while a test breaks what lies under it. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";

export class Workload {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<number | null>;
  #operations = 0;
  /** The longest that one operation has taken. */
  slowestMs = 0;
  #hasEnded = false;

  constructor(directory: string, seed: number, ...args: string[]) {
    const program = join(import.meta.dirname, "workload.py");
    this.#child = spawn("python3", [program, directory, `${seed}`, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream !== null) createInterface(stream).on("line", (line) => this.#note(line));
    }
    this.#ended = new Promise((resolve) => {
      this.#child.on("close", (status) => {
        this.#hasEnded = true;
        resolve(status);
      });
    });
  }

  #note(line: string): void {
    const [, operations, slowest] = /(\d+) operations, slowest (\d+) ms/.exec(line) ?? [];
    if (operations === undefined) this.#lines.push(line);
    else {
      this.#operations = Number(operations);
      this.slowestMs = Number(slowest);
    }
  }

  get operations(): number {
    return this.#operations;
  }

  /** Waits until so many more operations have been done; throws if the application failed, or stood still. */
  async goesOn(operations = 300, timeoutMs = 90_000): Promise<void> {
    const goal = this.#operations + operations;
    const end = Date.now() + timeoutMs;
    while (this.#operations < goal) {
      if (this.#hasEnded) throw new Error(`The application failed:\n${this.#lines.join("\n")}`);
      if (Date.now() > end)
        throw new Error(`The application does not go on: ${goal - this.#operations} operations left`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Lets it check everything that it has, and end: without a single error. */
  async finish(timeoutMs = 120_000): Promise<void> {
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.kill(), timeoutMs);
    const status = await this.#ended;
    clearTimeout(timer);
    assert.equal(status, 0, `the application failed:\n${this.#lines.join("\n")}`);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
