/**
 * A volume of two local replicas beside what else one could do, in one run: plain directories, and any other program that
 * mounts. Prints medians, and each contender's ratio to two plain directories.
 *
 *     npm run bench -- [--runs 5] [--files 5000] [--base DIR …] [--pin] [--peer 'NAME=COMMAND with {a} {b} {mnt}'] …
 *
 * `--base`: directories to work in, one table each (default: one on tmpfs, one on disk). `--pin`: everything on one CPU.
 * A peer's command has to mount {mnt} over {a} and {b} and may stay in the foreground.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

interface Contender {
  readonly name: string;
  /** Directories for the workload, and how to end it. */
  start(base: string): Promise<{ readonly directories: readonly string[]; stop(): Promise<void> }>;
}

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    files: { type: "string", default: "5000" },
    base: { type: "string", multiple: true },
    pin: { type: "boolean", default: false },
    peer: { type: "string", multiple: true, default: [] },
  },
});
const root = join(import.meta.dirname, "..");
const pinned = values.pin ? ["taskset", "-c", "0"] : [];
const scratch = mkdtempSync(join(tmpdir(), "chiron-bench-"));
const log = openSync(join(scratch, "log"), "a");
const workload = join(scratch, "workload");
execFileSync("cc", ["-O2", "-o", workload, join(import.meta.dirname, "workload.c")], { stdio: "inherit" });

function pair(base: string): readonly [string, string] {
  const directories = [join(base, "a"), join(base, "b")] as const;
  for (const directory of directories) mkdirSync(directory, { recursive: true });
  return directories;
}

async function mounted(mountpoint: string): Promise<void> {
  const device = statSync(join(mountpoint, "..")).dev;
  for (let i = 0; i < 300; i++) {
    if (statSync(mountpoint).dev !== device) return;
    await sleep(100);
  }
  throw new Error(`Nothing was mounted on ${mountpoint} within 30 s`);
}

function mountedBy(name: string, command: (a: string, b: string, mountpoint: string) => string[]): Contender {
  return {
    name,
    async start(base) {
      const [a, b] = pair(base);
      const mountpoint = join(base, "mnt");
      mkdirSync(mountpoint, { recursive: true });
      const [program = "", ...args] = [...pinned, ...command(a, b, mountpoint)];
      const child = spawn(program, args, { stdio: ["ignore", "ignore", log] });
      await mounted(mountpoint);
      return {
        directories: [mountpoint],
        async stop() {
          for (let i = 0; i < 100 && spawnSync("umount", [mountpoint]).status !== 0; i++) await sleep(100);
          // What serves it may have something left to do in its directories.
          for (let i = 0; i < 50 && child.exitCode === null && child.signalCode === null; i++) await sleep(100);
          child.kill();
        },
      };
    },
  };
}

const contenders: Contender[] = [
  { name: "one directory", start: async (base) => ({ directories: [pair(base)[0]], stop: async () => {} }) },
  { name: "two directories", start: async (base) => ({ directories: pair(base), stop: async () => {} }) },
  mountedBy("chiron", (a, b, mountpoint) => [
    join(root, "bin/chiron"),
    ...["mount", "--foreground", "--replica", `a=${a}`, "--replica", `b=${b}`, mountpoint],
  ]),
  ...values.peer.map((text) => {
    const [name = "", ...rest] = text.split("=");
    return mountedBy(name, (a, b, mountpoint) => {
      const command = rest.join("=").replaceAll("{a}", a).replaceAll("{b}", b).replaceAll("{mnt}", mountpoint);
      return ["sh", "-c", command];
    });
  }),
];

function run(directories: readonly string[]): Map<string, number> {
  const [program = "", ...args] = [...pinned, workload, ...directories, values.files];
  const output = execFileSync(program, args, { encoding: "utf8" });
  return new Map(
    output
      .trim()
      .split("\n")
      .map((line) => {
        const [what = "", value] = line.split(" ");
        return [what, Number(value)];
      }),
  );
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

for (const base of values.base ?? ["/dev/shm", "/var/tmp"]) {
  const results = new Map<string, Map<string, number[]>>();
  // In turn, so that a machine whose speed drifts is unfair to nobody.
  for (let i = 0; i < Number(values.runs); i++) {
    for (const { name, start } of contenders) {
      const place = mkdtempSync(join(base, "chiron-bench-"));
      const { directories, stop } = await start(place);
      const figures = run(directories);
      await stop();
      rmSync(place, { recursive: true, force: true });
      const all = results.get(name) ?? new Map<string, number[]>();
      for (const [what, value] of figures) all.set(what, [...(all.get(what) ?? []), value]);
      results.set(name, all);
    }
  }
  console.log(
    `\n${base}${values.pin ? ", everything on one CPU" : ""}; median of ${values.runs} (ratio to two directories)`,
  );
  const reference = results.get("two directories");
  for (const [name, figures] of results) {
    const cells = [...figures].map(([what, all]) => {
      const value = median(all);
      return `${what} ${Math.round(value)} (${(value / median(reference?.get(what) ?? [])).toFixed(2)})`;
    });
    console.log(`  ${name.padEnd(18)} ${cells.join("  ")}`);
  }
}
rmSync(scratch, { recursive: true });
