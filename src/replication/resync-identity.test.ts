/**
 * Replicas keep descriptors and handles by the volume's nodes. A resync may give a node another object on the replica that
 * it repairs: from then on changes must go to that one, not to what the node was there before.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LocalReplica } from "../replica/local.ts";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { start } from "../util/op.ts";
import { Resync } from "./resync.ts";
import { type Operation, TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

async function withVolume(use: (volume: TestVolume, trees: readonly string[]) => Promise<void>): Promise<void> {
  const top = mkdtempSync(join(tmpdir(), "chiron-identity-"));
  try {
    const trees = ["a", "b"].map((name) => join(top, name));
    for (const tree of trees) mkdirSync(tree);
    const replicas = trees.map((path, i) => new LocalReplica({ name: `r${i}`, path }));
    for (const replica of replicas) await replica.connect({ signal: new AbortController().signal });
    const wrap = (_: unknown, index: number) => replicas[index] as LocalReplica;
    const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()], { wrap });
    for (const tree of trees) mkdirSync(join(tree, ".chiron/resync")); // looked for in vain, it would cost all descriptors
    await use(volume, trees);
    for (const replica of replicas) await replica.disconnect();
  } finally {
    rmSync(top, { recursive: true, force: true });
  }
}

async function run(volume: TestVolume, ...operations: Operation[]): Promise<void> {
  for (const operation of operations) {
    const result = await volume.run(operation);
    assert.ok(result >= 0, `${JSON.stringify(operation)} answered ${result}`);
  }
}

async function resync(volume: TestVolume): Promise<void> {
  volume.membership.startSync(1);
  const options = { throttle: new Throttle({ sliceMs: 0 }), signal: new AbortController().signal };
  await new Resync(volume.resyncDeps, 1, options).run();
}

const names = (tree: string, path: string): string[] => readdirSync(join(tree, path)).sort();

test("changes in a directory that a resync has made anew go there, not to what has its old name", async () => {
  if (process.getuid?.() !== 0) return;
  await withVolume(async (volume, trees) => {
    await run(volume, { kind: "mkdir", path: "d" }, { kind: "create", path: "d/x" });
    const kept = volume.tree.pin(volume.tree.root, "d"); // as a kernel keeps it
    await run(volume, { kind: "create", path: "d/y" });
    volume.membership.expel([1]);
    await run(volume, { kind: "rename", path: "d", to: "c" }, { kind: "mkdir", path: "d" });
    assert.equal(kept.name, "c");
    await resync(volume);
    await run(volume, { kind: "create", path: "c/z" }, { kind: "rename", path: "c/x", to: "c/w" });
    assert.deepEqual(volume.membership.inSync, [0, 1]);
    for (const tree of trees) {
      assert.deepEqual(names(tree, "c"), ["w", "y", "z"], tree);
      assert.deepEqual(names(tree, "d"), [], tree);
    }
  });
});

test("changes in a directory below one that was made anew go to the right one, too", async () => {
  if (process.getuid?.() !== 0) return;
  await withVolume(async (volume, trees) => {
    await run(volume, { kind: "mkdir", path: "d" }, { kind: "mkdir", path: "d/e" }, { kind: "create", path: "d/e/x" });
    const d = volume.tree.pin(volume.tree.root, "d");
    volume.tree.pin(d, "e");
    await run(volume, { kind: "create", path: "d/e/y" });
    volume.membership.expel([1]);
    await run(volume, { kind: "rename", path: "d", to: "c" });
    await run(volume, { kind: "mkdir", path: "d" }, { kind: "mkdir", path: "d/e" });
    await resync(volume);
    await run(volume, { kind: "create", path: "c/e/z" });
    assert.deepEqual(volume.membership.inSync, [0, 1]);
    for (const tree of trees) assert.deepEqual([names(tree, "c/e"), names(tree, "d/e")], [["x", "y", "z"], []], tree);
  });
});

test("writes to an open file that a resync has made anew go to it, not to what has its old name", async () => {
  if (process.getuid?.() !== 0) return;
  await withVolume(async (volume, trees) => {
    await run(volume, { kind: "create", path: "f" }, { kind: "write", path: "f", at: 0, bytes: 3, fill: 65 });
    const node = volume.tree.pin(volume.tree.root, "f");
    node.type = 0o100000;
    const file = volume.files.use(node);
    assert.equal(await start(volume.files.write(file, Buffer.from("one"), 0)), 3);
    volume.membership.expel([1]);
    await run(volume, { kind: "rename", path: "f", to: "e" }, { kind: "create", path: "f" });
    await resync(volume);
    assert.equal(await start(volume.files.write(file, Buffer.from("two"), 0)), 3);
    await start(volume.files.release(file));
    assert.deepEqual(volume.membership.inSync, [0, 1]);
    for (const tree of trees) {
      assert.equal(readFileSync(join(tree, "e"), "latin1"), "two", tree);
      assert.equal(readFileSync(join(tree, "f"), "latin1"), "", tree);
    }
  });
});
