import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { Replica } from "../replica/replica.ts";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { seeded } from "../replica/testing/random.ts";
import { loadDirtySet, saveDirtySet } from "./dirty-saved.ts";
import type { DirtySet } from "./dirty-set.ts";
import { Resync } from "./resync.ts";
import { randomOperation, swap, twins } from "./testing/history.ts";
import { late } from "./testing/late.ts";
import { TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

const runs = Number(process.env["CHIRON_TEST_RUNS"] ?? 150);
const firstSeed = Number(process.env["CHIRON_TEST_SEED"] ?? 1);

test("a resync beside changes ends with equal trees, whatever it is interrupted by", async () => {
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    const choose = seeded(seed);
    const isLate = choose(2) === 0;
    const hasTwins = choose(2) === 0;
    const disks = [new MemoryDisk(), new MemoryDisk()];
    const wrap = (replica: Replica) => (isLate ? late(replica, choose) : replica);
    const volume = await TestVolume.open(disks, { wrap });
    const done: string[] = [];
    const one = async (): Promise<void> => {
      const operation = hasTwins && choose(2) === 0 ? swap(choose) : randomOperation(choose);
      const result = await volume.run(operation);
      if (result >= 0) done.push(JSON.stringify(operation));
    };
    const some = async (): Promise<void> => {
      for (let i = choose(25); i > 0; i--) await one();
    };
    try {
      if (hasTwins) for (const operation of twins) assert.ok((await volume.run(operation)) >= 0);
      await some();
      if (choose(2) === 0) {
        await volume.intents.checkpoint();
        done.push("checkpoint");
      }
      await some();
      done.push("out");
      volume.membership.expel([1]);
      const isUnknown = choose(4) === 0;
      if (isUnknown) volume.missed.forgetAll(1);
      await some();
      for (let attempt = 0; !volume.membership.inSync.includes(1); attempt++) {
        done.push("resync");
        const abort = new AbortController();
        volume.membership.startSync(1);
        const throttle = new Throttle({ sliceMs: 0 });
        const resync = new Resync(volume.resyncDeps, 1, { throttle, signal: abort.signal, contents: isUnknown });
        let ended = false;
        const running = resync.run().then(
          () => done.push("in"),
          (error: unknown) => {
            if (!abort.signal.aborted) throw error;
            done.push("stopped");
          },
        );
        const tracked = running.finally(() => {
          ended = true;
        });
        tracked.catch(() => {});
        const stopAfter = attempt < 2 && choose(3) === 0 ? choose(15) : 1000;
        for (let i = choose(40); i > 0 && !ended; i--) {
          if (i === stopAfter) abort.abort();
          if (choose(2) === 0) await one();
          for (let k = choose(6); k > 0; k--) await turn();
        }
        await tracked;
        volume.membership.syncing = [];
        if (choose(3) === 0 && !volume.membership.inSync.includes(1)) {
          // A process that goes on from what was saved.
          const set = loadDirtySet(saveDirtySet(volume.missed.of(1) as DirtySet));
          assert.ok(set !== null);
          volume.missed.end(1);
          volume.missed.begin(1, { kind: "saved", set });
        }
      }
      await some();
      await volume.settle();
      assert.deepEqual(describeDisk(disks[1] as MemoryDisk), describeDisk(disks[0] as MemoryDisk));
    } catch (error) {
      throw new Error(`Seed ${seed}:\n${done.join("\n")}`, { cause: error });
    }
  }
});
