import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { decideWorker } from "./volume-worker.ts";

const volume = (places: readonly object[], holder?: string): ReplicatedVolume =>
  ({
    spec: { replicas: places.map((_, index) => ({ name: `r${index}` })) },
    status: { replicas: places.map((place, index) => ({ name: `r${index}`, place })), ...(holder ? { holder } : {}) },
  }) as unknown as ReplicatedVolume;
const nfs = { nfs: { server: "mars", path: "/e" } };
const directory = (node: string) => ({ hostPath: { node, path: "/srv" } });

describe("decideWorker()", () => {
  it("leaves a volume that is in use to its holder", () => {
    assert.deepEqual(decideWorker(volume([nfs, nfs], "n1"), "n1", 0, 0), { kind: "do" });
    assert.deepEqual(decideWorker(volume([nfs, nfs], "n2"), "n1", 0, 0), { kind: "leave" });
  });

  it("leaves directories to their node, and those of several nodes to nobody", () => {
    assert.deepEqual(decideWorker(volume([directory("n1"), nfs]), "n1", 0, 0), { kind: "do" });
    assert.deepEqual(decideWorker(volume([directory("n2"), nfs]), "n1", 0, 0), { kind: "leave" });
    assert.deepEqual(decideWorker(volume([directory("n1"), directory("n2")]), "n1", 0, 0), { kind: "leave" });
  });

  it("waits until the places are known", () => {
    const unknown = { spec: { replicas: [{ name: "a" }] }, status: {} } as unknown as ReplicatedVolume;
    assert.deepEqual(decideWorker(unknown, "n1", 0, 0), { kind: "leave" });
  });

  it("gives each node a time of its own where any could do it", () => {
    assert.deepEqual(decideWorker(volume([nfs]), "n1", 500, 10_500), { kind: "do" });
    assert.deepEqual(decideWorker(volume([nfs]), "n1", 500, 11_000), { kind: "wait", ms: 1_500 });
    for (let nowMs = 0; nowMs < 4_000; nowMs += 100) {
      const decision = decideWorker(volume([nfs]), "n1", 1_234, nowMs);
      if (decision.kind === "wait")
        assert.equal(decideWorker(volume([nfs]), "n1", 1_234, nowMs + decision.ms).kind, "do");
    }
  });
});
