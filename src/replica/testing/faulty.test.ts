import assert from "node:assert/strict";
import { test } from "node:test";
import { EIO, ENOSPC, ENOTCONN, EROFS, ESTALE } from "../../util/errno.ts";
import { replicaContract } from "./contract.ts";
import { type Fault, type FaultyOptions, FaultyReplica } from "./faulty.ts";
import { MemoryReplica } from "./memory.ts";
import { describeDisk, MemoryDisk } from "./memory-disk.ts";
import { seeded } from "./random.ts";
import { bytes, ok, Place, root } from "./subject.ts";
import { tamper } from "./tamper.ts";

for (const async of [false, true]) {
  replicaContract(`faulty without faults${async ? ", answering later" : ""}`, async () => {
    const disk = new MemoryDisk();
    const inner = new MemoryReplica(disk);
    return {
      replica: new FaultyReplica(inner, [], { async, seed: 7 }),
      another: () => new MemoryReplica(disk),
      vanish: () => {
        inner.disk = null;
      },
      dispose: () => {},
    };
  });
}

const signal = new AbortController().signal;
const top = new Place(null, "");

async function started(plan: Fault[] = [], options: FaultyOptions = {}) {
  const disk = new MemoryDisk();
  const replica = new FaultyReplica(new MemoryReplica(disk), plan, options);
  await replica.connect({ signal });
  return { disk, replica };
}

function mkdir(replica: FaultyReplica, name: string) {
  return replica.mkdir(top, name, 0o755, root, null);
}

test("the n-th call of a kind fails, and only that", async () => {
  const { replica } = await started([
    { on: "mkdir", after: 2, times: 1, effect: { kind: "errno", errno: EIO } },
    { on: ["rmdir", "unlink"], effect: { kind: "errno", errno: ESTALE } },
  ]);
  assert.deepEqual(
    ["a", "b", "c", "c"].map((name) => mkdir(replica, name)),
    [0, 0, -EIO, 0],
  );
  assert.equal(replica.rmdir(top, "a"), -ESTALE);
  replica.heal();
  assert.equal(replica.rmdir(top, "a"), 0);
});

test("an error may hide that the change was made", async () => {
  const { disk, replica } = await started([{ effect: { kind: "errno", errno: EIO, applied: true } }]);
  assert.equal(mkdir(replica, "a"), -EIO);
  assert.ok(disk.image.get(1)?.entries?.has("a"));
});

test("a short write leaves a part and answers an error", async () => {
  const { replica } = await started();
  const handle = await ok(replica.create(top, "f", 0o644, root, null));
  replica.inject({ on: "write", effect: { kind: "short" }, times: 1 });
  assert.equal(replica.write(handle, bytes("x".repeat(1000)), 0), -EIO);
  const into = new Uint8Array(2000);
  assert.ok((await ok(replica.read(handle, into, 0))) < 1000);
});

test("after so many bytes there is no space, and a read-only replica is only read", async () => {
  const { replica } = await started();
  const handle = await ok(replica.create(top, "f", 0o644, root, null));
  replica.limitSpace(10);
  assert.equal(replica.write(handle, bytes("12345678"), 0), 8);
  assert.equal(replica.write(handle, bytes("12345678"), 8), -ENOSPC);
  assert.equal(replica.read(handle, new Uint8Array(100), 0), 10);
  replica.heal();
  replica.makeReadOnly();
  assert.equal(replica.write(handle, bytes("x"), 0), -EROFS);
  assert.equal(mkdir(replica, "a"), -EROFS);
  assert.equal(replica.read(handle, new Uint8Array(100), 0), 10);
});

test("a hung call takes effect when it is released, or never, and disconnect() waits for it", async () => {
  const { disk, replica } = await started([
    { on: "mkdir", times: 1, effect: { kind: "hang", late: "applied" } },
    { on: "mkdir", times: 1, effect: { kind: "hang", late: "never" } },
  ]);
  const applied = mkdir(replica, "late");
  const never = mkdir(replica, "never");
  assert.equal(mkdir(replica, "at-once"), 0);
  assert.deepEqual(replica.hanging, ["mkdir", "mkdir"]);
  let disconnected = false;
  const disconnecting = replica.disconnect().then(() => {
    disconnected = true;
  });
  assert.equal(mkdir(replica, "after"), -ENOTCONN);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(disconnected, false);
  await assert.rejects(replica.connect({ signal }), /may still take effect/);
  replica.release();
  assert.deepEqual(await Promise.all([applied, never]), [0, -ENOTCONN]);
  await disconnecting;
  assert.deepEqual([...(disk.image.get(1)?.entries?.keys() ?? [])], ["at-once", "late"]);
  await replica.connect({ signal });
  assert.equal(mkdir(replica, "again"), 0);
});

test("the same seed draws the same faults", async () => {
  const run = async (seed: number) => {
    const { replica } = await started([{ oneIn: 3, effect: { kind: "errno", errno: EIO } }], { seed });
    return Array.from({ length: 40 }, (_, i) => mkdir(replica, `${i}`)).join();
  };
  assert.equal(await run(5), await run(5));
  assert.notEqual(await run(5), await run(6));
});

test("tamper() changes something, and says what", async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const { disk, replica } = await started();
    await ok(mkdir(replica, "d"));
    await ok(mkdir(replica, ".chiron"));
    await ok(replica.close(await ok(replica.create(top.child("d"), "f", 0o644, root, null))));
    await ok(replica.close(await ok(replica.create(top, "g", 0o644, root, null))));
    const before = describeDisk(disk);
    const done = await tamper(replica, seeded(seed));
    assert.notEqual(done, null);
    assert.notDeepEqual(describeDisk(disk), before, `seed ${seed}: ${done}`);
  }
});
