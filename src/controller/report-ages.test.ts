import assert from "node:assert/strict";
import { test } from "node:test";
import type { NodeReport } from "../api/replicated-volume.ts";
import { ReportAges } from "./report-ages.ts";
import { freshReports } from "./volume-status.ts";

const staleAfterMs = 60_000;
const noonMs = Date.parse("2026-03-01T12:00:00Z");

/** A controller's two clocks, of which one may be set. */
function clocks() {
  const at = { wallMs: noonMs, monotonicMs: 5_000 };
  const ages = new ReportAges({ nowMs: () => at.wallMs, monotonicMs: () => at.monotonicMs });
  const pass = (ms: number) => {
    at.wallMs += ms;
    at.monotonicMs += ms;
  };
  const report = (reportedMs: number): NodeReport => ({
    name: "n1",
    state: "Healthy",
    reportedAt: new Date(reportedMs).toISOString(),
  });
  const isFresh = (reportedMs: number, atStart = false) =>
    freshReports(ages.dated("v", [report(reportedMs)], atStart), at.wallMs, staleAfterMs).length === 1;
  return { at, ages, pass, isFresh };
}

test("a report ages while it is not renewed, and a renewed one is fresh", () => {
  const { pass, isFresh } = clocks();
  assert.ok(isFresh(noonMs));
  pass(59_000);
  assert.ok(isFresh(noonMs));
  pass(2_000);
  assert.ok(!isFresh(noonMs));
  assert.ok(isFresh(noonMs + 61_000));
});

test("a clock that jumps, forwards or backwards, makes no report older or younger", () => {
  const { at, pass, isFresh } = clocks();
  assert.ok(isFresh(noonMs));
  at.wallMs += 3_600_000;
  assert.ok(isFresh(noonMs));
  at.wallMs -= 7_200_000;
  pass(59_000);
  assert.ok(isFresh(noonMs));
  pass(2_000);
  assert.ok(!isFresh(noonMs), "it was silent for longer than allowed, whatever the clock says");
});

test("a node whose clock is wrong by hours is believed when it reports", () => {
  const { pass, isFresh } = clocks();
  assert.ok(isFresh(noonMs - 3 * 3_600_000));
  pass(30_000);
  assert.ok(isFresh(noonMs - 3 * 3_600_000 + 30_000));
});

test("what is found at the start is taken by its date: a node that was silent for long is not alive again", () => {
  const { isFresh, ages } = clocks();
  assert.ok(!isFresh(noonMs - 61_000, true));
  ages.forget("v");
  assert.ok(isFresh(noonMs - 10_000, true));
});
