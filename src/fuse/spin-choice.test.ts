import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SpinChoice } from "./spin-choice.ts";

/** Runs batches with these gaps; answers how many of the last thousand were spun through. */
function run(choice: SpinChoice, batches: number, gapMs: (spins: boolean) => number): number {
  let now = 1000;
  let spun = 0;
  for (let i = 0; i < batches; i++) {
    choice.drained(now);
    now += gapMs(choice.spins);
    if (i >= batches - 1000 && choice.spins) spun++;
    choice.taken(now);
  }
  return spun;
}

describe("the choice between spinning and sleeping", () => {
  test("spins where a wake-up takes long", () => {
    assert.ok(run(new SpinChoice(), 20_000, (spins) => (spins ? 0.02 : 0.06)) > 900);
  });

  test("sleeps where spinning keeps the client from running", () => {
    assert.ok(run(new SpinChoice(), 20_000, (spins) => (spins ? 0.055 : 0.004)) < 100);
  });

  test("sleeps where it makes no difference, as on a file system that is seldom used", () => {
    assert.ok(run(new SpinChoice(), 20_000, () => 100) < 100);
  });

  test("follows when that changes", () => {
    const choice = new SpinChoice();
    run(choice, 5000, (spins) => (spins ? 0.055 : 0.004));
    assert.ok(run(choice, 40_000, (spins) => (spins ? 0.02 : 0.06)) > 900);
    assert.ok(run(choice, 40_000, (spins) => (spins ? 0.055 : 0.004)) < 100);
  });

  test("is not misled by gaps that are far off now and then", () => {
    let i = 0;
    assert.ok(run(new SpinChoice(), 20_000, (spins) => (++i % 7 === 0 ? 5 : spins ? 0.02 : 0.06)) > 900);
  });
});
