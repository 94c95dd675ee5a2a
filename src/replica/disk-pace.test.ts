import assert from "node:assert/strict";
import { test } from "node:test";
import { DiskPace } from "./disk-pace.ts";

test("a disk is slow after one slow call, until many in a row were quick", () => {
  const pace = new DiskPace();
  pace.took(0.1);
  assert.equal(pace.slow, false);
  pace.took(4);
  assert.equal(pace.slow, true);
  for (let i = 0; i < 63; i++) pace.took(0.05);
  assert.equal(pace.slow, true);
  pace.took(4);
  for (let i = 0; i < 63; i++) pace.took(0.05);
  assert.equal(pace.slow, true);
  pace.took(0.05);
  assert.equal(pace.slow, false);
});
