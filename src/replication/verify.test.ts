import assert from "node:assert/strict";
import { test } from "node:test";
import type { Replica } from "../replica/replica.ts";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { seeded } from "../replica/testing/random.ts";
import type { DirtySet } from "./dirty-set.ts";
import { Resync } from "./resync.ts";
import { randomOperation } from "./testing/history.ts";
import { TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";
import { Verify, type VerifyResult } from "./verify.ts";

const root = { parent: null, name: "" };
const owner = { uid: 1000, gid: 1000 };

async function verify(volume: TestVolume, repair = false): Promise<VerifyResult> {
  const { tree, locks, membership, missed } = volume;
  const wrong: number[] = [];
  const deps = {
    tree,
    locks,
    replica: (index: number) => volume.replica(index),
    inSync: () => membership.inSync,
    settle: () => volume.settle(),
    repair: async (index: number, set: DirtySet) => {
      membership.onExpelled = () => {};
      missed.begin(index, { kind: "saved", set });
      membership.expel([index]);
      wrong.push(index);
    },
  };
  const options = { throttle: new Throttle({ sliceMs: 0 }), signal: new AbortController().signal, repair };
  const result = await new Verify(deps, options).run();
  for (const index of wrong) {
    membership.startSync(index);
    await new Resync(volume.resyncDeps, index, options).run();
  }
  return result;
}

async function started(count: number): Promise<TestVolume> {
  const disks = Array.from({ length: count }, () => new MemoryDisk());
  const volume = await TestVolume.open(disks);
  for (const operation of [
    { kind: "mkdir", path: "d" },
    { kind: "create", path: "d/f" },
    { kind: "write", path: "d/f", at: 0, bytes: 10_000, fill: 1 },
    { kind: "link", path: "d/f", to: "linked" },
    { kind: "create", path: "g" },
    { kind: "symlink", path: "s", target: "d/f" },
  ] as const) {
    await volume.run(operation);
  }
  return volume;
}

/** Changes a replica behind the volume's back, in one way each. */
const damages: Readonly<Record<string, (replica: Replica) => unknown>> = {
  missing: (replica) => replica.unlink(root, "g"),
  extra: (replica) => replica.mkdir(root, "extra", 0o755, owner, null),
  mode: (replica) => replica.setattr({ parent: root, name: "d" }, -1, { mode: 0o700 }, null),
  owner: (replica) => replica.setattr({ parent: root, name: "g" }, -1, { uid: 5 }, null),
  size: (replica) => replica.setattr({ parent: root, name: "g" }, -1, { size: 5 }, null),
  mtime: (replica) => replica.setattr({ parent: root, name: "g" }, -1, { mtime: { seconds: 1, nsec: 1 } }, null),
  xattrs: (replica) => replica.setxattr({ parent: root, name: "g" }, "user.y", Buffer.from("1"), 0),
  content: (replica) => {
    const handle = replica.open({ parent: root, name: "linked" }, "read-write") as number;
    void replica.write(handle, Buffer.from("x"), 5000);
  },
  type: (replica) => {
    void replica.unlink(root, "g");
    void replica.mkdir(root, "g", 0o755, owner, null);
  },
  target: (replica) => {
    void replica.unlink(root, "s");
    void replica.symlink(root, "s", "d/g", owner, null);
  },
  links: (replica) => {
    void replica.unlink(root, "linked");
    void replica.link({ parent: root, name: "g" }, root, "linked", null);
  },
};

for (const [aspect, damage] of Object.entries(damages)) {
  test(`verify() finds a difference in ${aspect}, and repairs it`, async () => {
    const volume = await started(2);
    assert.deepEqual((await verify(volume)).differences, []);
    damage(volume.replica(1));
    const { differences } = await verify(volume);
    assert.ok(differences.length > 0 && differences.every(({ replica }) => replica === "r1"));
    assert.ok(differences.some((difference) => difference.aspect === aspect));
    await verify(volume, true);
    assert.deepEqual((await verify(volume)).differences, []);
    assert.deepEqual(describeDisk(volume.disks[1] as MemoryDisk), describeDisk(volume.disks[0] as MemoryDisk));
  });
}

test("of three replicas the one that is alone is wrong, even if it leads", async () => {
  const volume = await started(3);
  damages["content"]?.(volume.replica(0));
  const { differences } = await verify(volume, true);
  assert.deepEqual([...new Set(differences.map(({ replica }) => replica))], ["r0"]);
  assert.deepEqual(describeDisk(volume.disks[0] as MemoryDisk), describeDisk(volume.disks[1] as MemoryDisk));
});

test("verify() beside changes gives no false alarm", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const choose = seeded(seed);
    const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
    for (let i = 0; i < 40; i++) await volume.run(randomOperation(choose));
    let ended = false;
    const verifying = verify(volume).finally(() => {
      ended = true;
    });
    while (!ended) {
      await volume.run(randomOperation(choose));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual((await verifying).differences, [], `Seed ${seed}`);
  }
});
