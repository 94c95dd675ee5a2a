import assert from "node:assert/strict";
import { test } from "node:test";
import { Throttle } from "./throttle.ts";

test("work pauses after each stretch while requests keep coming, and only then", async () => {
  let now = 0;
  let requests = 0;
  const slept: number[] = [];
  const throttle = new Throttle({
    sliceMs: 1,
    requests: () => requests,
    nowMs: () => now,
    sleep: async (ms) => void slept.push(ms),
  });
  const { signal } = new AbortController();
  const stretch = async (): Promise<void> => {
    now += 2;
    await throttle.pace(0, signal);
  };
  await stretch();
  assert.deepEqual(slept, []);
  requests++;
  now += 0.5;
  await throttle.pace(0, signal);
  assert.deepEqual(slept, [], "the stretch has just begun");
  await stretch();
  assert.equal(slept.length, 1);
  await stretch();
  assert.equal(slept.length, 1, "no request came meanwhile");
  requests += 3;
  await stretch();
  assert.equal(slept.length, 2);
});
