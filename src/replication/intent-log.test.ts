import assert from "node:assert/strict";
import { test } from "node:test";
import type { Replica } from "../replica/replica.ts";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { start } from "../util/op.ts";
import { readIntents } from "./intent-read.ts";
import { TestVolume } from "./testing/test-volume.ts";

/** Counts calls by name, and answers for the replica where the test says so. */
function watched(replica: Replica, calls: Map<string, number>, answers: Map<string, () => unknown>): Replica {
  return new Proxy(replica, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property);
      if (typeof value !== "function") return value;
      return (...args: unknown[]): unknown => {
        const name = String(property);
        calls.set(name, (calls.get(name) ?? 0) + 1);
        return answers.get(name)?.() ?? Reflect.apply(value, target, args);
      };
    },
  });
}

async function started(capacityBytes = 2 ** 40) {
  const calls = new Map<string, number>();
  const answers = new Map<string, () => unknown>();
  const disks = [new MemoryDisk({ capacityBytes }), new MemoryDisk({ capacityBytes })];
  const volume = await TestVolume.open(disks, {
    wrap: (replica, index) => (index === 1 ? watched(replica, calls, answers) : replica),
  });
  return { volume, calls, answers };
}

async function kinds(volume: TestVolume, index: number): Promise<string[]> {
  const { records, damage } = await readIntents(volume.replica(index));
  assert.equal(damage, null);
  return records.map((record) => ("path" in record ? `${record.kind} /${record.path.join("/")}` : record.kind));
}

test("many new files in a directory cost one intent, and what is covered touches no replica", async () => {
  const { volume, calls } = await started();
  for (let i = 0; i < 50; i++) {
    await volume.run({ kind: "create", path: `f${i}` });
    await volume.run({ kind: "chmod", path: `f${i}`, mode: 0o600 });
  }
  assert.deepEqual(await kinds(volume, 0), ["begin", "entries /"]);
  assert.deepEqual(await kinds(volume, 1), ["begin", "entries /"]);
  const before = [...calls.values()].reduce((a, b) => a + b, 0);
  assert.equal(volume.intents.entries(volume.tree.root), 0);
  assert.equal(
    [...calls.values()].reduce((a, b) => a + b, 0),
    before,
  );
});

test("data that are overwritten in place have an intent of their own, flushed once for many that ask at once", async () => {
  const { volume, calls, answers } = await started();
  for (let i = 0; i < 20; i++) {
    await volume.run({ kind: "create", path: `f${i}` });
    await volume.run({ kind: "write", path: `f${i}`, at: 0, bytes: 10, fill: 1 });
  }
  await volume.intents.checkpoint();
  calls.clear();
  answers.set("fsyncdir", () => new Promise((resolve) => setImmediate(() => resolve(0))));
  const nodes = Array.from({ length: 20 }, (_, i) => volume.tree.pin(volume.tree.root, `f${i}`));
  const covered = nodes.map(async (node) => await volume.intents.data(node));
  assert.ok((await Promise.all(covered)).every((answer) => answer === 0));
  // The first alone, all others together: two directories each.
  assert.equal(calls.get("fsyncdir"), 4);
  assert.equal(
    nodes.every((node) => volume.intents.data(node) === 0),
    true,
  );
  assert.equal(calls.get("fsyncdir"), 4);
});

test("a file that was just cut to nothing needs no flush for what is written then", async () => {
  const { volume, calls } = await started();
  await volume.run({ kind: "create", path: "f" });
  await volume.intents.checkpoint();
  calls.clear();
  const root = volume.tree.root;
  const node = volume.tree.pin(root, "f");
  node.type = 0o100000;
  assert.equal(await volume.run({ kind: "truncate", path: "f", size: 0 }), 0);
  assert.equal(await volume.run({ kind: "write", path: "f", at: 0, bytes: 10, fill: 1 }), 10);
  assert.equal(calls.get("fsyncdir"), undefined);
});

test("a file with several names has its own intent for its attributes, which says so", async () => {
  const { volume } = await started();
  await volume.run({ kind: "create", path: "f" });
  await volume.run({ kind: "link", path: "f", to: "g" });
  await volume.intents.checkpoint();
  await volume.run({ kind: "create", path: "h" }); // covers the directory
  await volume.run({ kind: "chmod", path: "h", mode: 0o600 });
  await volume.run({ kind: "chmod", path: "g", mode: 0o600 });
  const { records } = await readIntents(volume.replica(0));
  const own = records.filter((record) => record.kind === "attributes");
  assert.equal(own.length, 1);
  assert.equal(own[0]?.kind === "attributes" && own[0].severalNames, true);
});

test("a checkpoint clears what was on record, and an idle volume has nothing", async () => {
  const { volume } = await started();
  await volume.run({ kind: "create", path: "f" });
  assert.equal(await volume.intents.checkpoint(), true);
  assert.deepEqual(await kinds(volume, 0), []);
  assert.equal(volume.intents.count, 0);
  assert.ok(volume.disks.every((disk) => disk.atRisk < 10)); // but for the clearing itself
});

test("a replica that cannot take an intent leaves, and the change goes on", async () => {
  const { volume, answers } = await started();
  answers.set("symlink", () => -5);
  assert.equal(await volume.run({ kind: "create", path: "f" }), 0);
  assert.deepEqual(volume.membership.inSync, [0]);
  assert.equal(await volume.intents.checkpoint(), false);
});

test("on a full disk files can still be removed: the spare intent covers everything", async () => {
  const { volume, answers } = await started();
  await volume.run({ kind: "create", path: "f" });
  await volume.intents.checkpoint();
  answers.set("symlink", () => -28);
  answers.set("mkdir", () => -28);
  assert.equal(await volume.run({ kind: "unlink", path: "f" }), 0);
  assert.deepEqual(volume.membership.inSync, [0, 1]);
  assert.deepEqual(await kinds(volume, 1), ["tree /"]);
  assert.equal(volume.intents.data(volume.tree.root), 0);
  answers.clear();
  assert.equal(await volume.intents.checkpoint(), true);
  assert.deepEqual(await kinds(volume, 1), []);
  answers.set("symlink", () => -28);
  answers.set("mkdir", () => -28);
  await volume.run({ kind: "chmod", path: "", mode: 0o700 });
  assert.deepEqual(volume.membership.inSync, [0, 1]);
});

test("what an earlier process recorded is kept until the next checkpoint", async () => {
  const { volume } = await started();
  await volume.run({ kind: "create", path: "f" });
  await start(
    (function* () {
      yield Promise.resolve(volume.intents.recordOut("r7"));
    })(),
  );
  const again = await TestVolume.open(volume.disks);
  assert.ok(again.intents.count >= 3);
  assert.ok(again.intents.generation > volume.intents.generation);
  const since = await again.intents.begunAt();
  assert.notEqual(since(0), null);
  await again.run({ kind: "create", path: "g" });
  assert.equal(await again.intents.checkpoint(), true);
  assert.deepEqual(await kinds(again, 0), []);
});

test("it is known since when a replica may have missed changes, also from one that joined later or after intents were cleared", async () => {
  const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
  await volume.run({ kind: "create", path: "f" });
  const before = (await volume.intents.begunAt())(0);
  assert.ok(before !== null && before.seconds > 0);
  volume.membership.expel([1]);
  await volume.run({ kind: "create", path: "g" });
  assert.equal(await volume.intents.checkpoint({ evenDegraded: true }), true);
  await volume.run({ kind: "create", path: "h" });
  assert.deepEqual((await volume.intents.begunAt())(0), before);
  volume.membership.admit(1);
  assert.deepEqual((await volume.intents.begunAt())(1), { seconds: 0, nsec: 0 });
  assert.equal(await volume.intents.checkpoint(), true);
  assert.equal((await volume.intents.begunAt())(0), null);
});

test("where metadata persist in any order, each intent is flushed before its change is sent", async () => {
  for (const isOrdered of [true, false]) {
    const order: string[] = [];
    const wrap = (replica: Replica): Replica =>
      new Proxy(replica, {
        get(target, property) {
          const value: unknown = Reflect.get(target, property);
          if (typeof value !== "function") return value;
          return (...args: unknown[]): unknown => {
            if (["symlink", "fsyncdir", "create", "setattr", "rename"].includes(String(property))) {
              order.push(String(property));
            }
            return Reflect.apply(value, target, args);
          };
        },
      });
    const volume = await TestVolume.open([new MemoryDisk()], { wrap, intents: { isOrdered: () => isOrdered } });
    await volume.run({ kind: "mkdir", path: "d" });
    await volume.settle();
    assert.ok(await volume.intents.checkpoint());
    for (const operation of [
      { kind: "create", path: "d/f" },
      { kind: "rename", path: "d", to: "e" },
    ] as const) {
      order.length = 0;
      assert.ok((await volume.run(operation)) >= 0);
      const change = order.indexOf(operation.kind);
      const [intent, flush] = [order.lastIndexOf("symlink", change), order.lastIndexOf("fsyncdir", change)];
      assert.ok(intent >= 0, `${operation.kind}: ${order.join()}`);
      assert.equal(flush > intent, !isOrdered, `${operation.kind}: ${order.join()}`);
    }
  }
});
