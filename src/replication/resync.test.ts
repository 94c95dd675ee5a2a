import assert from "node:assert/strict";
import { test } from "node:test";
import type { Replica } from "../replica/replica.ts";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { seeded } from "../replica/testing/random.ts";
import { EIO } from "../util/errno.ts";
import { Resync } from "./resync.ts";
import { randomOperation, twins } from "./testing/history.ts";
import { TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

const seeds = Number(process.env["CHIRON_TEST_RUNS"] ?? 300);
const firstSeed = Number(process.env["CHIRON_TEST_SEED"] ?? 1);

async function resync(volume: TestVolume, index: number): Promise<{ entries: number; bytesWritten: number }> {
  volume.membership.startSync(index);
  const throttle = new Throttle();
  return await new Resync(volume.resyncDeps, index, { throttle, signal: new AbortController().signal }).run();
}

async function rejoined(volume: TestVolume): Promise<void> {
  await volume.settle();
  const [first, ...others] = volume.disks;
  for (const disk of others) assert.deepEqual(describeDisk(disk as MemoryDisk), describeDisk(first as MemoryDisk));
}

test("after any history with one replica out, a resync makes the trees equal", async () => {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const choose = seeded(seed);
    const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
    const done: string[] = [];
    const some = async (): Promise<void> => {
      for (let i = choose(30); i > 0; i--) {
        const operation = randomOperation(choose);
        const result = await volume.run(operation);
        if (result >= 0) done.push(JSON.stringify(operation));
      }
    };
    try {
      await some();
      if (choose(2) === 0) await volume.intents.checkpoint();
      await some();
      done.push("out");
      volume.membership.expel([1]);
      await some();
      done.push("resync");
      await resync(volume, 1);
      done.push("in");
      await rejoined(volume);
      await some();
      await rejoined(volume);
    } catch (error) {
      throw new Error(`Seed ${seed}:\n${done.join("\n")}`, { cause: error });
    }
  }
});

test("directories that a refused removal has marked are told apart when they are renamed then", async () => {
  const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
  for (const operation of twins) assert.ok((await volume.run(operation)) >= 0);
  await volume.settle();
  assert.ok(await volume.intents.checkpoint());
  volume.membership.expel([1]);
  assert.ok((await volume.run({ kind: "rmdir", path: "d" })) < 0);
  assert.ok((await volume.run({ kind: "rename", path: "twin", to: "d" })) < 0);
  assert.ok((await volume.run({ kind: "exchange", path: "d", to: "twin" })) >= 0);
  await resync(volume, 1);
  await rejoined(volume);
});

test("a replica that failed at an exchange of directories, whether it has done it or not, has the right contents afterwards", async () => {
  for (const isDone of [false, true]) {
    for (const isKnown of [false, true]) {
      let fails = false;
      const wrap = (replica: Replica, index: number): Replica =>
        new Proxy(replica, {
          get(target, property) {
            const value: unknown = Reflect.get(target, property);
            if (typeof value !== "function") return value;
            return (...args: unknown[]): unknown => {
              const isFault = fails && index === 1 && property === "rename";
              const result = isFault && !isDone ? 0 : Reflect.apply(value, target, args);
              return isFault ? -EIO : result;
            };
          },
        });
      const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()], { wrap });
      for (const operation of twins) assert.ok((await volume.run(operation)) >= 0);
      await volume.settle();
      if (isKnown) assert.ok(await volume.intents.checkpoint());
      fails = true;
      assert.ok((await volume.run({ kind: "exchange", path: "d", to: "twin" })) >= 0);
      assert.deepEqual(volume.membership.inSync, [0]);
      fails = false;
      await resync(volume, 1);
      await rejoined(volume);
    }
  }
});
