import assert from "node:assert/strict";
import { test } from "node:test";
import { decideWatch, type ProcessState, parseProcessState, readProcessState, type Watch } from "./holder-watch.ts";
import type { StatePage } from "./state-page.ts";

const running: ProcessState = { state: "R", killPending: false };
const page = (change: Partial<StatePage> = {}): StatePage => ({
  pid: 1,
  turns: 7,
  working: true,
  callReplica: null,
  opcode: 16,
  unique: 2n,
  threadCalls: [0, 0, 0, 0, 0, 0, 0, 0],
  runUntilMs: 0,
  ...change,
});
const stuck: Watch = { turns: 7, stopped: false, sinceMs: 1000 };

test("a process at rest may rest for ever", () => {
  assert.deepEqual(decideWatch(stuck, running, page({ working: false }), 99_000, 10_000), {
    kind: "well",
    watch: null,
  });
});

test("a process that moves is well, however long it has been at work", () => {
  const verdict = decideWatch(stuck, running, page({ turns: 8 }), 99_000, 10_000);
  assert.deepEqual(verdict, { kind: "well", watch: { ...stuck, turns: 8, sinceMs: 99_000 } });
});

test("a process that has not moved for the deadline is replaced, and its replica avoided", () => {
  assert.equal(decideWatch(stuck, running, page({ callReplica: 1 }), 10_999, 10_000).kind, "well");
  const verdict = decideWatch(stuck, { ...running, state: "D" }, page({ callReplica: 1 }), 11_000, 10_000);
  assert.deepEqual(verdict, { kind: "replace", reason: "hangs in a replica's call", avoid: [1] });
});

test("an endless loop is replaced too, and no replica is blamed", () => {
  const verdict = decideWatch(stuck, running, page(), 11_000, 10_000);
  assert.deepEqual(verdict, { kind: "replace", reason: "makes no progress", avoid: [] });
});

test("a stopped process is replaced at the deadline even if it was at rest", () => {
  const stopped: ProcessState = { state: "T", killPending: false };
  const first = decideWatch(null, stopped, page({ working: false }), 1000, 10_000);
  assert.ok(first.kind === "well" && first.watch !== null);
  assert.equal(decideWatch(first.watch, stopped, page({ working: false }), 11_000, 10_000).kind, "replace");
});

test("a killed process whose thread hangs in the kernel is replaced at once", () => {
  const threadCalls = [0, 2, 0, 0, 0, 0, 0, 0];
  for (const state of [
    { state: "Z", killPending: false },
    { state: "D", killPending: true },
  ]) {
    const verdict = decideWatch(null, state, page({ working: false, threadCalls }), 1, 10_000);
    assert.deepEqual(verdict.kind === "replace" && verdict.avoid, [1]);
  }
  assert.equal(decideWatch(null, { state: "Z", killPending: false }, page(), 1, 10_000).kind, "well");
});

test("state and a pending SIGKILL are read from /proc", () => {
  const status = "Name:\tnode\nState:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n";
  assert.deepEqual(parseProcessState(status), { state: "D", killPending: true });
  assert.equal(readProcessState(process.pid)?.killPending, false);
  assert.equal(readProcessState(2 ** 22 + 1), null);
});
