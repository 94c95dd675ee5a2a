import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ObjectLock } from "./contracts.ts";
import { RangeLocks } from "./locks.ts";
import { TreeNode } from "./tree.ts";

const node = (name = "file") => new TreeNode(null, name);
const turn = () => new Promise((resolve) => setImmediate(resolve));

function held(lock: ObjectLock | Promise<ObjectLock>): ObjectLock {
  assert.ok(!(lock instanceof Promise), "has to wait");
  return lock;
}

test("a lock that nobody holds is there at once, and leaves nothing behind", () => {
  const locks = new RangeLocks();
  const file = node();
  for (let i = 0; i < 3; i++) held(locks.acquire(file)).release();
  assert.equal(locks.size, 0);
});

test("other objects, and other ranges of the same one, are free", () => {
  const locks = new RangeLocks();
  const file = node();
  const all = [
    locks.acquire(file, 0, 10),
    locks.acquire(file, 10, 20),
    locks.acquire(node()),
    locks.acquire(file, 20, 30),
  ];
  for (const lock of all.map(held)) lock.release();
  assert.equal(locks.size, 0);
});

test("overlapping ranges wait, in the order in which they came", async () => {
  const locks = new RangeLocks();
  const file = node();
  const order: string[] = [];
  const first = held(locks.acquire(file, 0, 10));
  const take = async (name: string, start?: number, end?: number) => {
    const lock = await locks.acquire(file, start, end);
    order.push(name);
    await turn();
    lock.release();
  };
  const waiting = [take("whole"), take("behind", 5, 6), take("far", 100, 101)];
  await turn();
  assert.deepEqual(order, [], "the range far away does not overtake the whole object");
  first.release();
  await Promise.all(waiting);
  assert.deepEqual(order, ["whole", "behind", "far"]);
  assert.equal(locks.size, 0);
});

test("an empty range still locks its position", async () => {
  const locks = new RangeLocks();
  const file = node();
  const first = held(locks.acquire(file, 5, 5));
  const second = locks.acquire(file, 0, 10);
  assert.ok(second instanceof Promise);
  first.release();
  (await second).release();
});

test("a lock that is released twice is a bug that shows", () => {
  const locks = new RangeLocks();
  const lock = held(locks.acquire(node()));
  lock.release();
  assert.throws(() => lock.release());
});

test("never do two holders overlap, and everyone gets his turn", async () => {
  const request = fc.record({ node: fc.nat(1), start: fc.nat(8), length: fc.nat(4), turns: fc.nat(3) });
  await fc.assert(
    fc.asyncProperty(fc.array(request, { maxLength: 12 }), async (requests) => {
      const locks = new RangeLocks();
      const nodes = [node("a"), node("b")] as const;
      const holding = new Set<(typeof requests)[number]>();
      await Promise.all(
        requests.map(async (request) => {
          const end = request.start + Math.max(1, request.length);
          const answer = locks.acquire(nodes[request.node] as TreeNode, request.start, end);
          const lock = answer instanceof Promise ? await answer : answer;
          for (const other of holding) {
            const apart =
              other.node !== request.node ||
              other.start >= end ||
              request.start >= other.start + Math.max(1, other.length);
            assert.ok(apart, "two overlapping ranges are held");
          }
          holding.add(request);
          for (let i = 0; i < request.turns; i++) await turn();
          holding.delete(request);
          lock.release();
        }),
      );
      assert.equal(locks.size, 0);
    }),
    { numRuns: 200 },
  );
});
