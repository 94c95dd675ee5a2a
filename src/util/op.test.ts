import assert from "node:assert/strict";
import { test } from "node:test";
import { type Eventual, type Op, start, wait } from "./op.ts";

function* add(a: Eventual<number>, b: Eventual<number>): Op<number> {
  return (yield* wait(a)) + (yield* wait(b));
}

test("an operation that never waits ends on the spot", () => {
  assert.equal(start(add(1, 2)), 3);
});

test("an operation that waits answers a promise", async () => {
  const result = start(add(Promise.resolve(1), 2));
  assert.ok(result instanceof Promise);
  assert.equal(await result, 3);
});

test("a rejection arrives inside the operation, where it can be handled", async () => {
  function* careful(): Op<string> {
    try {
      yield* wait(Promise.reject(new Error("no")));
      return "unreachable";
    } catch (error) {
      return (error as Error).message;
    }
  }
  assert.equal(await start(careful()), "no");
});

test("what an operation throws after a wait rejects its promise once", async () => {
  function* fails(): Op<number> {
    yield* wait(Promise.resolve(1));
    throw new Error("later");
  }
  await assert.rejects(async () => await start(fails()), /later/);
});

test("using inside an operation disposes after the last wait", async () => {
  const order: string[] = [];
  function* holds(): Op<void> {
    using _held = { [Symbol.dispose]: () => void order.push("disposed") };
    yield* wait(Promise.resolve());
    order.push("worked");
  }
  await start(holds());
  assert.deepEqual(order, ["worked", "disposed"]);
});
