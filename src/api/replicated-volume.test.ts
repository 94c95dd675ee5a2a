/** Each rule of the ReplicatedVolume, good and bad, on a real API server, with the message that a person sees. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type ApiServer, skipWithoutApiServer, startApiServer } from "../../test/kubernetes/api-server.ts";
import { minInSyncReplicas } from "./names.ts";

interface Spec {
  [field: string]: unknown;
}
const nfs = (name: string, server = name, path = "/export") => ({ name, nfs: { server, path } });
const good: Spec = { capacity: "10Gi", replicas: [nfs("mars"), nfs("venus")] };
const hostPath = (name: string, path: string, node = "n1") => ({ name, hostPath: { path, node } });

interface Refused {
  readonly rule: string;
  readonly spec: Spec;
  /** What the volume was before, where the rule is about a change. */
  readonly from?: Spec;
  readonly message: string;
}
const samePlace = "the place of a replica cannot be changed; add a replica with another name, and remove this one";
const refused: readonly Refused[] = [
  {
    rule: "a replica with no backend",
    spec: { ...good, replicas: [{ name: "mars" }] },
    message: "exactly one of nfs, persistentVolume, persistentVolumeClaim and hostPath must be given",
  },
  {
    rule: "a replica with two backends",
    spec: { ...good, replicas: [{ ...nfs("mars"), ...hostPath("mars", "/srv") }] },
    message: "exactly one of nfs, persistentVolume, persistentVolumeClaim and hostPath must be given",
  },
  {
    rule: "two replicas of one name",
    spec: { ...good, replicas: [nfs("mars", "a"), nfs("mars", "b")] },
    message: 'spec.replicas[1]: Duplicate value: {"name":"mars"}',
  },
  {
    rule: "a replica's name that is no DNS label",
    spec: { ...good, replicas: [nfs("Mars_1")] },
    message: "spec.replicas[0].name: Invalid value: must be a DNS label",
  },
  {
    rule: "no replicas",
    spec: { ...good, replicas: [] },
    message: "spec.replicas in body should have at least 1 items",
  },
  {
    rule: "nine replicas",
    spec: { ...good, replicas: Array.from({ length: 9 }, (_, i) => nfs(`r${i}`)) },
    message: "must have at most 8 items",
  },
  {
    rule: "two replicas at one NFS place",
    spec: { ...good, replicas: [nfs("a", "mars"), nfs("b", "mars")] },
    message: "two replicas must not be at the same place: their nfs is the same",
  },
  {
    rule: "two replicas on one PersistentVolume",
    spec: {
      ...good,
      replicas: [
        { name: "a", persistentVolume: { name: "pv" } },
        { name: "b", persistentVolume: { name: "pv" } },
      ],
    },
    message: "two replicas must not be at the same place: their persistentVolume is the same",
  },
  {
    rule: "two replicas on one claim",
    spec: {
      ...good,
      replicas: [
        { name: "a", persistentVolumeClaim: { namespace: "x", name: "c" } },
        { name: "b", persistentVolumeClaim: { namespace: "x", name: "c" } },
      ],
    },
    message: "two replicas must not be at the same place: their persistentVolumeClaim is the same",
  },
  {
    rule: "two replicas in one directory of a node",
    spec: { ...good, replicas: [hostPath("a", "/srv/a"), hostPath("b", "/srv/a")] },
    message: "two replicas must not be at the same place: their hostPath is the same",
  },
  {
    rule: "an NFS path that is not absolute",
    spec: { ...good, replicas: [nfs("mars", "mars", "export")] },
    message: "spec.replicas[0].nfs.path: Invalid value: must be an absolute path without '..'",
  },
  {
    rule: "a host path with '..'",
    spec: { ...good, replicas: [hostPath("a", "/srv/../etc")] },
    message: "spec.replicas[0].hostPath.path: Invalid value: must be an absolute path without '..'",
  },
  { rule: "no capacity", spec: { replicas: [nfs("mars")] }, message: "spec.capacity: Required value" },
  {
    rule: "a capacity that is no quantity",
    spec: { ...good, capacity: "ten" },
    message: "spec.capacity in body should match",
  },
  {
    rule: "a capacity of zero",
    spec: { ...good, capacity: "0Gi" },
    message: "spec.capacity: Invalid value: must be more than 0",
  },
  {
    rule: "a smaller capacity",
    from: good,
    spec: { ...good, capacity: "9Gi" },
    message: "spec.capacity: Invalid value: can only grow: a file system that holds data is never shrunk",
  },
  {
    rule: "an unknown access mode",
    spec: { ...good, accessModes: ["ReadWriteTwice"] },
    message: 'supported values: "ReadWriteOnce", "ReadWriteOncePod", "ReadOnlyMany", "ReadWriteMany"',
  },
  {
    rule: "ReadWriteOncePod beside another access mode",
    spec: { ...good, accessModes: ["ReadWriteOncePod", "ReadOnlyMany"] },
    message: "ReadWriteOncePod cannot be combined with other access modes",
  },
  {
    rule: "an access mode twice",
    spec: { ...good, accessModes: ["ReadWriteOnce", "ReadWriteOnce"] },
    message: 'spec.accessModes[1]: Duplicate value: "ReadWriteOnce"',
  },
  {
    rule: "more in-sync replicas than there are replicas",
    spec: { ...good, minInSyncReplicas: 3 },
    message: "spec.minInSyncReplicas: Invalid value: minInSyncReplicas cannot be more than there are replicas",
  },
  {
    rule: "minInSyncReplicas of zero",
    spec: { ...good, minInSyncReplicas: 0 },
    message: "spec.minInSyncReplicas in body should be greater than or equal to 1",
  },
  {
    rule: "all replicas replaced at once",
    from: good,
    spec: { ...good, replicas: [nfs("moon"), nfs("pluto")] },
    message: "at least one replica must stay: the others are filled from it",
  },
  {
    rule: "another server for a replica",
    from: good,
    spec: { ...good, replicas: [nfs("mars", "moon"), nfs("venus")] },
    message: samePlace,
  },
  {
    rule: "another kind of backend for a replica",
    from: good,
    spec: { ...good, replicas: [hostPath("mars", "/srv"), nfs("venus")] },
    message: samePlace,
  },
  {
    rule: "another PersistentVolume for a replica",
    from: { ...good, replicas: [{ name: "a", persistentVolume: { name: "one" } }] },
    spec: { ...good, replicas: [{ name: "a", persistentVolume: { name: "two" } }] },
    message: samePlace,
  },
  {
    rule: "another claim for a replica",
    from: { ...good, replicas: [{ name: "a", persistentVolumeClaim: { namespace: "x", name: "one" } }] },
    spec: { ...good, replicas: [{ name: "a", persistentVolumeClaim: { namespace: "x", name: "two" } }] },
    message: samePlace,
  },
  {
    rule: "another directory for a replica",
    from: { ...good, replicas: [hostPath("a", "/srv/a")] },
    spec: { ...good, replicas: [hostPath("a", "/srv/b")] },
    message: samePlace,
  },
  {
    rule: "another subdirectory",
    from: { ...good, subdirectory: "a" },
    spec: { ...good, subdirectory: "b" },
    message: "spec.subdirectory: Invalid value: cannot be changed",
  },
  {
    rule: "a subdirectory that was not there",
    from: good,
    spec: { ...good, subdirectory: "b" },
    message: "spec.subdirectory: Invalid value: cannot be changed",
  },
  {
    rule: "a subdirectory that leads out",
    spec: { ...good, subdirectory: "a/../../b" },
    message: "must be a relative path without '.', '..' or '.chiron'",
  },
  {
    rule: "reclaimPolicy Delete for an export's root",
    spec: { ...good, reclaimPolicy: "Delete" },
    message: "reclaimPolicy Delete needs a subdirectory: the root of an export is never deleted",
  },
  {
    rule: "adopting from a replica that is not there",
    spec: { ...good, adoptFrom: "pluto" },
    message: "spec.adoptFrom: Invalid value: adoptFrom must name one of the replicas",
  },
  {
    rule: "a bandwidth that is no quantity",
    spec: { ...good, resync: { bandwidth: "fast" } },
    message: "spec.resync.bandwidth in body should match",
  },
  {
    rule: "a scrub schedule of four fields",
    spec: { ...good, scrub: { schedule: "0 3 * *  " } },
    message: "must be five cron fields",
  },
  {
    rule: "an unknown readPolicy",
    spec: { ...good, readPolicy: "Random" },
    message: 'supported values: "RoundRobin", "Nearest", "LowestLatency"',
  },
];

const accepted: readonly { readonly what: string; readonly from?: Spec; readonly spec: Spec }[] = [
  { what: "two NFS replicas", spec: good },
  { what: "one replica", spec: { capacity: "1Mi", replicas: [nfs("mars")] } },
  { what: "eight replicas", spec: { ...good, replicas: Array.from({ length: 8 }, (_, i) => nfs(`r${i}`)) } },
  { what: "a capacity in plain bytes", spec: { ...good, capacity: 10737418240 } },
  {
    what: "one backend of each kind",
    spec: {
      ...good,
      replicas: [
        nfs("a"),
        hostPath("b", "/srv/b"),
        { name: "c", persistentVolume: { name: "pv" } },
        { name: "d", persistentVolumeClaim: { namespace: "x", name: "c" } },
      ],
    },
  },
  { what: "a larger capacity in other units", from: good, spec: { ...good, capacity: "11G" } },
  { what: "the same capacity in other units", from: good, spec: { ...good, capacity: 10737418240 } },
  { what: "a replica more", from: good, spec: { ...good, replicas: [nfs("mars"), nfs("venus"), nfs("moon")] } },
  { what: "a replica less", from: good, spec: { ...good, replicas: [nfs("venus")] } },
  { what: "a replica replaced", from: good, spec: { ...good, replicas: [nfs("venus"), nfs("moon")] } },
  {
    what: "other mount options",
    from: good,
    spec: {
      ...good,
      replicas: [{ name: "mars", nfs: { server: "mars", path: "/export", mountOptions: ["vers=3"] } }, nfs("venus")],
    },
  },
  {
    what: "reclaimPolicy Delete with a subdirectory",
    spec: { ...good, reclaimPolicy: "Delete", subdirectory: "pvc-1" },
  },
  {
    what: "all settings",
    spec: {
      ...good,
      accessModes: ["ReadWriteOnce", "ReadOnlyMany"],
      minInSyncReplicas: 2,
      readPolicy: "LowestLatency",
      fullPolicy: "DropReplica",
      writeCache: "WriteBack",
      resync: { bandwidth: "100M", mode: "Manual" },
      scrub: { schedule: "0 3 * * 0" },
      adoptFrom: "mars",
      claimRef: { namespace: "default", name: "data" },
    },
  },
];

describe("a ReplicatedVolume on a real API server", { skip: skipWithoutApiServer() }, () => {
  let api: ApiServer;
  let count = 0;
  before(async () => {
    api = await startApiServer();
  });
  after(() => api?.[Symbol.asyncDispose]());

  const apply = (name: string, spec: Spec) =>
    api.kubectl(
      ["apply", "--validate=strict", "-f", "-"],
      JSON.stringify({ apiVersion: "chiron.storage/v1alpha1", kind: "ReplicatedVolume", metadata: { name }, spec }),
    );
  const applyBoth = async (from: Spec | undefined, spec: Spec) => {
    count += 1;
    const name = `v${count}`;
    if (from) {
      const first = await apply(name, from);
      assert.equal(first.code, 0, first.stderr);
    }
    return { name, ran: await apply(name, spec) };
  };

  for (const { rule, from, spec, message } of refused)
    it(`refuses ${rule}`, async () => {
      const { ran } = await applyBoth(from, spec);
      assert.notEqual(ran.code, 0, "it was accepted");
      // Of an object the API server shows only what type it is.
      const said = ran.stderr.replaceAll(/Invalid value: "(object|string|)": /g, "Invalid value: ");
      assert.ok(said.includes(message), `said: ${ran.stderr}`);
    });

  for (const { what, from, spec } of accepted)
    it(`accepts ${what}`, async () => {
      const { ran } = await applyBoth(from, spec);
      assert.equal(ran.code, 0, ran.stderr);
    });

  it("fills in the defaults", async () => {
    const { name } = await applyBoth(undefined, good);
    const { stdout } = await api.kubectl(["get", "rv", name, "-o", "json"]);
    const { spec } = JSON.parse(stdout) as { spec: Spec };
    assert.deepEqual(spec, {
      ...good,
      accessModes: ["ReadWriteOnce"],
      replicas: [
        { ...nfs("mars"), readPriority: "Normal" },
        { ...nfs("venus"), readPriority: "Normal" },
      ],
      readPolicy: "RoundRobin",
      fullPolicy: "FailWrites",
      writeCache: "None",
      reclaimPolicy: "Retain",
    });
  });

  it("shows its health in columns", async () => {
    const { name } = await applyBoth(undefined, good);
    const status = { phase: "Syncing", inSyncReplicas: "1/2", syncProgress: "42%", claim: "default/data" };
    const patched = await api.kubectl([
      "patch",
      "rv",
      name,
      "--subresource=status",
      "--type=merge",
      "-p",
      JSON.stringify({ status }),
    ]);
    assert.equal(patched.code, 0, patched.stderr);
    const { stdout } = await api.kubectl(["get", "rv", name]);
    const [header = "", row = ""] = stdout.split("\n");
    assert.deepEqual(header.split(/\s+/), ["NAME", "PHASE", "IN-SYNC", "SYNCING", "CAPACITY", "CLAIM", "AGE"]);
    assert.deepEqual(row.split(/\s+/).slice(0, 6), [name, "Syncing", "1/2", "42%", "10Gi", "default/data"]);
  });

  it("explains its fields to kubectl explain", async () => {
    const { stdout } = await api.kubectl(["explain", "rv.spec.minInSyncReplicas"]);
    assert.match(stdout, /With fewer replicas in sync the volume turns\s+read-only/);
  });

  it("keeps what the status says of replicas and nodes", async () => {
    const { name } = await applyBoth(undefined, good);
    const status = {
      holder: "n1",
      nodes: [
        {
          name: "n1",
          state: "Degraded",
          reportedAt: "2026-01-01T00:00:00Z",
          replicas: [
            { name: "venus", state: "Syncing", progress: { percent: 10, filesRemaining: 3, bytesRemaining: 4e10 } },
          ],
        },
      ],
    };
    const patched = await api.kubectl([
      "patch",
      "rv",
      name,
      "--subresource=status",
      "--type=merge",
      "-p",
      JSON.stringify({ status }),
    ]);
    assert.equal(patched.code, 0, patched.stderr);
    const got = await api.kubectl(["get", "rv", name, "-o", "json"]);
    assert.deepEqual((JSON.parse(got.stdout) as { status: unknown }).status, status);
  });
});

describe("minInSyncReplicas()", () => {
  const of = (count: number, wanted?: number) => {
    const replicas = Array.from({ length: count }, (_, i) => ({ ...nfs(`r${i}`), readPriority: "Normal" as const }));
    return minInSyncReplicas(wanted === undefined ? { replicas } : { replicas, minInSyncReplicas: wanted });
  };
  it("is 1 for one and two replicas, and a majority from three on", () => {
    assert.deepEqual(
      [1, 2, 3, 4, 5, 8].map((count) => of(count)),
      [1, 1, 2, 3, 3, 5],
    );
  });
  it("is what was asked for", () => {
    assert.equal(of(3, 1), 1);
  });
});
