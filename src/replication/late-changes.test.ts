import assert from "node:assert/strict";
import { test } from "node:test";
import type { LateCall, Replica } from "../replica/replica.ts";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { FileAttr } from "../util/file-attr.ts";
import { silentLogger } from "../util/logger.ts";
import { LateChanges } from "./late-changes.ts";
import { Resync } from "./resync.ts";
import { TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

const looksMs = [20, 60, 100];

/** Two replicas in memory, the second of which has calls that had no answer. */
async function open(late: LateCall[]) {
  const disks = [new MemoryDisk(), new MemoryDisk()];
  const wrap = (replica: Replica, index: number): Replica => {
    if (index === 1) {
      Object.defineProperty(replica, "lateCalls", { get: () => late });
      Object.defineProperty(replica, "settleLateCalls", {
        value: (calls: readonly LateCall[]) => {
          for (const call of calls) late.splice(late.indexOf(call), 1);
        },
      });
    }
    return replica;
  };
  const volume = await TestVolume.open(disks, { wrap });
  const { tree, membership, missed, fanOut } = volume;
  const changes = new LateChanges(
    {
      tree,
      membership,
      missed,
      replica: (index) => volume.replica(index),
      barrier: (act) => fanOut.barrier(act),
      equalizeTimes: (node) => volume.times.note(node),
      log: silentLogger,
    },
    looksMs,
  );
  const resync = async () => {
    changes.mark(1);
    membership.startSync(1);
    const throttle = new Throttle({ sliceMs: 0 });
    await new Resync(volume.resyncDeps, 1, { throttle, signal: new AbortController().signal }).run();
    membership.syncing = [];
    changes.joined(1);
    await volume.settle();
  };
  const isEqual = () => assert.deepEqual(describeDisk(disks[1] as MemoryDisk), describeDisk(disks[0] as MemoryDisk));
  return { volume, changes, resync, isEqual };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 1_000) assert.fail("that does not happen");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const top = { parent: null, name: "" };

test("a creation, a removal and a rename that happen after the replica came in are found and repaired", async () => {
  const happenings: readonly ((replica: Replica) => number | Promise<number>)[] = [
    (replica) => replica.mkdir(top, "a", 0o755, { uid: 0, gid: 0 }, null),
    (replica) => replica.unlink(top, "b"),
    (replica) => replica.rename(top, "b", top, "a", 0),
    (replica) => replica.setattr({ parent: top, name: "c" }, -1, { mode: 0o4711 }, new FileAttr()),
  ];
  for (const happen of happenings) {
    const late: LateCall[] = [];
    const { volume, changes, resync, isEqual } = await open(late);
    for (const path of ["b", "c"]) assert.ok((await volume.run({ kind: "create", path })) >= 0);
    late.push({ kind: "entry", directory: top, name: "a" }, { kind: "entry", directory: top, name: "b" });
    late.push({ kind: "attributes", object: { parent: top, name: "c" } });
    volume.membership.expel([1]);
    await resync();
    isEqual();
    assert.ok((await happen(volume.replica(1))) >= 0);
    await until(() => !volume.membership.inSync.includes(1));
    await resync();
    isEqual();
    assert.deepEqual(volume.membership.inSync, [0, 1]);
    await until(() => late.length === 0);
    assert.deepEqual(volume.membership.inSync, [0, 1]);
    changes.stop();
  }
});

test("what a late call may change is found where it has been renamed to meanwhile", async () => {
  const late: LateCall[] = [];
  const { volume, changes, resync, isEqual } = await open(late);
  assert.ok((await volume.run({ kind: "mkdir", path: "d" })) >= 0);
  late.push({ kind: "entry", directory: { parent: top, name: "d" }, name: "x" });
  volume.membership.expel([1]);
  await resync();
  assert.ok((await volume.run({ kind: "rename", path: "d", to: "e" })) >= 0);
  await volume.settle();
  assert.ok((await volume.replica(1).mkdir({ parent: top, name: "e" }, "x", 0o700, { uid: 0, gid: 0 }, null)) >= 0);
  await until(() => !volume.membership.inSync.includes(1));
  await resync();
  isEqual();
  changes.stop();
});
