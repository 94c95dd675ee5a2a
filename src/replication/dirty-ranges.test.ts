import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DirtyRanges } from "./dirty-ranges.ts";

const step = fc.record({
  add: fc.boolean(),
  start: fc.integer({ min: 0, max: 60 }),
  length: fc.integer({ min: 0, max: 20 }),
});

test("ranges hold exactly the bytes that were added and not removed", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const ranges = new DirtyRanges();
      const model = new Set<number>();
      for (const { add, start, length } of steps) {
        if (add) ranges.add(start, start + length);
        else ranges.remove(start, start + length);
        for (let i = start; i < start + length; i++) add ? model.add(i) : model.delete(i);
      }
      const held = ranges.list().flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i));
      assert.deepEqual(
        held,
        [...model].sort((a, b) => a - b),
      );
      assert.equal(ranges.bytes(), model.size);
      for (let i = 0; i < 80; i++) assert.equal(ranges.intersects(i, i + 1), model.has(i));
      // Ranges that touch are one.
      assert.ok(ranges.list().every(([, end], i, all) => end < (all[i + 1]?.[0] ?? Number.POSITIVE_INFINITY)));
    }),
  );
});

test("a file that is changed in very many places takes bounded memory, and nothing is forgotten", () => {
  const ranges = new DirtyRanges();
  for (let i = 0; i < 100_000; i++) ranges.add(i * 10_000, i * 10_000 + 10);
  assert.ok(ranges.count <= 4096);
  for (let i = 0; i < 100_000; i += 997) assert.ok(ranges.intersects(i * 10_000, i * 10_000 + 10));
});

test("a whole file is a range without an end", () => {
  const ranges = new DirtyRanges();
  ranges.add(0, Number.POSITIVE_INFINITY);
  ranges.add(5, 10);
  ranges.remove(0, 100);
  assert.deepEqual(ranges.list(), [[100, Number.POSITIVE_INFINITY]]);
  assert.equal(ranges.bytes(150), 50);
});
