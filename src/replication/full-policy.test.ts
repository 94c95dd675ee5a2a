import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ENOSPC } from "../util/errno.ts";
import { FullGuard, type FullPolicyOptions, reserveOf, roomLeft, type Space } from "./full-policy.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** Replicas of 100 GiB, a clock, and measurements that answer when told. */
class Place {
  readonly spaces: Space[];
  inSync: readonly number[];
  nowMs = 0;
  usedBytes = 0;
  statfsCalls = 0;
  walks = 0;
  readonly told: ({ readonly replica: number | null } | null)[] = [];
  readonly guard: FullGuard;

  constructor(options: Partial<FullPolicyOptions>, ...availableBytes: number[]) {
    this.spaces = availableBytes.map((available) => ({ totalBytes: 100 * GiB, availableBytes: available }));
    this.inSync = availableBytes.map((_, i) => i);
    this.guard = new FullGuard(
      {
        space: (replica) => {
          this.statfsCalls++;
          return this.spaces[replica] ?? null;
        },
        inSync: () => this.inSync,
        measureUse: async () => {
          this.walks++;
          return this.usedBytes;
        },
        onFull: (full) => this.told.push(full),
        nowMs: () => this.nowMs,
      },
      { fullPolicy: "FailWrites", capacityBytes: null, ...options },
    );
    this.guard.start();
  }

  available(replica: number, bytes: number): void {
    this.spaces[replica] = { totalBytes: 100 * GiB, availableBytes: bytes };
  }
}
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("writes are refused while one in-sync replica has no more than its reserve", () => {
  const place = new Place({}, 50 * GiB, GiB + 4096);
  assert.equal(place.guard.admit(4096), 0);
  assert.equal(place.guard.admit(8192), -ENOSPC);
  place.inSync = [0];
  assert.equal(place.guard.admit(8192), 0);
});

test("names are refused as well, and all goes on once there is space", () => {
  const place = new Place({}, 512 * MiB);
  assert.equal(place.guard.admit(0), -ENOSPC);
  place.available(0, 2 * GiB);
  place.nowMs += 1_000;
  assert.equal(place.guard.admit(0), 0);
});

test("an application that writes in place for ever is never refused, and costs a statfs now and then", () => {
  const place = new Place({}, 2 * GiB);
  const before = place.statfsCalls;
  for (let i = 0; i < 10_000; i++) assert.equal(place.guard.admit(MiB), 0);
  assert.ok(place.statfsCalls - before < 200);
});

test("DropReplica refuses nothing", () => {
  const place = new Place({ fullPolicy: "DropReplica" }, 0, 50 * GiB);
  assert.equal(place.guard.admit(MiB), 0);
});

test("statfs that answers later is waited for by nobody", async () => {
  let answer: (space: Space) => void = () => {};
  const inSync = [0];
  const guard = new FullGuard(
    {
      space: () => new Promise<Space>((resolve) => (answer = resolve)),
      inSync: () => inSync,
      measureUse: async () => 0,
      onFull: () => {},
      nowMs: () => 0,
    },
    { fullPolicy: "FailWrites", capacityBytes: null },
  );
  guard.start();
  assert.equal(guard.admit(MiB), 0);
  answer({ totalBytes: 100 * GiB, availableBytes: 0 });
  await settled();
  assert.equal(guard.admit(MiB), -ENOSPC);
});

test("the capacity is kept by walks over the tree, which are made only when it might be reached", async () => {
  const place = new Place({ capacityBytes: 10 * GiB }, 50 * GiB);
  await settled();
  assert.equal(place.walks, 1);
  for (let i = 0; i < 10; i++) assert.equal(place.guard.admit(GiB), 0);
  assert.equal(place.walks, 1);
  place.usedBytes = 10 * GiB;
  place.nowMs += 60_000;
  assert.equal(place.guard.admit(GiB), 0, "nobody knows yet");
  await settled();
  assert.equal(place.walks, 2);
  assert.equal(place.guard.admit(4096), -ENOSPC);
  place.guard.freed(8192);
  assert.equal(place.guard.admit(4096), 0);
});

test("the reserve is a part of the file system, within bounds, and leaves a small one of use", () => {
  assert.equal(reserveOf({ totalBytes: 10 * GiB, availableBytes: 0 }), Math.floor(10 * GiB * 0.01));
  assert.equal(reserveOf({ totalBytes: 1000 * GiB, availableBytes: 0 }), GiB);
  assert.equal(reserveOf({ totalBytes: 64 * MiB, availableBytes: 0 }), Math.floor((64 * MiB) / 20));
});

test("what is shown as free can be written", () => {
  const space = fc.record({ totalBytes: fc.nat(), availableBytes: fc.nat() });
  fc.assert(
    fc.property(
      fc.array(space, { minLength: 1, maxLength: 4 }),
      fc.constantFrom("FailWrites", "DropReplica"),
      (spaces, fullPolicy) => {
        const room = roomLeft(spaces, { fullPolicy, capacityBytes: null }, 0);
        assert.ok(room >= 0);
        const guard = new FullGuard(
          {
            space: (i) => spaces[i] ?? null,
            inSync: () => spaces.map((_, i) => i),
            measureUse: async () => 0,
            onFull: () => {},
            nowMs: () => 0,
          },
          { fullPolicy, capacityBytes: null },
        );
        guard.start();
        if (room > 0) assert.equal(guard.admit(room), 0);
      },
    ),
  );
});

test("that changes are refused is told once, and that there is room again when there is more than a little", () => {
  const place = new Place({}, 50 * GiB, 2 * GiB);
  place.available(1, MiB);
  for (let i = 0; i < 3; i++) {
    place.nowMs += 10_000;
    place.guard.admit(64 * MiB);
  }
  assert.equal(place.guard.admit(4096), -ENOSPC);
  place.available(1, GiB + MiB);
  place.nowMs += 10_000;
  assert.equal(place.guard.admit(4096), 0);
  assert.deepEqual(place.told, [{ replica: 1 }]);
  place.available(1, 2 * GiB);
  place.nowMs += 10_000;
  assert.equal(place.guard.admit(4096), 0);
  place.guard.admit(4096);
  assert.deepEqual(place.told, [{ replica: 1 }, null]);
});
