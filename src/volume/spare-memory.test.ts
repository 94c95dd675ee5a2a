import assert from "node:assert/strict";
import { test } from "node:test";
import { SpareMemory } from "./spare-memory.ts";

test("memory is given back when many nodes were dropped and few are left, once it is quiet", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let given = 0;
  const memory = new SpareMemory(() => given++);
  for (let alive = 200_000; alive > 60_000; alive--) memory.dropped(alive);
  t.mock.timers.tick(10_000);
  assert.equal(given, 0);
  for (let alive = 60_000; alive > 40_000; alive--) memory.dropped(alive);
  assert.equal(given, 0);
  t.mock.timers.tick(3000);
  assert.equal(given, 1);
  for (let i = 0; i < 25_000; i++) memory.dropped(0);
  t.mock.timers.tick(10_000);
  assert.equal(given, 1);
});
