import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { NodeIndex } from "./node-index.ts";

test("an index holds what a Map holds, with ids of any size", () => {
  const id = fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.integer({ min: 2 ** 33, max: 2 ** 33 + 50 }));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), id)), (steps) => {
      const index = new NodeIndex<string>();
      const model = new Map<number, string>();
      for (const [add, key] of steps) {
        if (add) {
          index.set(key, `${key}`);
          model.set(key, `${key}`);
        } else {
          index.delete(key);
          model.delete(key);
        }
        assert.equal(index.get(key), model.get(key));
        assert.equal(index.size, model.size);
      }
      assert.deepEqual([...index.values()].sort(), [...model.values()].sort());
    }),
  );
});
