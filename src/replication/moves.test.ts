import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { type Choose, seeded } from "../replica/testing/random.ts";
import { FileAttr } from "../util/file-attr.ts";
import { start } from "../util/op.ts";
import { Moves } from "./moves.ts";
import { late } from "./testing/late.ts";
import { TestVolume } from "./testing/test-volume.ts";
import type { TreeNode } from "./tree.ts";

const runs = Number(process.env["CHIRON_TEST_RUNS"] ?? 60);
const firstSeed = Number(process.env["CHIRON_TEST_SEED"] ?? 1);
const noMemo = { load: () => null, save: () => {} };
const root = { parent: null, name: "" };

function path(...names: string[]): { readonly parent: typeof root | null; readonly name: string } {
  return names.reduce<{ parent: typeof root | null; name: string }>(
    (parent, name) => ({ parent: parent as typeof root, name }),
    root,
  );
}

test("a move waits for calls by its names and below them, holds those that come, and lets all others go", async () => {
  const moves = new Moves();
  const [below, beside] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  moves.note(path("d", "e", "f"), null, below.promise);
  moves.note(path("d", "other"), null, beside.promise);
  let begun: Disposable | null = null;
  const beginning = Promise.resolve(start(moves.begin([{ parent: path("d"), name: "e" }]))).then((move) => {
    begun = move;
  });
  await turn();
  assert.equal(begun, null);
  assert.notEqual(moves.over(path("d", "e")), null);
  assert.notEqual(moves.over(path("d", "e", "x", "y")), null);
  for (const free of [root, path("d"), path("d", "other"), path("e"), path("e", "e"), path("x", "e", "f")]) {
    assert.equal(moves.over(free), null);
  }
  below.resolve();
  await beginning;
  let ended = false;
  void moves.over(path("d", "e"))?.ended.then(() => {
    ended = true;
  });
  await turn();
  assert.equal(ended, false);
  (begun as unknown as Disposable)[Symbol.dispose]();
  await turn();
  assert.equal(ended, true);
  assert.equal(moves.isActive, false);
  assert.equal(moves.underWay, 1);
  beside.resolve();
  await turn();
  assert.equal(moves.underWay, 0);
});

/** A directory of the tree, pinned, as a kernel holds those that it knows. */
async function directory(volume: TestVolume, parent: TreeNode, name: string): Promise<TreeNode> {
  const attr = new FileAttr();
  assert.ok((await start(volume.names.mkdir(parent, name, 0o755, { uid: 0, gid: 0 }, false, attr))) >= 0);
  const node = volume.tree.pin(parent, name);
  node.type = 0o040000;
  return node;
}

/** What applications do in a directory that they stand in, whatever its name is: nothing of it may fail. */
async function workIn(volume: TestVolume, node: TreeNode, own: string, steps: number, choose: Choose): Promise<void> {
  const { names, attributes, files, tree } = volume;
  const attr = new FileAttr();
  const ok = (what: string, result: number): void => assert.ok(result >= 0, `${what} answered ${result}`);
  for (let step = 0; step < steps; step++) {
    const name = `${own}${step}`;
    const file = await start(names.create(node, name, 0o644, { uid: 0, gid: 0 }, false, attr));
    assert.ok(typeof file !== "number", `create answered ${String(file)}`);
    files.adopt(file);
    ok("write", await start(files.write(file, Buffer.alloc(1 + choose(5000), step), 0)));
    await start(files.release(file));
    ok("getattr", await start(attributes.getattr(file.node, new FileAttr())));
    ok("lookup", await start(names.lookup(node, name, attr)));
    ok("chmod", await start(attributes.setattr(file.node, { mode: 0o600 + choose(0o77) }, new FileAttr())));
    ok("setxattr", await start(attributes.setxattr(file.node, "user.x", Buffer.from(name), 0, false)));
    ok("readdir", await start(names.readdir(node, { names: [], types: [], inos: [] })));
    const again = files.use(file.node);
    ok("read", await start(files.read(again, new Uint8Array(10), 0)));
    await start(files.release(again));
    if (choose(2) === 0) {
      ok("rename", await start(names.rename(node, name, node, `${name}-moved`, 0, false, noMemo)));
      if (choose(2) === 0) ok("unlink", await start(names.unlink(node, `${name}-moved`, false)));
    }
    tree.unpin(file.node);
    if (choose(4) === 0) await turn();
  }
}

test("directories are renamed while applications work below them: nothing fails, and no replica is expelled", async () => {
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    const choose = seeded(seed);
    const disks = [new MemoryDisk(), new MemoryDisk(), new MemoryDisk()].slice(0, 2 + choose(2));
    const isLate = disks.map((_, i) => i > 0 || choose(2) === 0);
    const volume = await TestVolume.open(disks, {
      wrap: (replica, i) => (isLate[i] === true ? late(replica, choose) : replica),
    });
    const expelled: number[] = [];
    const { onExpelled } = volume.membership;
    volume.membership.onExpelled = (replica) => {
      expelled.push(replica);
      onExpelled(replica);
    };
    const { tree, names } = volume;
    const top = await directory(volume, tree.root, "top");
    const other = await directory(volume, tree.root, "other");
    const middle = await directory(volume, top, "middle");
    const deep = await directory(volume, middle, "deep");
    const twin = await directory(volume, top, "twin");
    const inTwin = await directory(volume, twin, "deep");
    let busy = true;
    // What the kernel allows: renames between directories come one after the other.
    const mover = async (): Promise<void> => {
      while (busy) {
        const home = middle.parent as TreeNode;
        const to = choose(2) === 0 ? top : other;
        const what = choose(5);
        let result = 0;
        if (what === 0)
          result = await start(names.rename(tree.root, top.name, tree.root, `top${choose(99)}`, 0, false, noMemo));
        else if (what === 1) {
          // Each is where the other one was a moment ago, with the same names below.
          result = await start(names.rename(home, middle.name, twin.parent as TreeNode, twin.name, 2, false, noMemo));
        } else result = await start(names.rename(home, middle.name, to, `middle${choose(99)}`, 1, false, noMemo));
        assert.ok(result >= 0 || result === -17, `rename answered ${result}`);
        for (let i = choose(3); i >= 0; i--) await turn();
      }
    };
    const moving = mover();
    const works = [
      workIn(volume, deep, "a", 6, choose),
      workIn(volume, deep, "b", 6, choose),
      workIn(volume, inTwin, "a", 6, choose),
      workIn(volume, middle, "c", 6, choose),
    ];
    try {
      await Promise.all(works).finally(() => {
        busy = false;
      });
      await moving;
      assert.deepEqual(expelled, []);
      await volume.settle();
      for (const disk of disks.slice(1)) assert.deepEqual(describeDisk(disk), describeDisk(disks[0] as MemoryDisk));
    } catch (error) {
      throw new Error(`Seed ${seed}`, { cause: error });
    }
  }
});
