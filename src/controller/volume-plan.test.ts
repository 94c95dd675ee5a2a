import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { provisionedLabel, volumeFinalizer } from "../api/names.ts";
import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { resolveBackend } from "./backends.ts";
import type { PersistentVolume, PersistentVolumeClaim } from "./objects.ts";
import { volumeNameOf } from "./volume-names.ts";
import { type Plan, planVolume } from "./volume-plan.ts";

const nowMs = Date.parse("2026-01-01T00:00:00Z");
type Spec = ReplicatedVolume["spec"];
const nothing = { persistentVolume: () => null, persistentVolumeClaim: () => null };

const volume = (spec: Partial<Spec> = {}, metadata: object = {}, status: object = {}): ReplicatedVolume => ({
  apiVersion: "chiron.storage/v1alpha1",
  kind: "ReplicatedVolume",
  metadata: { name: "v", finalizers: [volumeFinalizer], ...metadata },
  spec: {
    capacity: "1Gi",
    accessModes: ["ReadWriteOnce"],
    replicas: [{ name: "a", readPriority: "Normal", nfs: { server: "mars", path: "/e" } }],
    readPolicy: "RoundRobin",
    fullPolicy: "FailWrites",
    writeCache: "None",
    reclaimPolicy: "Retain",
    ...spec,
  },
  status,
});
const plan = (of: ReplicatedVolume, pv: PersistentVolume | null = null, snapshots: readonly string[] = []): Plan => {
  const backends = new Map(of.spec.replicas.map((replica) => [replica.name, resolveBackend(replica, nothing)]));
  return planVolume({ volume: of, backends, pv, snapshots, nowMs, staleAfterMs: 60_000 });
};
const kinds = ({ steps }: Plan) => steps.map(({ kind }) => kind);
const madePv = (of: ReplicatedVolume, more: object = {}): PersistentVolume => {
  const step = plan(of).steps.find(({ kind }) => kind === "create-pv");
  assert.ok(step?.kind === "create-pv");
  return { ...step.pv, ...more };
};
const bound = { status: { phase: "Bound" } };
const deleted = { deletionTimestamp: "2026-01-01T00:00:00Z" };

describe("planVolume()", () => {
  it("takes its finalizer before it makes anything", () => {
    assert.deepEqual(kinds(plan(volume({}, { finalizers: ["other"] }))), ["add-finalizer", "create-pv"]);
  });

  it("makes a PersistentVolume that keeps the trees and is for the named claim only", () => {
    const { spec } = madePv(volume({ claimRef: { namespace: "default", name: "data" } }));
    assert.equal(spec.persistentVolumeReclaimPolicy, "Retain");
    assert.deepEqual(spec.csi, { driver: "csi.chiron.storage", volumeHandle: "v" });
    assert.deepEqual(spec.claimRef, {
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      namespace: "default",
      name: "data",
    });
    assert.equal(spec.nodeAffinity, undefined);
  });

  it("ties a volume of directories to their node", () => {
    const { spec } = madePv(
      volume({ replicas: [{ name: "a", readPriority: "Normal", hostPath: { node: "n1", path: "/a" } }] }),
    );
    const [term] = spec.nodeAffinity?.required?.nodeSelectorTerms ?? [];
    assert.deepEqual(term?.matchExpressions, [{ key: "csi.chiron.storage/node", operator: "In", values: ["n1"] }]);
  });

  it("makes none while a replica's place is not known, or no node reaches all", () => {
    assert.deepEqual(
      kinds(plan(volume({ replicas: [{ name: "a", readPriority: "Normal", persistentVolume: { name: "x" } }] }))),
      [],
    );
    const two = ["n1", "n2"].map((node) => ({
      name: node,
      readPriority: "Normal" as const,
      hostPath: { node, path: "/a" },
    }));
    assert.deepEqual(kinds(plan(volume({ replicas: two }))), []);
  });

  it("does nothing more once it is there, and leaves a provisioned volume's to csi-provisioner", () => {
    assert.deepEqual(kinds(plan(volume(), madePv(volume()))), []);
    assert.deepEqual(kinds(plan(volume({}, { labels: { [provisionedLabel]: "csi" } }))), []);
  });

  it("lets the PersistentVolume grow, and takes no claim off it", () => {
    const pv = madePv(volume());
    const grown = plan(volume({ capacity: "2Gi" }), pv);
    assert.deepEqual(grown.steps, [{ kind: "patch-pv", patch: { spec: { capacity: { storage: "2Gi" } } } }]);
    const used = { ...pv, spec: { ...pv.spec, claimRef: { namespace: "a", name: "b", uid: "u" } } };
    assert.deepEqual(kinds(plan(volume({ claimRef: { namespace: "c", name: "d" } }), used)), []);
    assert.deepEqual(kinds(plan(volume({ claimRef: { namespace: "c", name: "d" } }), pv)), ["patch-pv"]);
  });

  it("leaves somebody else's PersistentVolume of the same name alone, and says so", () => {
    const foreign = { metadata: { name: "v" }, spec: { nfs: { server: "x", path: "/" } } };
    const refused = plan(volume(), foreign);
    assert.deepEqual(kinds(refused), []);
    assert.match(refused.problem ?? "", /a PersistentVolume "v" that is not this volume's; rename one of them/);
    assert.deepEqual(kinds(plan(volume({}, deleted), foreign)), ["remove-finalizer"]);
  });

  it("deletes in order: the claim's user first, then the nodes, then the trees, then itself", () => {
    const spec = { reclaimPolicy: "Delete", subdirectory: "sub" } as const;
    const pv = { ...madePv(volume(spec)), ...bound };
    const claimed = { ...pv, spec: { ...pv.spec, claimRef: { namespace: "default", name: "data" } } };
    const first = plan(volume(spec, deleted), claimed);
    assert.deepEqual(kinds(first), ["delete-pv"]);
    assert.match(first.waiting ?? "", /claim default\/data is bound to it; delete that first/);

    const nodes = [{ name: "n1", state: "Healthy", reportedAt: "2026-01-01T00:00:00Z" }];
    assert.match(plan(volume(spec, deleted, { nodes })).waiting ?? "", /node n1 still uses it/);
    assert.match(plan(volume(spec, deleted, { holder: "n1" })).waiting ?? "", /node n1 holds it/);

    const trees = plan(volume(spec, deleted, { treesMade: true }));
    assert.equal(trees.removeTrees, true);
    assert.match(trees.waiting ?? "", /the trees of a \(mars:\/e\) are being removed/);
    assert.deepEqual(kinds(trees), ["label-removal"]);

    const last = plan(volume(spec, deleted, { treesMade: true, removedTrees: [{ replica: "a" }] }));
    assert.deepEqual(kinds(last), ["remove-finalizer"]);
  });

  it("removes no tree that snapshots lie in", () => {
    const of = volume({ reclaimPolicy: "Delete", subdirectory: "v" }, deleted, { treesMade: true });
    const waits = plan(of, null, ["s1", "s2"]);
    assert.deepEqual([kinds(waits), waits.removeTrees], [[], false]);
    assert.equal(waits.waiting, "its snapshots lie in its directories (s1, s2); delete them first");
    assert.equal(plan(of).removeTrees, true);
  });

  it("never removes a tree that is to be retained, or that was never made", () => {
    assert.deepEqual(kinds(plan(volume({ subdirectory: "sub" }, deleted, { treesMade: true }))), ["remove-finalizer"]);
    const never = plan(volume({ reclaimPolicy: "Delete", subdirectory: "sub" }, deleted));
    assert.equal(never.removeTrees, false);
    assert.deepEqual(kinds(never), ["remove-finalizer"]);
  });

  it("does nothing about a deleted volume whose finalizer is gone", () => {
    assert.deepEqual(kinds(plan(volume({}, { ...deleted, finalizers: [] }))), []);
  });
});

describe("resolveBackend()", () => {
  const pv = (spec: PersistentVolume["spec"]): PersistentVolume => ({ metadata: { name: "x" }, spec });
  const onNode = {
    required: {
      nodeSelectorTerms: [{ matchExpressions: [{ key: "kubernetes.io/hostname", operator: "In", values: ["n1"] }] }],
    },
  };
  const resolve = (found: PersistentVolume | null, claim: PersistentVolumeClaim | null = null) =>
    resolveBackend(
      claim
        ? { name: "a", readPriority: "Normal", persistentVolumeClaim: { namespace: "s", name: "c" } }
        : { name: "a", readPriority: "Normal", persistentVolume: { name: "x" } },
      { persistentVolume: () => found, persistentVolumeClaim: () => claim },
    );
  it("finds the export behind an NFS volume, with its mount options", () => {
    const found = resolve(pv({ nfs: { server: "mars", path: "/e" }, mountOptions: ["vers=3"] }));
    assert.deepEqual(found, {
      kind: "place",
      place: { nfs: { server: "mars", path: "/e", mountOptions: ["vers=3"] } },
    });
  });
  it("finds the directory and the node behind a local volume, and behind the claim that is bound to it", () => {
    const place = { kind: "place", place: { hostPath: { path: "/srv", node: "n1" } } };
    const local = pv({ local: { path: "/srv" }, nodeAffinity: onNode });
    assert.deepEqual(resolve(local), place);
    assert.deepEqual(resolve(local, { metadata: { name: "c" }, spec: { volumeName: "x" } }), place);
  });
  for (const [what, found, claim, message] of [
    ["a missing volume", null, null, /there is no PersistentVolume x/],
    ["an unbound claim", null, { metadata: { name: "c" }, spec: {} }, /PersistentVolumeClaim s\/c is not bound/],
    [
      "a directory of no named node",
      pv({ hostPath: { path: "/srv" } }),
      null,
      /give it a nodeAffinity on kubernetes.io\/hostname/,
    ],
    [
      "another CSI driver's volume",
      pv({ csi: { driver: "d", volumeHandle: "h" } }),
      null,
      /volume of CSI driver d; this release takes nfs, local and hostPath/,
    ],
  ] as const)
    it(`says what is wrong with ${what}`, () => {
      const resolved = resolve(found, claim);
      assert.ok(resolved.kind === "problem");
      assert.match(resolved.message, message);
    });
});

describe("volumeNameOf()", () => {
  it("keeps csi-provisioner's names, and makes different names of all others", () => {
    assert.equal(volumeNameOf("pvc-0b8f8e2c-4d1f-4a0a-9d1c-0123456789ab"), "pvc-0b8f8e2c-4d1f-4a0a-9d1c-0123456789ab");
    const names = ["Some Name", "some name", "x".repeat(128), `${"x".repeat(127)}y`, "-", "é", "a.b"].map(volumeNameOf);
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
  });
});
