import assert from "node:assert/strict";
import { test } from "node:test";
import { planRestart, type RestartPlan } from "./holder-restart.ts";

function deaths(times: readonly number[]): RestartPlan {
  let plan: RestartPlan = { deathsMs: [], delayMs: 0, report: false };
  for (const at of times) plan = planRestart(plan.deathsMs, at);
  return plan;
}

test("a process that dies now and then is started again at once", () => {
  assert.deepEqual(deaths([0, 20_000, 40_000, 61_000, 90_000]).delayMs, 0);
});

test("the fifth death in a minute is reported and backed off, and reported once", () => {
  assert.deepEqual([deaths([0, 1, 2, 3]).report, deaths([0, 1, 2, 3]).delayMs], [false, 0]);
  assert.deepEqual([deaths([0, 1, 2, 3, 4]).report, deaths([0, 1, 2, 3, 4]).delayMs], [true, 1000]);
  assert.deepEqual([deaths([0, 1, 2, 3, 4, 5]).report, deaths([0, 1, 2, 3, 4, 5]).delayMs], [false, 2000]);
});

test("the delay is bounded", () => {
  assert.equal(deaths(Array.from({ length: 50 }, (_, i) => i * 10)).delayMs, 30_000);
});
