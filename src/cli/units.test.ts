import assert from "node:assert/strict";
import { test } from "node:test";
import { formatAge, formatBytes, parseDuration, parseSize } from "./units.ts";

test("sizes are read as people write them", () => {
  const sizes = { "4096": 4096, "10K": 10_240, "1GiB": 2 ** 30, "1.5G": 1.5 * 2 ** 30, "10GB": 10e9, "0": 0 };
  for (const [text, bytes] of Object.entries(sizes)) assert.equal(parseSize(text, "x"), bytes, text);
  for (const text of ["", "-1", "10X", "G", "1e9"]) assert.throws(() => parseSize(text, "--capacity"), /--capacity/);
});

test("durations are read as people write them", () => {
  assert.deepEqual(
    ["10s", "500ms", "2m", "3", "1.5s"].map((text) => parseDuration(text, "x")),
    [10_000, 500, 120_000, 3000, 1500],
  );
  for (const text of ["", "-1s", "10 parsecs"]) assert.throws(() => parseDuration(text, "--deadline"), /--deadline/);
});

test("sizes and ages are short to read", () => {
  assert.deepEqual([0, 1023, 1024, 1536, 1024 ** 2 - 1, 20 * 1024 ** 3].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "1.0 MiB",
    "20 GiB",
  ]);
  const ages = [0, 30, 300, 7200, 86_400 * 3].map((s) => formatAge(new Date(1e12 - s * 1000).toISOString(), 1e12));
  assert.deepEqual(ages, ["just now", "30 s", "5 min", "2 h", "3 days"]);
});
