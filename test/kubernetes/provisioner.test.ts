/** Many volumes by the real csi-provisioner and Kubernetes' own volume controllers; what they cost, and what they leave. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { replicatedVolumes, typeOfVolume } from "../../src/api/resource.ts";
import type { PersistentVolumeClaim } from "../../src/controller/objects.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import { persistentVolumeClaims, persistentVolumes } from "../../src/kube/resources.ts";
import { eventually } from "./eventually.ts";
import type { Daemon } from "./processes.ts";
import { findProgram, skipWithout } from "./programs.ts";
import { nodeName, type SmallCluster, skipWithoutSmallCluster, startSmallCluster } from "./small-cluster.ts";

const mebibyte = 1 << 20;

describe("csi-provisioner and the controller", {
  skip: skipWithout("csi-provisioner", "kube-controller-manager") || skipWithoutSmallCluster(),
}, () => {
  let cluster: SmallCluster;
  const programs: ChildProcess[] = [];
  let log = "";
  const start = (name: string, ...args: string[]) => {
    const child = spawn(findProgram(name) ?? name, args, { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-20_000);
    });
    programs.push(child);
  };
  before(async () => {
    cluster = await startSmallCluster({ compiled: true });
    const kubeconfig = `--kubeconfig=${cluster.api.kubeconfigPath}`;
    const controllers = ["persistentvolume-binder", "persistentvolume-protection", "persistentvolumeclaim-protection"];
    start(
      "kube-controller-manager",
      kubeconfig,
      "--leader-elect=false",
      "--secure-port=0",
      `--controllers=${controllers.map((name) => `${name}-controller`).join(",")}`,
    );
    start(
      "csi-provisioner",
      kubeconfig,
      `--csi-address=${cluster.controllerSocket}`,
      "--extra-create-metadata",
      "--feature-gates=Topology=false",
      "--kube-api-qps=100",
      "--kube-api-burst=200",
      "--worker-threads=20",
    );
    const ran = await cluster.kubectl(
      ["apply", "-f", "-"],
      JSON.stringify({
        apiVersion: "storage.k8s.io/v1",
        kind: "StorageClass",
        metadata: { name: "chiron" },
        provisioner: "csi.chiron.storage",
        parameters: { hostPath: cluster.places("a", "b") },
      }),
    );
    assert.equal(ran.code, 0, ran.stderr);
  });
  after(async () => {
    for (const child of programs) child.kill("SIGKILL");
    await cluster?.[Symbol.asyncDispose]();
  });

  const claim = (name: string) => ({
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name, namespace: "default" },
    spec: { storageClassName: "chiron", accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } },
  });
  const inBatches = async (names: readonly string[], work: (name: string) => Promise<unknown>) => {
    for (let from = 0; from < names.length; from += 20) await Promise.all(names.slice(from, from + 20).map(work));
  };
  const create = (names: readonly string[]) =>
    inBatches(names, (name) => cluster.client.create(persistentVolumeClaims, claim(name)));
  const remove = (names: readonly string[]) =>
    inBatches(names, (name) => cluster.client.delete(persistentVolumeClaims, name, "default"));
  const bound = (count: number, timeoutMs: number) =>
    eventually(
      async () => {
        const { items } = await cluster.client.list<PersistentVolumeClaim>(persistentVolumeClaims);
        const ready = items.filter(({ status }) => status?.phase === "Bound").length;
        assert.equal(ready, count, log.slice(-2_000));
      },
      timeoutMs,
      250,
    );
  const nothingLeft = (timeoutMs: number) =>
    eventually(
      async () => {
        for (const resource of [persistentVolumeClaims, persistentVolumes, replicatedVolumes]) {
          const { items } = await cluster.client.list(resource);
          assert.equal(items.length, 0, `${resource.plural} are left: ${log.slice(-2_000)}`);
        }
      },
      timeoutMs,
      250,
    );
  /** Resident memory of a process. */
  const memory = (daemon: Daemon = cluster.daemons.controller) => {
    const text = readFileSync(`/proc/${daemon.child.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) * 1024;
  };

  it("binds a claim in less than five seconds, and leaves nothing behind when it is deleted", async () => {
    await create(["first"]); // starts everything up
    await bound(1, 60_000);
    const startedMs = performance.now();
    await create(["second"]);
    await bound(2, 60_000);
    assert.ok(performance.now() - startedMs < 5_000, `it took ${performance.now() - startedMs} ms`);
    const { items } = await cluster.client.list<VolumeObject>(replicatedVolumes);
    assert.deepEqual(new Set(items.map(({ spec }) => spec.claimRef?.name)), new Set(["first", "second"]));
    await remove(["first", "second"]);
    await nothingLeft(60_000);
    for (const name of ["a", "b"]) assert.deepEqual(readdirSync(join(cluster.directory, name)), []);
  });

  it("costs a node without volumes less than 150 MiB", () => {
    const used = memory(cluster.daemons.node) + memory(cluster.daemons.mountd);
    process.stderr.write(`node plugin and mount daemon: ${Math.round(used / mebibyte)} MiB\n`);
    assert.ok(used < 150 * mebibyte, `${used / mebibyte} MiB`);
  });

  it("makes and deletes 200 claims at once, twice, with the controller's memory flat", async () => {
    const names = Array.from({ length: 200 }, (_, index) => `many-${index}`);
    const after: number[] = [];
    for (let round = 0; round < 2; round += 1) {
      await create(names);
      await bound(200, 120_000);
      await remove(names);
      await nothingLeft(120_000);
      after.push(memory());
    }
    const [first = 0, second = 0] = after;
    assert.ok(second < first + 30 * mebibyte, `${first / mebibyte} MiB, then ${second / mebibyte} MiB`);
  });

  it("looks after 1,000 volumes in less than 150 MiB", async () => {
    const names = Array.from({ length: 1_000 }, (_, index) => `rv-${index}`);
    mkdirSync(join(cluster.directory, "c"));
    await inBatches(names, (name) =>
      cluster.client.create(replicatedVolumes, {
        ...typeOfVolume,
        metadata: { name },
        spec: {
          capacity: "1Gi",
          replicas: ["a", "b"].map((replica) => ({
            name: replica,
            hostPath: { node: nodeName, path: join(cluster.directory, replica, name) },
          })),
        },
      } as unknown as VolumeObject),
    );
    await eventually(
      async () => {
        const { stdout } = await cluster.kubectl(["get", "rv", "-o", "jsonpath={.items[*].status.phase}"]);
        assert.equal(stdout.split(" ").filter((phase) => phase === "Available").length, 1_000);
      },
      180_000,
      1_000,
    );
    const used = memory();
    process.stderr.write(`the controller with 1,000 volumes: ${Math.round(used / mebibyte)} MiB\n`);
    assert.ok(used < 150 * mebibyte, `${used / mebibyte} MiB`);
  });
});
