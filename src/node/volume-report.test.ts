import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import type { VolumeStatus } from "../volume/protocol.ts";
import { isWorthReporting, nextReplicaChange, reportOf } from "./volume-report.ts";

const nowMs = Date.parse("2026-01-01T00:00:00Z");
type State = VolumeStatus["replicas"][number]["state"];
const status = (states: Record<string, State>, percent: number | null = null): VolumeStatus => ({
  volume: "v",
  mountpoint: "/m",
  state: "Healthy",
  epoch: "1.0",
  pid: 1,
  minInSyncReplicas: 1,
  replicas: Object.entries(states).map(([name, state]) => ({
    name,
    url: `/${name}`,
    state,
    reason: state === "InSync" ? null : "Fault",
    since: "2026-01-01T00:00:00Z",
    readable: state === "InSync",
    progress: percent === null ? null : { percent, filesRemaining: 1, bytesRemaining: 1 },
    lastError: null,
    freeBytes: null,
  })),
});
const report = (of: VolumeStatus | null, atMs = nowMs) => reportOf("n1", of, false, null, atMs);
const times = { heartbeatMs: 60_000, progressMs: 5_000 };

describe("isWorthReporting()", () => {
  it("holds for the first report, for news, and again before the last one is stale", () => {
    const good = report(status({ a: "InSync" }));
    assert.ok(isWorthReporting(null, good, times));
    assert.ok(!isWorthReporting(good, report(status({ a: "InSync" }), nowMs + 59_999), times));
    assert.ok(isWorthReporting(good, report(status({ a: "InSync" }), nowMs + 60_000), times));
    assert.ok(isWorthReporting(good, report(status({ a: "OutOfSync" }), nowMs + 1), times));
    assert.ok(isWorthReporting(good, report(null, nowMs + 1), times));
  });
  it("holds for progress only so often", () => {
    const first = report(status({ a: "Syncing" }, 1));
    assert.ok(!isWorthReporting(first, report(status({ a: "Syncing" }, 2), nowMs + 4_999), times));
    assert.ok(isWorthReporting(first, report(status({ a: "Syncing" }, 2), nowMs + 5_000), times));
    assert.ok(!isWorthReporting(first, report(status({ a: "Syncing" }, 1), nowMs + 5_000), times));
  });
});

describe("reportOf()", () => {
  it("says that a volume process does not answer", () => {
    assert.equal(report(null).state, "Failed");
    assert.match(report(null).message ?? "", /does not answer/);
  });
  it("says what else is wrong", () => {
    assert.equal(reportOf("n1", status({ a: "InSync" }), true, "cannot add", nowMs).message, "cannot add");
  });
});

describe("nextReplicaChange()", () => {
  const volume = (...names: string[]) =>
    ({ spec: { replicas: names.map((name) => ({ name })) } }) as unknown as ReplicatedVolume;
  const wanted = (...names: string[]) => names.map((name) => ({ name, url: `/${name}`, slow: false }));
  const next = (names: string[], of: VolumeStatus) => nextReplicaChange(volume(...names), wanted(...names), of);

  it("has nothing to do when they are the same", () => {
    assert.equal(next(["a", "b"], status({ a: "InSync", b: "OutOfSync" })), null);
  });
  it("adds before it removes", () => {
    assert.deepEqual(next(["b", "c"], status({ a: "InSync", b: "InSync" })), {
      kind: "add",
      name: "c",
      url: "/c",
      slow: false,
    });
  });
  it("removes only what leaves enough in-sync replicas", () => {
    assert.deepEqual(next(["b"], status({ a: "InSync", b: "InSync" })), { kind: "remove", name: "a" });
    assert.equal(next(["b"], status({ a: "InSync", b: "Syncing" })), null, "the last in-sync copy");
    const two = { ...status({ a: "InSync", b: "InSync", c: "Syncing" }), minInSyncReplicas: 2 };
    assert.equal(next(["b", "c"], two), null);
    assert.deepEqual(next(["a", "b"], two), { kind: "remove", name: "c" }, "it was not in sync");
  });
});
