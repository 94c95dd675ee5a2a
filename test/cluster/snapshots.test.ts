/** Snapshots on a real cluster of two nodes with NFS servers, by helm and kubectl alone: made, restored, cloned, removed. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { brokenNetwork } from "../kubernetes/broken-network.ts";
import { eventually } from "../kubernetes/eventually.ts";
import { findProgram, skipWithout } from "../kubernetes/programs.ts";
import { snapshotCrds } from "../kubernetes/snapshot-crds.ts";
import { Ganesha } from "../nfs/ganesha.ts";
import { Cluster, clusterAddress, skipWithoutCluster } from "./cluster.ts";
import { skipWithoutNfs } from "./nfs-servers.ts";
import { claim, goesOn, pod } from "./workload.ts";

const chart = join(import.meta.dirname, "../../charts/chiron");
const crds = snapshotCrds();
const missing =
  skipWithoutCluster() ||
  skipWithoutNfs() ||
  skipWithout("snapshot-controller") ||
  (crds === null && "LEFT OUT: Go does not have the CRDs of VolumeSnapshots");

describe("Snapshots on a cluster of two nodes", { skip: missing }, () => {
  let cluster: Cluster;
  let controller: ChildProcess | null = null;
  /** One server with two exports, for a class has one port for all of its places. */
  let server: Ganesha;
  let network: Awaited<ReturnType<typeof brokenNetwork>>;
  const names = ["mars", "venus"];
  before(async () => {
    cluster = await Cluster.start(2);
    const exports = join(cluster.directory, "exports");
    mkdirSync(exports);
    server = await Ganesha.start({ exports: names, directory: exports });
    network = await brokenNetwork(`http://127.0.0.1:${server.port}`, clusterAddress);
    for (const file of crds ?? []) await cluster.must("apply", "--server-side", "-f", file);
    const program = findProgram("snapshot-controller") ?? "snapshot-controller";
    controller = spawn(program, [`--kubeconfig=${cluster.kubeconfig}`, "--leader-election=false"], { stdio: "ignore" });
    const nfs = names.map((name) => `${clusterAddress}:/${name}`).join(",");
    await cluster.helm(
      "install",
      "chiron",
      chart,
      "--namespace=chiron",
      "--create-namespace",
      "--set=image.repository=localhost/chiron",
      "--set-string=image.tag=1",
      ...["provisioner", "resizer", "snapshotter"].map(
        (name) => `--set=sidecars.${name}.image=localhost/csi-${name}:1`,
      ),
      "--set=snapshots.enabled=true",
      "--set=storageClasses[0].name=chiron",
      `--set-json=storageClasses[0].parameters=${JSON.stringify({ nfs })}`,
      `--set-json=storageClasses[0].mountOptions=${JSON.stringify(["vers=4.1", `port=${network.port}`])}`,
      "--wait",
      "--timeout=180s",
    );
  });
  after(async () => {
    controller?.kill("SIGKILL");
    await network?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  const running = async (name: string) => {
    const { code } = await cluster.kubectl("wait", "--for=condition=Ready", `pod/${name}`, "--timeout=120s");
    if (code !== 0)
      throw new Error((await cluster.must("describe", "pod", name)).split("Events:")[1] ?? `pod ${name} does not run`);
  };
  const bound = async (name: string) => {
    const { code } = await cluster.kubectl(
      "wait",
      "--for=jsonpath={.status.phase}=Bound",
      `pvc/${name}`,
      "--timeout=90s",
    );
    if (code !== 0) throw new Error(await cluster.must("describe", "pvc", name));
  };

  it("shows one moment of a volume that a pod writes, and is restored on the other node", async () => {
    await cluster.apply(
      claim("data", { storageClassName: "chiron" }),
      pod({ name: "writer", claim: "data", node: "n1" }),
    );
    await running("writer");
    await goesOn(cluster, "writer");
    await cluster.apply({
      apiVersion: "snapshot.storage.k8s.io/v1",
      kind: "VolumeSnapshot",
      metadata: { name: "moment" },
      spec: { volumeSnapshotClassName: "chiron", source: { persistentVolumeClaimName: "data" } },
    });
    const { code } = await cluster.kubectl(
      "wait",
      "--for=jsonpath={.status.readyToUse}=true",
      "volumesnapshot/moment",
      "--timeout=90s",
    );
    if (code !== 0) throw new Error(await cluster.must("get", "rvs,volumesnapshotcontents", "-o", "yaml"));
    await goesOn(cluster, "writer");
    const dataSource = { apiGroup: "snapshot.storage.k8s.io", kind: "VolumeSnapshot", name: "moment" };
    await cluster.apply(claim("restored", { storageClassName: "chiron", dataSource }));
    await bound("restored");
    await cluster.apply(pod({ name: "reader", claim: "restored", node: "n2" }));
    await running("reader");
    await goesOn(cluster, "reader");
    await goesOn(cluster, "writer");
    const [, row = ""] = (await cluster.must("get", "rvs")).split("\n");
    assert.match(row, /^snapshot-\S+\s+pvc-\S+\s+Ready\s/);
    const events = await cluster.must("get", "events", "-o", "jsonpath={.items[*].message}");
    assert.match(events, /changes waited \d+ ms/);
  });

  it("is cloned while a pod writes, and nothing is left when all of it is deleted", async () => {
    await cluster.apply(
      claim("clone", { storageClassName: "chiron", dataSource: { kind: "PersistentVolumeClaim", name: "data" } }),
    );
    await bound("clone");
    await goesOn(cluster, "writer");
    await cluster.must("delete", "pod", "writer", "reader", "--grace-period=1", "--timeout=90s");
    await cluster.must("delete", "volumesnapshot", "moment", "--timeout=90s");
    await cluster.must("delete", "pvc", "data", "restored", "clone", "--timeout=90s");
    await eventually(
      async () => {
        assert.equal(await cluster.must("get", "rv,rvs,pv", "-o", "name"), "");
        for (const name of names) assert.deepEqual(readdirSync(join(server.directory, name)), []);
      },
      120_000,
      1_000,
    );
  });
});
