import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decodeIntent, encodeIntent, type IntentBody, maxTargetBytes, pathThatFits } from "./intent-record.ts";

const name = fc
  .string({ minLength: 1, maxLength: 20, unit: fc.integer({ min: 1, max: 255 }).map((c) => String.fromCharCode(c)) })
  .filter((text) => !text.includes("/") && text !== "." && text !== "..");
const path = fc.array(name, { maxLength: 5 });
const placed = fc.array(name, { minLength: 1, maxLength: 5 });
const ino = fc.integer({ min: 0, max: 2 ** 50 });
const body: fc.Arbitrary<IntentBody> = fc.oneof(
  fc.record({ kind: fc.constant("begin" as const) }),
  fc.record({ kind: fc.constantFrom("entries" as const, "tree" as const), path }),
  fc.record({ kind: fc.constantFrom("attributes" as const, "data" as const), path, severalNames: fc.boolean() }),
  fc.record({
    kind: fc.constant("rename" as const),
    from: placed,
    to: placed,
    exchange: fc.boolean(),
    ino,
    otherIno: ino,
  }),
  fc.record({ kind: fc.constantFrom("out" as const, "unknown" as const), replica: fc.constantFrom("mars", "venus") }),
);

test("an intent is read back as it was written, whatever bytes its names have", () => {
  fc.assert(fc.property(body, (one) => assert.deepEqual(decodeIntent(encodeIntent(one)), { ...one })));
});

test("an intent that was cut short or changed in one byte is damage", () => {
  fc.assert(
    fc.property(body, fc.nat(), fc.nat(), (one, at, cut) => {
      const target = encodeIntent(one);
      const i = at % target.length;
      const changed = target.slice(0, i) + String.fromCharCode(target.charCodeAt(i) ^ 1) + target.slice(i + 1);
      assert.equal(decodeIntent(changed), null);
      assert.equal(decodeIntent(target.slice(0, cut % target.length)), null);
    }),
  );
});

test("of a path that is too long the longest beginning that fits is recorded", () => {
  const long = Array.from({ length: 40 }, () => "n".repeat(200));
  const fits = pathThatFits(long);
  assert.ok(fits.length > 15 && fits.length < 40);
  assert.ok(encodeIntent({ kind: "tree", path: fits }).length <= maxTargetBytes);
});
