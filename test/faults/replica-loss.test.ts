/** A replica goes away under a workload, in every way that a machine without device mapper can make it, and returns. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, run } from "./harness.ts";

test("a file system that is unmounted under the volume is left behind, nothing is written into what is below, and it comes back", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "tmpfs");
  const b = bench.fileSystem("b", "ext4");
  bench.mount("--replica", `a=${a}`, "--replica", `b=${b}`);
  const work = bench.workload(8);
  await sleep(1500);
  run("umount", "-l", b);
  await bench.until("degraded", (status) => status.replicas[1]?.state !== "InSync");
  await sleep(1500);
  assert.deepEqual(readdirSync(b), [], "something was written into the empty directory");
  run("mount", "-o", "loop", `${b}.img`, b);
  await work.done;
  await bench.healthy();
  bench.compare(a, b);
});

test("a file system that shuts down under the volume is left behind, and comes back", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "tmpfs");
  const b = bench.fileSystem("b", "ext4");
  bench.mount("--replica", `b=${b}`, "--replica", `a=${a}`);
  const work = bench.workload(8);
  await sleep(1500);
  run("python3", join(import.meta.dirname, "shutdown.py"), b);
  await bench.until("degraded", (status) => status.replicas[0]?.state !== "InSync");
  run("umount", "-l", b);
  run("mount", "-o", "loop", `${b}.img`, b);
  await work.done;
  await bench.healthy();
  bench.compare(a, b);
});

test("what is removed and altered behind the volume's back does not reach applications, and is repaired by a resync", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "tmpfs");
  const b = bench.fileSystem("b", "tmpfs");
  bench.mount("--replica", `a=${a}`, "--replica", `b=${b}`);
  const work = bench.workload(8);
  for (let i = 0; i < 100 && spawnSync("sh", ["-c", `test $(ls ${b}/work-0/tree | wc -l) -gt 10`]).status !== 0; i++) {
    await sleep(100);
  }
  run("sh", "-c", `rm -rf ${b}/work-0/tree/*`);
  await work.done;
  await bench.healthy();
  assert.match(bench.lastLog(), /Diverged/);
  await bench.healthy();
  bench.compare(a, b);
});

test("a full replica: writes are refused with ENOSPC on all, and replicas stay alike", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "tmpfs", 200);
  const b = bench.fileSystem("b", "tmpfs", 64);
  bench.mount("--replica", `a=${a}`, "--replica", `b=${b}`);
  const { status, stderr } = spawnSync("dd", ["if=/dev/zero", `of=${bench.mountpoint}/big`, "bs=1M", "count=100"], {
    encoding: "utf8",
  });
  assert.notEqual(status, 0);
  assert.match(stderr, /No space left/);
  run("rm", join(bench.mountpoint, "big"));
  run("sh", "-c", `echo fits > ${bench.mountpoint}/small`);
  await bench.healthy();
  bench.compare(a, b);
});

test("both replicas are lost one after the other: the one that missed something is not trusted", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "ext4");
  const b = bench.fileSystem("b", "ext4");
  bench.mount("--replica", `a=${a}`, "--replica", `b=${b}`);
  run("sh", "-c", `echo one > ${bench.mountpoint}/file`);
  run("umount", "-l", b);
  await bench.until("degraded", (status) => status.replicas[1]?.state !== "InSync");
  run("sh", "-c", `echo two > ${bench.mountpoint}/file`);
  bench.unmount();
  run("umount", a);
  run("mount", "-o", "loop", `${b}.img`, b);
  const refused = bench.chiron("mount", "--replica", `a=${a}`, "--replica", `b=${b}`, bench.mountpoint);
  assert.notEqual(refused.status, 0, "it mounted a stale replica");
  assert.match(refused.stderr, /"a"/);
  run("mount", "-o", "loop", `${a}.img`, a);
  bench.mount("--replica", `a=${a}`, "--replica", `b=${b}`);
  assert.equal(run("cat", join(bench.mountpoint, "file")), "two\n");
  await bench.healthy();
  bench.compare(a, b);
  writeFileSync(join(bench.directory, "done"), "");
});
