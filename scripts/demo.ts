/**
 * `npm run demo`: a volume on two disks, an application that works on it, and everything that can happen to disks and
 * processes. Under a minute; exits with 1 if anything fails, and cleans up in any case. Needs root and FUSE.
 *
 * The disks are tmpfs mounts, each seen through a bind mount, so that a disk can be pulled (`umount -l`, while files on it
 * are open) and plugged in again with its old contents.
 */
import { type ChildProcess, execFile, fork, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify, stripVTControlCharacters, styleText } from "node:util";
import { bar } from "../src/cli/terminal.ts";
import { formatBytes } from "../src/cli/units.ts";
import type { VolumeStatus } from "../src/replication/model.ts";
import type { WorkloadReport } from "./demo-workload.ts";

const run = promisify(execFile);
const chiron = join(import.meta.dirname, "..", "bin", "chiron");
const treesEqual = join(import.meta.dirname, "..", "test", "trees-equal.py");
const live = process.stdout.isTTY === true;
const startedAt = performance.now();

type Style = Parameters<typeof styleText>[0];
const paint = (style: Style, text: string) => styleText(style, text, { stream: process.stdout });

let drawn = false;
function say(text: string): void {
  if (drawn) process.stdout.write("\r\x1b[2K");
  drawn = false;
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1).padStart(5);
  process.stdout.write(`${paint("dim", `${seconds} s`)}  ${text}\n`);
}
function draw(text: string): void {
  if (!live) return;
  process.stdout.write(
    `\r\x1b[2K         ${stripVTControlCharacters(text).slice(0, (process.stdout.columns ?? 80) - 10)}`,
  );
  drawn = true;
}
function chapter(title: string): void {
  if (drawn) process.stdout.write("\r\x1b[2K");
  drawn = false;
  process.stdout.write(`\n${paint("bold", title)}\n`);
}
const good = (text: string) => say(`${paint("green", "✔")} ${text}`);
const bad = (text: string) => say(`${paint("red", "⚡")} ${text}`);
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

class DemoFailure extends Error {}

/** A disk of the demo, and where Chiron sees it. */
class Disk {
  readonly name: string;
  readonly path: string;
  readonly #store: string;

  constructor(directory: string, name: string) {
    this.name = name;
    this.path = join(directory, name);
    this.#store = join(directory, `.${name}`);
    mkdirSync(this.path);
    mkdirSync(this.#store);
    shell("mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "demo", this.#store);
    this.plug();
  }

  plug(): void {
    shell("mount", "--bind", this.#store, this.path);
  }

  pull(): void {
    shell("umount", "-l", this.path);
  }

  discard(): void {
    spawnSync("umount", ["-l", this.path]);
    spawnSync("umount", ["-l", this.#store]);
  }
}

function shell(program: string, ...argv: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, argv, { encoding: "utf8" });
  if (status !== 0) throw new DemoFailure(`${program} ${argv.join(" ")}: ${stderr.trim()}`);
  return stdout;
}

class Workload {
  readonly #child: ChildProcess;
  last: WorkloadReport = { operations: 0, bytesWritten: 0, files: 0, errors: [], longestMs: 0, finished: false };

  constructor(directory: string) {
    this.#child = fork(join(import.meta.dirname, "demo-workload.ts"), [directory]);
    this.#child.on("message", (message) => {
      this.last = message as WorkloadReport;
    });
  }

  /** Watches for a while; fails at the first error of the application. */
  async watch(ms: number): Promise<void> {
    for (const end = performance.now() + ms; performance.now() < end; await sleep(100)) this.#look();
  }

  reset(): void {
    this.#child.send("reset");
  }

  async finish(): Promise<void> {
    this.#child.send("stop");
    for (const end = performance.now() + 30_000; !this.last.finished; await sleep(50)) {
      if (performance.now() > end) throw new DemoFailure("The application does not come to an end");
      this.#look();
    }
    this.#look();
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #look(): void {
    const { operations, errors, files, longestMs } = this.last;
    if (errors.length > 0) throw new DemoFailure(`The application got errors: ${errors.slice(0, 3).join("; ")}`);
    if (this.#child.exitCode !== null && !this.last.finished) throw new DemoFailure("The application ended by itself");
    draw(`application: ${operations} operations, 0 errors, ${files} files, longest ${Math.round(longestMs)} ms`);
  }
}

async function statusOf(mountpoint: string): Promise<VolumeStatus> {
  // Its exit code says that the volume is degraded, which is no failure here.
  const { stdout } = await run(chiron, ["status", "--json", mountpoint]).catch((error: { stdout?: string }) => ({
    stdout: error.stdout ?? "",
  }));
  if (stdout === "") throw new DemoFailure("chiron status gives no answer");
  return JSON.parse(stdout) as VolumeStatus;
}

async function until(
  mountpoint: string,
  replica: string,
  wanted: (state: VolumeStatus["replicas"][number]) => boolean,
  what: string,
): Promise<void> {
  for (const end = performance.now() + 30_000; ; await sleep(50)) {
    const state = (await statusOf(mountpoint)).replicas.find(({ name }) => name === replica);
    if (state !== undefined && wanted(state)) return;
    const { progress } = state ?? {};
    if (progress) {
      draw(
        `${replica}  ${bar(progress.percent, 30)} ${Math.floor(progress.percent)} %  ${progress.filesRemaining} files, ${formatBytes(progress.bytesRemaining)} left`,
      );
    }
    if (performance.now() > end)
      throw new DemoFailure(`${replica} ${what}: waited for too long (${JSON.stringify(state)})`);
  }
}

async function pullAndPlug(disk: Disk, other: Disk, mountpoint: string, workload: Workload): Promise<void> {
  workload.reset();
  disk.pull();
  bad(`umount -l ${disk.path}: the disk is gone, in the middle of everything`);
  await until(mountpoint, disk.name, ({ state }) => state !== "InSync", "is not noticed to be gone");
  say(
    `  ${disk.name} is left behind, and ${other.name} has that on record: no later mount will trust ${disk.name} as it is`,
  );
  await workload.watch(3000);
  good(
    `the application has not noticed: ${workload.last.operations} operations, 0 errors, longest ${Math.round(workload.last.longestMs)} ms`,
  );
  if (readdirSync(disk.path).length > 0) throw new DemoFailure(`Something was written into the empty ${disk.path}`);
  good(`nothing was written into the empty directory where the disk was`);
}

async function comeBack(disk: Disk, mountpoint: string, workload: Workload): Promise<void> {
  workload.reset();
  disk.plug();
  const begin = performance.now();
  say(`the disk is plugged in again: what ${disk.name} has missed is copied, while the application goes on`);
  await until(mountpoint, disk.name, ({ state }) => state === "InSync", "does not come back");
  await workload.watch(200);
  good(
    `${disk.name} is in sync again after ${((performance.now() - begin) / 1000).toFixed(1)} s; 0 errors, longest ${Math.round(workload.last.longestMs)} ms`,
  );
}

async function killVolumeProcess(mountpoint: string, workload: Workload): Promise<void> {
  const { pid } = await statusOf(mountpoint);
  workload.reset();
  process.kill(pid, "SIGKILL");
  bad(`kill -9 ${pid}: the process that serves the volume`);
  await workload.watch(1500);
  const after = await statusOf(mountpoint);
  if (after.pid === pid) throw new DemoFailure("The volume process did not change");
  good(
    `another process (${after.pid}) goes on; the application waited ${Math.round(workload.last.longestMs)} ms at most, 0 errors`,
  );
}

async function demo(directory: string, mars: Disk, venus: Disk, mountpoint: string): Promise<void> {
  chapter("A volume on two disks");
  const mounted = await run(chiron, [
    "mount",
    "--volume",
    "demo",
    "--log",
    join(directory, "log"),
    "--resync-bandwidth",
    "40M",
    "--replica",
    `mars=${mars.path}`,
    "--replica",
    `venus=${venus.path}`,
    mountpoint,
  ]);
  say(paint("dim", `$ chiron mount --replica mars=${mars.path} --replica venus=${venus.path} ${mountpoint}`));
  good(mounted.stdout.trim());
  const workload = new Workload(mountpoint);
  try {
    await workload.watch(3000);
    good(
      `an application writes, renames, removes, reads back and compares: ${workload.last.operations} operations, ${formatBytes(workload.last.bytesWritten)}`,
    );
    chapter("One disk dies");
    await pullAndPlug(venus, mars, mountpoint, workload);
    chapter("Then the program itself");
    await killVolumeProcess(mountpoint, workload);
    chapter("The disk comes back");
    await comeBack(venus, mountpoint, workload);
    chapter("Now the other disk");
    await pullAndPlug(mars, venus, mountpoint, workload);
    await comeBack(mars, mountpoint, workload);
    chapter("The proof");
    await workload.finish();
    good(`the application has read everything once more: ${workload.last.files} files as they must be, 0 errors`);
  } finally {
    workload.kill();
  }
  const verified = await run(chiron, ["verify", mountpoint]);
  good(`chiron verify: ${stripVTControlCharacters(verified.stdout.trim())}`);
  await run(chiron, ["unmount", mountpoint]);
  good("unmounted");
  shell("diff", "-r", "--exclude=.chiron", mars.path, venus.path);
  good("diff -r finds no difference between the disks");
  shell("python3", treesEqual, mars.path, venus.path);
  good("nor does a comparison of owners, modes, times to the nanosecond, attributes, links and holes");
  say(
    `each disk holds the whole plain tree: ${readdirSync(mars.path).length - 1} folders in ${mars.path}, readable without Chiron`,
  );
}

if (process.getuid?.() !== 0) {
  console.error("The demo mounts file systems: run it as root.");
  process.exit(77);
}
const directory = mkdtempSync(join(tmpdir(), "chiron-demo-"));
const mountpoint = join(directory, "mnt");
const disks: Disk[] = [];
function cleanUp(): void {
  spawnSync(chiron, ["unmount", "--force", mountpoint], { timeout: 30_000 });
  spawnSync("umount", ["-l", mountpoint]);
  for (const disk of disks) disk.discard();
  rmSync(directory, { recursive: true, force: true });
}
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    cleanUp();
    process.exit(130);
  });
}
try {
  mkdirSync(mountpoint);
  disks.push(new Disk(directory, "mars"));
  disks.push(new Disk(directory, "venus"));
  await demo(directory, disks[0] as Disk, disks[1] as Disk, mountpoint);
  chapter(
    `${paint("green", "Nothing failed.")} Your turn: sudo npx chiron mount --replica /srv/a --replica /srv/b /mnt`,
  );
} catch (error) {
  say(`${paint("red", "✘")} ${error instanceof DemoFailure ? error.message : (error as Error).stack}`);
  const log = spawnSync("tail", ["-n", "15", join(directory, "log")], { encoding: "utf8" }).stdout;
  if (log) console.error(log);
  process.exitCode = 1;
} finally {
  cleanUp();
}
