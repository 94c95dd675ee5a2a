/**
 * What waits beside something slow, on a volume of two replicas and on a plain directory next to it: readers of a cold
 * ext4 (each on a loop device, caches dropped), `stat` while another process calls fsync, and how long operations take
 * while a replica is brought up to date. As root; prints "what name value unit" lines.
 *
 *     node bench/beside.ts [--base /var/tmp] [--files 20000] [--megabytes 512] [--readers 16]
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    base: { type: "string", default: "/var/tmp" },
    files: { type: "string", default: "20000" },
    megabytes: { type: "string", default: "512" },
    readers: { type: "string", default: "16" },
  },
});
const { files, megabytes, readers } = values;
const base = mkdtempSync(join(values.base, "chiron-beside-"));
const beside = join(base, "beside");
const chiron = join(import.meta.dirname, "../bin/chiron");
const mountpoint = join(base, "mnt");
const names = ["a", "b"] as const;

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8" });
}

function measure(what: string, ...args: string[]): void {
  for (const line of run(beside, ...args)
    .trim()
    .split("\n"))
    console.log(`${what}: ${line}`);
}

run("cc", "-O2", "-o", beside, join(import.meta.dirname, "beside.c"));
const mounts: string[] = [];
try {
  for (const name of names) {
    const image = join(base, `${name}.img`);
    const directory = join(base, name);
    mkdirSync(directory);
    run("truncate", "-s", `${Number(megabytes) * 4 + 1024}M`, image);
    run("mkfs.ext4", "-qF", "-E", "lazy_itable_init=0,lazy_journal_init=0", image);
    run("mount", "-o", "loop", image, directory);
    mounts.push(directory);
    mkdirSync(join(directory, "replica"));
  }
  const plain = join(base, "a/plain");
  mkdirSync(plain);
  mkdirSync(mountpoint);
  const replicas = names.flatMap((name) => ["--replica", `${name}=${join(base, name, "replica")}`]);
  run(chiron, "mount", "--volume", "bench-beside", ...replicas, mountpoint);
  mounts.push(mountpoint);

  for (const directory of [plain, mountpoint]) {
    const what = directory === plain ? "plain directory" : "volume";
    run(beside, "make", directory, files, megabytes);
    measure(`${what}, ${readers} readers of cold files`, "files", directory, files, readers);
    measure(`${what}, ${readers} readers of cold blocks`, "blocks", directory, megabytes, readers);
    measure(`${what}, nothing beside`, "stat", directory, files);
    measure(`${what}, beside fsync`, "stat", directory, files, "fsync");
  }

  measure("volume, nothing beside", "mix", mountpoint, "5");
  run(chiron, "replica", "disable", mountpoint, "b");
  const more = join(mountpoint, "more");
  mkdirSync(more);
  run(beside, "make", more, files, megabytes);
  run(chiron, "replica", "enable", mountpoint, "b");
  await sleep(300);
  measure("volume, beside a resync", "mix", mountpoint, "5");
} finally {
  for (const mount of mounts.reverse()) {
    if (mount === mountpoint) run(chiron, "unmount", mount);
    else run("umount", mount);
  }
  rmSync(base, { recursive: true, force: true });
}
