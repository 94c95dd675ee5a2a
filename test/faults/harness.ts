/**
 * A real volume for tests of faults: mounted by the command line over directories or file systems of its own, with a
 * verifying workload beside, compared afterwards by a program that is not ours. The mount is never touched by the test's
 * own process.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { VolumeStatus } from "../../src/replication/model.ts";

const root = join(import.meta.dirname, "../..");
const chironProgram = join(root, "bin/chiron");

/** Runs a program; throws with its output if it fails. */
export function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: "utf8", timeout: 120_000 });
  if (error !== undefined) throw error;
  assert.equal(status, 0, `${program} ${args.join(" ")}: status ${status}\n${stdout}${stderr}`);
  return stdout;
}

export interface Started {
  /** Resolves with its last line; rejects if it ended with an error. */
  readonly done: Promise<string>;
  readonly child: ChildProcess;
}

export function startProgram(program: string, ...args: string[]): Started {
  return startWith(process.env, program, args);
}

function startWith(env: NodeJS.ProcessEnv, program: string, args: readonly string[]): Started {
  const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout?.on("data", (chunk) => (output += chunk));
  child.stderr?.on("data", (chunk) => (output += chunk));
  const done = new Promise<string>((resolve, reject) => {
    child.on("exit", (code, signal) => {
      if (code === 0) resolve(output.trim().split("\n").at(-1) ?? "");
      else reject(new Error(`${program} ${args.join(" ")}: ${signal ?? `status ${code}`}\n${output}`));
    });
  });
  done.catch(() => {});
  return { done, child };
}

/** A place for one test: everything in it is unmounted and removed when the test ends. */
export class Bench implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "chiron-faults-"));
  readonly mountpoint = this.make("mnt");
  readonly #env: NodeJS.ProcessEnv & { readonly CHIRON_RUN_DIR: string };
  readonly #undo: (() => void)[] = [];
  #mounted = false;
  #workloads = 0;

  /** `host`: the name of the host that this one's mounts take themselves to be on. */
  constructor(host?: string) {
    const env = { ...process.env, CHIRON_RUN_DIR: join(this.directory, "run"), NO_COLOR: "1" };
    this.#env = host === undefined ? env : { ...env, CHIRON_HOST_NAME: host };
  }

  make(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** A file system of its own, on a loop device or in memory. */
  fileSystem(name: string, type: "ext4" | "xfs" | "tmpfs", megabytes = 320): string {
    const path = this.make(name);
    if (type === "tmpfs") run("mount", "-t", "tmpfs", "-o", `size=${megabytes}m`, "chiron-test", path);
    else {
      const image = join(this.directory, `${name}.img`);
      run("truncate", "-s", `${megabytes}M`, image);
      run(...((type === "ext4" ? ["mkfs.ext4", "-q", image] : ["mkfs.xfs", "-q", image]) as [string, ...string[]]));
      run("mount", "-o", "loop", image, path);
    }
    this.onEnd(() => void spawnSync("umount", ["-l", path]));
    return path;
  }

  onEnd(undo: () => void): void {
    this.#undo.unshift(undo);
  }

  chiron(...args: string[]): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
    return spawnSync(chironProgram, args, { encoding: "utf8", env: this.#env, timeout: 120_000 });
  }

  mount(...args: string[]): void {
    const { status, stdout, stderr } = this.chiron("mount", ...args, "--log", this.log, this.mountpoint);
    assert.equal(status, 0, stdout + stderr);
    this.#mounted = true;
  }

  /** The same for tests that serve a replica by this very process, which must not wait for the command then. */
  async mountBeside(...args: string[]): Promise<void> {
    await startWith(this.#env, chironProgram, ["mount", ...args, "--log", this.log, this.mountpoint]).done;
    this.#mounted = true;
  }

  async unmountBeside(): Promise<void> {
    await startWith(this.#env, chironProgram, ["unmount", this.mountpoint]).done;
    this.#mounted = false;
  }

  get log(): string {
    return join(this.directory, "chiron.log");
  }

  unmount(): void {
    const { status, stdout, stderr } = this.chiron("unmount", this.mountpoint);
    assert.equal(status, 0, stdout + stderr);
    this.#mounted = false;
  }

  /** Of a volume whose process may just be starting again: asked until it answers. */
  status(): VolumeStatus {
    for (let tries = 0; ; tries++) {
      const { stdout, stderr } = this.chiron("status", "--json", this.mountpoint);
      if (stdout !== "") return JSON.parse(stdout) as VolumeStatus;
      assert.ok(tries < 5, `${stderr}\n${this.lastLog()}`);
    }
  }

  replica(name: string): VolumeStatus["replicas"][number] {
    const replica = this.status().replicas.find((other) => other.name === name);
    assert.ok(replica, name);
    return replica;
  }

  /** Waits until the status is as wanted. */
  async until(what: string, wanted: (status: VolumeStatus) => boolean, timeoutMs = 120_000): Promise<VolumeStatus> {
    const end = Date.now() + timeoutMs;
    let status = this.status();
    while (!wanted(status)) {
      if (Date.now() > end) {
        assert.fail(`Not ${what} within ${timeoutMs} ms: ${JSON.stringify(status, null, 1)}\n${this.lastLog()}`);
      }
      await sleep(100);
      status = this.status();
    }
    return status;
  }

  healthy(): Promise<VolumeStatus> {
    return this.until("healthy", (status) => status.state === "Healthy");
  }

  lastLog(): string {
    try {
      return readFileSync(this.log, "utf8").split("\n").slice(-25).join("\n");
    } catch {
      return "";
    }
  }

  /** Starts a verifying workload in a directory of its own. */
  workload(seconds: number, seed = Math.floor(Math.random() * 1e9)): Started {
    const directory = join(this.mountpoint, `work-${this.#workloads++}`, "tree");
    return startProgram("python3", join(import.meta.dirname, "workload.py"), directory, String(seed), String(seconds));
  }

  /** Ends the workloads' time now. */
  endWorkloads(): void {
    for (let i = 0; i < this.#workloads; i++) run("touch", join(this.mountpoint, `work-${i}`, "stop"));
  }

  /** Unmounts, and compares the replicas by a program that is none of ours. */
  compare(...directories: string[]): void {
    if (this.#mounted) this.unmount();
    const [first = "", ...others] = directories;
    for (const other of others) run("python3", join(root, "test/trees-equal.py"), first, other);
  }

  /** All processes of the mount. */
  #pids(): string[] {
    return readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid) || pid === String(process.pid)) return false;
      try {
        return readFileSync(`/proc/${pid}/environ`, "latin1").includes(`CHIRON_RUN_DIR=${this.#env.CHIRON_RUN_DIR}`);
      } catch {
        return false;
      }
    });
  }

  signalAll(signal: NodeJS.Signals): void {
    for (const pid of this.#pids()) process.kill(Number(pid), signal);
  }

  /** As if the machine had stopped: every process of the mount is gone at once, and the mount with them. */
  crash(): void {
    // Stopped first, so that none can start another one again.
    for (let all = this.#pids(), known = 0; all.length > known; known = all.length, all = this.#pids()) {
      for (const pid of all) process.kill(Number(pid), "SIGSTOP");
    }
    const killed = this.#pids();
    for (const pid of killed) process.kill(Number(pid), "SIGKILL");
    run("umount", "-l", this.mountpoint);
    this.#mounted = false;
    const left = (): string[] => killed.filter((pid) => existsSync(`/proc/${pid}`));
    for (let i = 0; i < 100 && left().length > 0; i++) spawnSync("sleep", ["0.1"]);
    assert.deepEqual(left(), [], "killed processes do not end");
  }

  volumePid(): number {
    return this.status().pid;
  }

  write(name: string, content: string): void {
    writeFileSync(join(this.directory, name), content);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#mounted) {
      const { status } = this.chiron("unmount", "--force", this.mountpoint);
      if (status !== 0) execFileSync("sh", ["-c", `umount -l ${this.mountpoint} || true`]);
    }
    for (const undo of this.#undo) undo();
    for (let i = 0; i < 20; i++) {
      try {
        rmSync(this.directory, { recursive: true, force: true });
        return;
      } catch {
        await sleep(100); // something still lets go of it
      }
    }
  }
}
