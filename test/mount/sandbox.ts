/**
 * A place for a test of real mounts: a temporary directory with a run directory of its own, so that nothing of the
 * machine's is touched, and the command line run in it. The test's own process never touches the mount (a process that
 * does can deadlock with itself): `sh` does that in a child.
 */
import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { VolumeStatus } from "../../src/replication/model.ts";

export const chironProgram = fileURLToPath(new URL("../../bin/chiron", import.meta.url));

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Sandbox {
  readonly directory: string;
  readonly mountpoint: string;
  readonly log: string;
  readonly env: NodeJS.ProcessEnv;
  readonly #ends: (() => void)[] = [];

  constructor(context: TestContext) {
    this.directory = mkdtempSync(join(tmpdir(), "chiron-mount-"));
    this.mountpoint = this.makeDirectory("mnt");
    this.log = this.path("log");
    this.env = { ...process.env, CHIRON_RUN_DIR: this.path("run"), NO_COLOR: "1" };
    context.after(() => {
      for (const end of this.#ends) end();
      spawnSync(chironProgram, ["unmount", "--force", this.mountpoint], { env: this.env, timeout: 60_000 });
      spawnSync("umount", ["-l", this.mountpoint]);
      rmSync(this.directory, { recursive: true, force: true });
    });
  }

  /** Before the mount is ended: for applications that still use it. */
  onEnd(action: () => void): void {
    this.#ends.push(action);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  makeDirectory(name: string): string {
    mkdirSync(this.path(name));
    return this.path(name);
  }

  chiron(...argv: string[]): Promise<Outcome> {
    return run(chironProgram, argv, this.env);
  }

  /** Mounts the directories `a` and `b`, which are made if they are not there. Throws if that fails. */
  async mount(...options: string[]): Promise<void> {
    for (const name of ["a", "b"]) if (!existsSync(this.path(name))) this.makeDirectory(name);
    const replicas = ["--replica", this.path("a"), "--replica", this.path("b")];
    const outcome = await this.chiron("mount", "--log", this.log, ...options, ...replicas, this.mountpoint);
    if (outcome.code !== 0) throw new Error(`mount: ${outcome.stderr}\n${this.logText()}`);
  }

  async status(): Promise<VolumeStatus> {
    const { stdout, stderr } = await this.chiron("status", "--json", this.mountpoint);
    if (stdout === "") throw new Error(`status: ${stderr}\n${this.logText()}`);
    return JSON.parse(stdout) as VolumeStatus;
  }

  async until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    for (
      const end = Date.now() + 60_000;
      !(await condition());
      await new Promise((resolve) => setTimeout(resolve, 50))
    ) {
      if (Date.now() > end) throw new Error(`${what}: waited for too long\n${this.logText()}`);
    }
  }

  logText(): string {
    return existsSync(this.log) ? readFileSync(this.log, "utf8") : "";
  }

  /** Processes of this sandbox's mount. */
  async holder(): Promise<number> {
    const { stdout } = await this.chiron("list", "--json");
    return (JSON.parse(stdout) as { holderPid: number }[])[0]?.holderPid ?? 0;
  }
}

/** Never rejects; a signal is code 128 + n, as to a shell. */
export function run(program: string, argv: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(program, argv, { env, timeout: 120_000, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : 128;
      resolve({ code, stdout, stderr });
    });
  });
}

export function sh(script: string, env: NodeJS.ProcessEnv = process.env): Promise<Outcome> {
  return run("bash", ["-c", script], env);
}

/** One line on standard error, which says so, and this exit code. */
export function refused({ code, stdout, stderr: said }: Outcome, expected: number, message: RegExp): void {
  const stderr = said.replace(/^chiron: .* this can take a while\n/m, ""); // said on a slow machine
  assert.deepEqual([code, stdout, stderr.trimEnd().split("\n").length], [expected, "", 1], stderr);
  assert.match(stderr, /^chiron: /);
  assert.match(stderr, message);
}
