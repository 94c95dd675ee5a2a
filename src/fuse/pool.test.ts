import assert from "node:assert/strict";
import { test } from "node:test";
import { Pool } from "./pool.ts";

test("a pool makes nothing twice in a burst, and lets go of what it does not need for a second", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let made = 0;
  const pool = new Pool(() => ++made, 2);
  for (let burst = 0; burst < 5; burst++) {
    const taken = Array.from({ length: 20 }, () => pool.take());
    for (const item of taken) pool.give(item);
    t.mock.timers.tick(300);
  }
  assert.equal(made, 20);
  assert.equal(pool.free, 20);
  for (let i = 0; i < 20; i++) {
    const taken = Array.from({ length: 5 }, () => pool.take());
    for (const item of taken) pool.give(item);
    t.mock.timers.tick(300);
  }
  assert.equal(pool.free, 5);
  for (let i = 0; i < 5; i++) t.mock.timers.tick(1000);
  assert.equal(pool.free, 2);
  assert.equal(made, 20);
});
