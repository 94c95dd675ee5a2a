import assert from "node:assert/strict";
import { test } from "node:test";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { seeded } from "../replica/testing/random.ts";
import { Resync, type ResyncResult } from "./resync.ts";
import { type Operation, TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";
import type { TreeNode } from "./tree.ts";

const megabyte = 1024 * 1024;

async function resync(volume: TestVolume, bytesPerSecond: number | null = null): Promise<ResyncResult> {
  volume.membership.startSync(1);
  const options = { throttle: new Throttle({ bytesPerSecond }), signal: new AbortController().signal };
  const result = await new Resync(volume.resyncDeps, 1, options).run();
  await volume.settle();
  assert.deepEqual(describeDisk(volume.disks[1] as MemoryDisk), describeDisk(volume.disks[0] as MemoryDisk));
  return result;
}

/** A volume with these objects on stable storage on both, and one replica out since. */
async function oneOut(...before: readonly Operation[]): Promise<TestVolume> {
  const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
  for (const operation of before) assert.ok((await volume.run(operation)) >= 0);
  await volume.settle();
  assert.ok(await volume.intents.checkpoint());
  volume.membership.expel([1]);
  return volume;
}

test("a resync writes no more than the bytes that were changed", async () => {
  const volume = await oneOut(
    { kind: "create", path: "big" },
    { kind: "write", path: "big", at: 0, bytes: 16 * megabyte, fill: 1 },
  );
  const choose = seeded(3);
  let changed = 0;
  for (let i = 0; i < 200; i++) {
    const bytes = 1 + choose(20_000);
    await volume.run({ kind: "write", path: "big", at: choose(16 * megabyte), bytes, fill: 2 + choose(200) });
    changed += bytes;
  }
  const { bytesWritten } = await resync(volume);
  assert.ok(bytesWritten <= 1.1 * changed, `${bytesWritten} of ${changed}`);
});

test("where only the file is known, blocks are compared first", async () => {
  const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
  await volume.run({ kind: "create", path: "big" });
  await volume.run({ kind: "write", path: "big", at: 0, bytes: 8 * megabyte, fill: 1 });
  volume.membership.expel([1]); // before any checkpoint: it may have lost anything of the file
  await volume.run({ kind: "write", path: "big", at: megabyte, bytes: 4096, fill: 2 });
  assert.equal((await resync(volume)).bytesWritten, 4096);
});

test("what was renamed is renamed, not copied", async () => {
  const volume = await oneOut(
    { kind: "mkdir", path: "d" },
    { kind: "create", path: "d/big" },
    { kind: "write", path: "d/big", at: 0, bytes: 4 * megabyte, fill: 1 },
    { kind: "create", path: "other" },
    { kind: "write", path: "other", at: 0, bytes: megabyte, fill: 2 },
  );
  for (const operation of [
    { kind: "mkdir", path: "e" },
    { kind: "rename", path: "d", to: "e/d" },
    { kind: "rename", path: "e/d/big", to: "big" },
    { kind: "exchange", path: "big", to: "other" },
    { kind: "rename", path: "big", to: "e/small" },
    { kind: "mkdir", path: "d" },
    { kind: "write", path: "other", at: 5000, bytes: 10, fill: 3 },
  ] as const) {
    assert.ok((await volume.run(operation)) >= 0);
  }
  assert.equal((await resync(volume)).bytesWritten, 10);
});

test("another name of a file is a link, not a copy", async () => {
  const volume = await oneOut(
    { kind: "create", path: "big" },
    { kind: "write", path: "big", at: 0, bytes: megabyte, fill: 1 },
    { kind: "mkdir", path: "d" },
  );
  await volume.run({ kind: "link", path: "big", to: "d/same" });
  assert.equal((await resync(volume)).bytesWritten, 0);
});

test("a sparse file stays sparse", async () => {
  const volume = await oneOut({ kind: "create", path: "sparse" });
  await volume.run({ kind: "truncate", path: "sparse", size: 1024 * megabyte });
  await volume.run({ kind: "write", path: "sparse", at: 512 * megabyte, bytes: 5000, fill: 1 });
  assert.ok((await resync(volume)).bytesWritten <= 8192);
});

test("a full resync of equal trees writes nothing", async () => {
  const volume = await oneOut(
    { kind: "mkdir", path: "d" },
    { kind: "create", path: "d/f" },
    { kind: "write", path: "d/f", at: 0, bytes: megabyte, fill: 1 },
    { kind: "link", path: "d/f", to: "g" },
    { kind: "symlink", path: "s", target: "x" },
  );
  volume.missed.forgetAll(1);
  const { bytesWritten } = await resync(volume);
  assert.equal(bytesWritten, 0);
});

test("a resync keeps to its bandwidth", async () => {
  const slept: number[] = [];
  const volume = await oneOut({ kind: "create", path: "f" });
  await volume.run({ kind: "write", path: "f", at: 0, bytes: 4 * megabyte, fill: 1 });
  let nowMs = 0;
  const throttle = new Throttle({
    bytesPerSecond: megabyte,
    nowMs: () => nowMs,
    sleep: async (ms) => {
      slept.push(ms);
      nowMs += ms;
    },
  });
  volume.membership.startSync(1);
  await new Resync(volume.resyncDeps, 1, { throttle, signal: new AbortController().signal }).run();
  assert.ok(nowMs >= 3_900 && nowMs <= 4_100, `${nowMs} ms`);
});

test("a full resync keeps no more in memory than the names of the directories on its way", async () => {
  const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
  volume.membership.expel([1]);
  volume.missed.forgetAll(1);
  const [directories, files] = [20, 100];
  for (let d = 0; d < directories; d++) {
    await volume.run({ kind: "mkdir", path: `d${d}` });
    for (let f = 0; f < files; f++) await volume.run({ kind: "create", path: `d${d}/f${f}` });
  }
  await volume.settle();
  let [marks, nodes] = [0, 0];
  const count = (node: TreeNode): number =>
    1 + [...(node.children?.values() ?? [])].reduce((sum, child) => sum + count(child), 0);
  class Watched extends Throttle {
    override pace(bytes: number, signal: AbortSignal): Promise<void> {
      marks = Math.max(marks, volume.missed.of(1)?.size ?? 0);
      nodes = Math.max(nodes, count(volume.tree.root));
      return super.pace(bytes, signal);
    }
  }
  volume.membership.startSync(1);
  const options = { throttle: new Watched({ sliceMs: 0 }), signal: new AbortController().signal };
  const { entries } = await new Resync(volume.resyncDeps, 1, options).run();
  assert.ok(entries >= directories * files, `${entries} entries`);
  assert.ok(marks < 20 && nodes < 20, `${marks} marks, ${nodes} nodes`);
  assert.deepEqual(describeDisk(volume.disks[1] as MemoryDisk), describeDisk(volume.disks[0] as MemoryDisk));
});
