import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { NodeReport, ReplicaReport, ReplicatedVolume, ReplicatedVolumeStatus } from "../api/replicated-volume.ts";
import { resolveBackend } from "./backends.ts";
import { newsBetween } from "./volume-events.ts";
import { deriveStatus, nextStaleMs, type StatusInput } from "./volume-status.ts";

const nowMs = Date.parse("2026-01-01T00:00:00Z");
const staleAfterMs = 60_000;
const ago = (ms: number) => new Date(nowMs - ms).toISOString();

const replica = (name: string) => ({ name, readPriority: "Normal" as const, nfs: { server: name, path: "/e" } });
const volume = (
  status: ReplicatedVolumeStatus = {},
  names = ["mars", "venus"],
  extra: object = {},
): ReplicatedVolume => ({
  apiVersion: "chiron.storage/v1alpha1",
  kind: "ReplicatedVolume",
  metadata: { name: "v", generation: 3, ...extra },
  spec: {
    capacity: "1Gi",
    accessModes: ["ReadWriteOnce"],
    replicas: names.map(replica),
    readPolicy: "RoundRobin",
    fullPolicy: "FailWrites",
    writeCache: "None",
    reclaimPolicy: "Retain",
  },
  status,
});
const report = (states: Record<string, ReplicaReport["state"]>, more: Partial<NodeReport> = {}): NodeReport => ({
  name: "n1",
  state: "Healthy",
  reportedAt: ago(1_000),
  replicas: Object.entries(states).map(([name, state]) => ({ name, state })),
  ...more,
});
const derive = (of: ReplicatedVolume, more: Partial<StatusInput> = {}) => {
  const lookup = { persistentVolume: () => null, persistentVolumeClaim: () => null };
  const backends = new Map(of.spec.replicas.map((one) => [one.name, resolveBackend(one, lookup)]));
  return deriveStatus({
    volume: of,
    backends,
    hasPersistentVolume: true,
    claim: null,
    problem: null,
    removeTrees: false,
    nowMs,
    staleAfterMs,
    ...more,
  });
};
const conditions = (status: ReturnType<typeof derive>) =>
  Object.fromEntries((status.conditions ?? []).map(({ type, status: word }) => [type, word]));

describe("deriveStatus()", () => {
  it("calls a volume Pending without a PersistentVolume, and Available with one that nobody uses", () => {
    assert.equal(derive(volume(), { hasPersistentVolume: false }).phase, "Pending");
    const available = derive(volume());
    assert.equal(available.phase, "Available");
    assert.equal(available.inSyncReplicas, undefined);
    assert.deepEqual(conditions(available), {
      Accepted: "True",
      Ready: "True",
      Degraded: "Unknown",
      Syncing: "False",
      QuorumMet: "Unknown",
    });
  });

  it("calls it Ready when its node says that all replicas are in sync", () => {
    const status = derive(volume({ nodes: [report({ mars: "InSync", venus: "InSync" })] }));
    assert.equal(status.phase, "Ready");
    assert.equal(status.inSyncReplicas, "2/2");
    assert.equal(status.observedGeneration, 3);
    assert.deepEqual(conditions(status), {
      Accepted: "True",
      Ready: "True",
      Degraded: "False",
      Syncing: "False",
      QuorumMet: "True",
    });
  });

  it("says where each replica is", () => {
    assert.deepEqual(derive(volume()).replicas?.[0], {
      name: "mars",
      state: "Unknown",
      place: { nfs: { server: "mars", path: "/e" } },
    });
  });

  it("names the replicas that are behind, and why", () => {
    const nodes = [
      report(
        {},
        {
          state: "Degraded",
          replicas: [
            { name: "mars", state: "InSync" },
            { name: "venus", state: "OutOfSync", reason: "Fault", message: "EIO" },
          ],
        },
      ),
    ];
    const status = derive(volume({ nodes }));
    assert.equal(status.phase, "Degraded");
    const degraded = status.conditions?.find(({ type }) => type === "Degraded");
    assert.equal(degraded?.message, "venus is OutOfSync (Fault) – EIO");
  });

  it("shows the progress of the slowest resync", () => {
    const progress = (percent: number) => ({ percent, filesRemaining: 1, bytesRemaining: 1 });
    const replicas: ReplicaReport[] = [
      { name: "a", state: "InSync" },
      { name: "b", state: "Syncing", progress: progress(80) },
      { name: "c", state: "Syncing", progress: progress(42) },
    ];
    const status = derive(volume({ nodes: [report({}, { state: "Syncing", replicas })] }, ["a", "b", "c"]));
    assert.equal(status.syncProgress, "42%");
    assert.equal(status.phase, "Syncing");
    assert.equal(conditions(status)["QuorumMet"], "False", "two of three are needed");
  });

  it("believes the worst of several nodes", () => {
    const nodes = [
      report({ mars: "InSync", venus: "InSync" }),
      report({ mars: "InSync", venus: "Unreachable" }, { name: "n2" }),
    ];
    assert.equal(derive(volume({ nodes })).replicas?.[1]?.state, "Unreachable");
  });

  it("takes a replica that no node knows yet for a new one", () => {
    const status = derive(volume({ nodes: [report({ mars: "InSync", venus: "InSync" })] }, ["mars", "venus", "moon"]));
    assert.deepEqual(status.replicas?.[2]?.reason, "New");
    assert.equal(status.phase, "Degraded");
  });

  it("keeps the last state when the last node left in order", () => {
    const before = derive(volume({ nodes: [report({ mars: "InSync", venus: "OutOfSync" })] }));
    const after = derive(volume({ ...before, nodes: [] }));
    assert.equal(after.phase, "Degraded");
    assert.equal(after.inSyncReplicas, "1/2");
  });

  it("forgets it when a node went silent, and says when to look", () => {
    const nodes = [report({ mars: "InSync", venus: "InSync" })];
    assert.equal(nextStaleMs(nodes, nowMs, staleAfterMs), staleAfterMs - 1_000 + 1);
    const before = derive(volume({ nodes }));
    const silent = volume({
      ...before,
      nodes: [report({ mars: "InSync", venus: "InSync" }, { reportedAt: ago(staleAfterMs + 1) })],
    });
    const after = derive(silent);
    assert.equal(after.phase, "Unknown");
    assert.equal(conditions(after)["Ready"], "Unknown");
    assert.equal(nextStaleMs(silent.status?.nodes ?? [], nowMs, staleAfterMs), null);
  });

  it("says that the quorum is lost", () => {
    const status = derive(
      volume({ nodes: [report({ mars: "OutOfSync", venus: "OutOfSync" }, { state: "QuorumLost" })] }),
    );
    assert.equal(status.phase, "QuorumLost");
    assert.equal(conditions(status)["Ready"], "False");
    assert.equal(conditions(status)["QuorumMet"], "False");
  });

  it("refuses directories of several nodes, and says what to use", () => {
    const of = volume();
    const backends = new Map([
      ["mars", { kind: "place" as const, place: { hostPath: { node: "n1", path: "/a" } } }],
      ["venus", { kind: "place" as const, place: { hostPath: { node: "n2", path: "/a" } } }],
    ]);
    const accepted = derive(of, { backends, hasPersistentVolume: false }).conditions?.[0];
    assert.equal(accepted?.status, "False");
    assert.match(accepted?.message ?? "", /several nodes \(n1, n2\), and no node reaches all of them; use NFS exports/);
  });

  it("keeps the time of a condition that did not change", () => {
    const nodes = [report({ mars: "InSync", venus: "InSync" })];
    const first = derive(volume({ nodes }));
    const later = derive(volume({ ...first, nodes }), { nowMs: nowMs + 5_000 });
    assert.deepEqual(later, first);
  });

  it("is Deleting once it was told to go", () => {
    assert.equal(derive(volume({}, ["a"], { deletionTimestamp: ago(1) })).phase, "Deleting");
  });
});

describe("newsBetween()", () => {
  it("tells of a lost replica once, and when it is back", () => {
    const good = derive(volume({ nodes: [report({ mars: "InSync", venus: "InSync" })] }));
    const bad = derive(volume({ nodes: [report({ mars: "InSync", venus: "Unreachable" }, { state: "Degraded" })] }));
    assert.deepEqual(newsBetween(undefined, good), []);
    assert.deepEqual(
      newsBetween(good, bad).map(({ reason }) => reason),
      ["ReplicaLost"],
    );
    assert.deepEqual(newsBetween(bad, bad), []);
    assert.deepEqual(
      newsBetween(bad, good).map(({ reason }) => reason),
      ["ReplicaBack"],
    );
  });
});
