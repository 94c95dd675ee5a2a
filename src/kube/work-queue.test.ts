import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { silentLogger } from "../util/logger.ts";
import { type Work, WorkQueue } from "./work-queue.ts";

/** Work that ends when the test says so. */
function held() {
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const work: Work = async (key) => {
    begun.push(key);
    await new Promise<void>((resolve) => ends.push(resolve));
    return undefined;
  };
  return { begun, ends, work };
}
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const queueOf = (work: Work, workers = 2) =>
  new WorkQueue(work, { workers, logger: silentLogger, firstRetryMs: 1, longestRetryMs: 8 });

describe("WorkQueue", () => {
  it("works on a key once, however often it was added", async () => {
    const { begun, ends, work } = held();
    const queue = queueOf(work);
    for (const key of ["a", "a", "b", "a"]) queue.add(key);
    queue.start();
    assert.deepEqual(begun, ["a", "b"]);
    for (const end of ends) end();
    await queue.stop();
  });

  it("never works on a key twice at a time, and works on it again if it was added meanwhile", async () => {
    const { begun, ends, work } = held();
    const queue = queueOf(work);
    queue.start();
    queue.add("a");
    queue.add("a");
    queue.add("a");
    assert.deepEqual(begun, ["a"]);
    ends[0]?.();
    await turn();
    assert.deepEqual(begun, ["a", "a"]);
    ends[1]?.();
    await turn();
    assert.deepEqual(begun, ["a", "a"]);
    await queue.stop();
  });

  it("has no more workers than it was given", async () => {
    const { begun, ends, work } = held();
    const queue = queueOf(work, 2);
    queue.start();
    for (const key of ["a", "b", "c"]) queue.add(key);
    assert.deepEqual(begun, ["a", "b"]);
    ends[1]?.();
    await turn();
    assert.deepEqual(begun, ["a", "b", "c"]);
    for (const end of ends) end();
    await queue.stop();
  });

  it("tries again what failed, until it succeeds", async () => {
    let failures = 3;
    const succeeded = Promise.withResolvers<void>();
    const queue = queueOf(async () => {
      if (failures-- > 0) throw new Error("not yet");
      succeeded.resolve();
      return undefined;
    });
    queue.start();
    queue.add("a");
    await succeeded.promise;
    assert.equal(failures, -1);
    await queue.stop();
  });

  it("comes back to a key when its work asked for it", async () => {
    const twice = Promise.withResolvers<void>();
    let count = 0;
    const queue = queueOf(async () => {
      count += 1;
      if (count === 2) twice.resolve();
      return count < 2 ? 1 : undefined;
    });
    queue.start();
    queue.add("a");
    await twice.promise;
    await queue.stop();
    assert.equal(count, 2);
  });

  it("waits in stop() for what runs, and begins nothing more", async () => {
    const { begun, ends, work } = held();
    const queue = queueOf(work, 1);
    queue.start();
    queue.add("a");
    queue.add("b");
    let stopped = false;
    const stopping = queue.stop().then(() => {
      stopped = true;
    });
    await turn();
    assert.equal(stopped, false);
    ends[0]?.();
    await stopping;
    assert.deepEqual(begun, ["a"]);
  });
});
