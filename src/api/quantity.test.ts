import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { bytesToQuantity, quantityToBytes } from "./quantity.ts";

describe("quantityToBytes()", () => {
  for (const [text, bytes] of [
    ["1", 1n],
    ["10Gi", 10737418240n],
    ["1.5Gi", 1610612736n],
    ["500M", 500000000n],
    ["1e3", 1000n],
    ["1E3", 1000n],
    ["2E", 2000000000000000000n],
    [".5k", 500n],
    ["1500m", 2n],
    ["1u", 1n],
    ["0.1Ki", 103n],
  ] as const)
    it(`reads ${text}`, () => assert.equal(quantityToBytes(text), bytes));
  for (const text of ["", "ten", "10 Gi", "-1", "1Kib", "Gi"])
    it(`refuses "${text}"`, () => assert.throws(() => quantityToBytes(text), RangeError));
  it("reads back what bytesToQuantity() wrote", () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 1n << 62n }), (n) => quantityToBytes(bytesToQuantity(n)) === n));
  });
});
