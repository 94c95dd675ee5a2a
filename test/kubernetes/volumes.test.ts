/** Volumes from end to end on a cluster of one node without a kubelet: objects, CSI calls, files in published paths. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { status } from "@grpc/grpc-js";
import { replicatedVolumes, typeOfVolume } from "../../src/api/resource.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  NodePublishVolumeRequest,
  NodeStageVolumeRequest,
  VolumeCapability,
} from "../../src/csi/generated/csi.ts";
import { persistentVolumes } from "../../src/kube/resources.ts";
import { mountDirectory, readRecord } from "../../src/volume/registry.ts";
import { run } from "./api-server.ts";
import { call } from "./csi-client.ts";
import { eventually } from "./eventually.ts";
import { nodeName, type SmallCluster, skipWithoutSmallCluster, startSmallCluster } from "./small-cluster.ts";

const capability = VolumeCapability.fromPartial({ mount: {}, accessMode: { mode: Mode.SINGLE_NODE_WRITER } });

describe("a volume on a cluster of one node", { skip: skipWithoutSmallCluster() }, () => {
  let cluster: SmallCluster;
  before(async () => {
    cluster = await startSmallCluster();
  });
  after(() => cluster?.[Symbol.asyncDispose]());

  const directory = (...names: string[]) => join(cluster.directory, ...names);
  const staging = (name: string) => directory("kubelet/plugins", name);
  const target = (name: string) => directory("kubelet/pods", name);
  const get = (name: string) => cluster.client.get<VolumeObject>(replicatedVolumes, name);
  const phaseIs = (name: string, phase: string) =>
    eventually(async () => {
      const found = await get(name);
      assert.equal(found.status?.phase, phase, JSON.stringify(found.status?.conditions));
      return found;
    });
  const hostPath = (name: string, path: string) => ({ name, hostPath: { node: nodeName, path } });
  const apply = async (name: string, spec: object) => {
    const ran = await cluster.kubectl(
      ["apply", "-f", "-"],
      JSON.stringify({ ...typeOfVolume, metadata: { name }, spec }),
    );
    assert.equal(ran.code, 0, ran.stderr);
  };
  const make = async (name: string, replicas = ["a", "b"], more: object = {}) => {
    for (const replica of replicas) mkdirSync(directory(`${name}-${replica}`));
    const spec = {
      capacity: "1Gi",
      replicas: replicas.map((replica) => hostPath(replica, directory(`${name}-${replica}`))),
    };
    await apply(name, { ...spec, ...more });
  };
  const stage = (volumeId: string) =>
    call(
      cluster.csi.node,
      "nodeStageVolume",
      NodeStageVolumeRequest.fromPartial({
        volumeId,
        stagingTargetPath: staging(volumeId),
        volumeCapability: capability,
      }),
    );
  const publish = (volumeId: string, readonly = false, where = volumeId) =>
    call(
      cluster.csi.node,
      "nodePublishVolume",
      NodePublishVolumeRequest.fromPartial({
        volumeId,
        stagingTargetPath: staging(volumeId),
        targetPath: target(where),
        volumeCapability: capability,
        readonly,
      }),
    );
  const unpublish = (volumeId: string, where = volumeId) =>
    call(cluster.csi.node, "nodeUnpublishVolume", { volumeId, targetPath: target(where) });
  const unstage = (volumeId: string) =>
    call(cluster.csi.node, "nodeUnstageVolume", { volumeId, stagingTargetPath: staging(volumeId) });
  const sh = async (script: string) => {
    const { code, stdout, stderr } = await run("sh", ["-c", script]);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const fails = (code: number, message: RegExp) => (error: { code: number; details: string }) => {
    assert.equal(error.code, code, error.details);
    assert.match(error.details, message);
    return true;
  };

  it("goes from kubectl apply to files in a published path, on every replica, and away again", async () => {
    await make("static");
    await phaseIs("static", "Available");
    await eventually(() => cluster.client.get(persistentVolumes, "static"));
    await stage("static");
    await publish("static");
    await sh(`echo hello > ${target("static")}/file`);
    for (const replica of ["a", "b"])
      assert.equal(readFileSync(directory(`static-${replica}/file`), "utf8"), "hello\n");
    const ready = await phaseIs("static", "Ready");
    assert.equal(ready.status?.inSyncReplicas, "2/2");
    assert.equal(ready.status?.holder, nodeName);

    const stats = await call(cluster.csi.node, "nodeGetVolumeStats", {
      volumeId: "static",
      volumePath: target("static"),
      stagingTargetPath: "",
    });
    assert.ok((stats.usage[0]?.total ?? 0n) > 0n);
    const { volumeHealth } = await call(cluster.csi.node, "nodeGetVolumeHealth", {
      volumeId: "static",
      volumePublishPath: target("static"),
      stagingTargetPath: "",
    });
    assert.deepEqual(volumeHealth?.healthStatuses, []);

    await stage("static");
    await publish("static");
    for (let again = 0; again < 2; again += 1) await unpublish("static");
    for (let again = 0; again < 2; again += 1) await unstage("static");
    assert.ok(!existsSync(target("static")) && !existsSync(staging("static")));
    const free = await phaseIs("static", "Available");
    assert.equal(free.status?.holder, undefined);
    assert.equal(free.status?.nodes, undefined);

    await cluster.client.delete(replicatedVolumes, "static");
    await eventually(async () => assert.equal(await cluster.client.find(replicatedVolumes, "static"), null));
    assert.equal(readFileSync(directory("static-a/file"), "utf8"), "hello\n", "Retain keeps every tree");
  });

  it("leaves no report of a node behind, however soon it is unmounted again", async () => {
    await make("quick");
    for (let again = 0; again < 8; again += 1) {
      await stage("quick");
      await new Promise((resolve) => setTimeout(resolve, again * 15));
      await unstage("quick");
      const { status: now } = await get("quick");
      assert.equal(now?.nodes, undefined);
      assert.equal(now?.holder, undefined);
    }
    await cluster.client.delete(replicatedVolumes, "quick");
    await eventually(async () => assert.equal(await cluster.client.find(replicatedVolumes, "quick"), null), 10_000);
  });

  it("is read-only where it is published so", async () => {
    await make("ro");
    await stage("ro");
    await publish("ro");
    await publish("ro", true, "ro-2");
    await sh(`echo x > ${target("ro")}/f`);
    assert.equal(await sh(`cat ${target("ro-2")}/f`), "x\n");
    const { stderr } = await run("sh", ["-c", `echo y > ${target("ro-2")}/f`]);
    assert.match(stderr, /Read-only file system/);
    await assert.rejects(
      publish("ro", false, "ro-2"),
      fails(status.ALREADY_EXISTS, /is published on .* with readonly true/),
    );
    await unpublish("ro", "ro-2");
    await unpublish("ro");
    await unstage("ro");
  });

  it("never lets anything be written below a mount that is missing", async () => {
    await make("missing");
    await assert.rejects(publish("missing"), fails(status.FAILED_PRECONDITION, /is not staged/));
    assert.ok(!existsSync(target("missing")));
  });

  it("goes on while the plugin is killed and started again, and is known to the new one", async () => {
    await make("restart");
    await stage("restart");
    await publish("restart");
    const file = `${target("restart")}/log`;
    // Appends a number every few milliseconds to a file that stays open, and stops at the first error.
    const writer = spawn("sh", [
      "-c",
      `exec 3>>${file}; i=0; while [ $i -lt 2000 ]; do echo $i >&3 || exit 1; i=$((i+1)); sleep 0.002; done`,
    ]);
    const ended = new Promise<number | null>((resolve) => writer.once("exit", resolve));
    for (let kill = 0; kill < 2; kill += 1) {
      await cluster.daemons.node.stop("SIGKILL");
      await cluster.startNode();
    }
    await cluster.daemons.mountd.stop("SIGKILL");
    await cluster.startMountd();
    assert.equal(await ended, 0, "the writer had an error");
    assert.equal(await sh(`wc -l < ${file}`), "2000\n");
    await phaseIs("restart", "Ready");
    await publish("restart");
    await unpublish("restart");
    await unstage("restart");
    assert.equal(readFileSync(directory("restart-a/log"), "utf8"), readFileSync(directory("restart-b/log"), "utf8"));
  });

  it("goes on when every process that served it was killed at once: the plugin has kept the descriptor", async () => {
    await make("revive");
    await stage("revive");
    await publish("revive");
    await eventually(() => assert.match(cluster.daemons.node.log(), /"descriptor kept","volume":"revive"/));
    const file = `${target("revive")}/log`;
    const writer = spawn("sh", [
      "-c",
      `exec 3>>${file}; i=0; while [ $i -lt 1000 ]; do echo $i >&3 || exit 1; i=$((i+1)); sleep 0.005; done`,
    ]);
    const ended = new Promise<number | null>((resolve) => writer.once("exit", resolve));
    await eventually(() => assert.ok(existsSync(directory("revive-a/log"))));
    const { holderPid } = readRecord(mountDirectory(staging("revive"), directory("run"))) ?? {};
    const { stdout: children } = await run("pgrep", ["-P", String(holderPid)]);
    await cluster.daemons.mountd.stop("SIGKILL");
    const pids = [holderPid, ...children.trim().split("\n")].map(Number);
    // Stopped first, so that none of them sees another one end.
    for (const signal of ["SIGSTOP", "SIGKILL"] as const) for (const pid of pids) process.kill(pid, signal);
    await cluster.startMountd();
    assert.equal(await ended, 0, "the writer had an error");
    assert.equal(await sh(`wc -l < ${file}`), "1000\n");
    assert.match(cluster.daemons.mountd.log(), /"mount brought back","volume":"revive"/);
    await phaseIs("revive", "Ready");
    await unpublish("revive");
    await unstage("revive");
    assert.equal(readFileSync(directory("revive-a/log"), "utf8"), readFileSync(directory("revive-b/log"), "utf8"));
  });

  it("loses a replica and gets it back while it is written, and says so", async () => {
    await make("fault");
    const lost = directory("fault-b");
    await sh(`mount -t tmpfs tmpfs ${lost}`);
    try {
      await stage("fault");
      await publish("fault");
      await sh(`echo one > ${target("fault")}/one`);
      await phaseIs("fault", "Ready");
      const image = directory("fault-elsewhere");
      mkdirSync(image);
      await sh(`mount --move ${lost} ${image} 2>/dev/null || { mount --bind ${lost} ${image} && umount -l ${lost}; }`);
      await sh(`echo two > ${target("fault")}/two`);
      const degraded = await phaseIs("fault", "Degraded");
      assert.equal(degraded.status?.inSyncReplicas, "1/2");
      assert.notEqual(degraded.status?.replicas?.find(({ name }) => name === "b")?.state, "InSync");
      await sh(`mount --bind ${image} ${lost}; umount -l ${image}`);
      await sh(`echo three > ${target("fault")}/three`);
      await phaseIs("fault", "Ready");
      assert.deepEqual(
        readdirSync(lost)
          .filter((name) => name !== ".chiron")
          .sort(),
        ["one", "three", "two"],
      );
      const { stdout } = await cluster.kubectl(["get", "events", "-o", "jsonpath={.items[*].reason}"]);
      assert.match(stdout, /ReplicaLost/);
      assert.match(stdout, /ReplicaBack/);
    } finally {
      await unpublish("fault").catch(() => {});
      await unstage("fault").catch(() => {});
      await run("umount", ["-l", lost]);
    }
  });

  it("is given a replica more and one less while it is used", async () => {
    await make("edit");
    await stage("edit");
    await publish("edit");
    await sh(`mkdir ${target("edit")}/d; for i in 1 2 3 4 5; do echo $i > ${target("edit")}/d/$i; done`);
    mkdirSync(directory("edit-c"));
    const [a, b, c] = ["a", "b", "c"].map((name) => hostPath(name, directory(`edit-${name}`)));
    await apply("edit", { capacity: "1Gi", replicas: [a, b, c] });
    await eventually(async () => assert.equal((await phaseIs("edit", "Ready")).status?.inSyncReplicas, "3/3"));
    assert.deepEqual(readdirSync(directory("edit-c/d")).sort(), ["1", "2", "3", "4", "5"]);
    await apply("edit", { capacity: "1Gi", replicas: [b, c] });
    await eventually(async () => assert.equal((await get("edit")).status?.inSyncReplicas, "2/2"));
    await sh(`echo after > ${target("edit")}/after`);
    await eventually(() => assert.ok(!existsSync(directory("edit-a/after"))));
    assert.equal(readFileSync(directory("edit-c/after"), "utf8"), "after\n");
    await unpublish("edit");
    await unstage("edit");
  });

  it("holds no more than its capacity, and more when it is expanded while it is used", async () => {
    await make("grow", ["a", "b"], { capacity: "32Mi" });
    await stage("grow");
    await publish("grow");
    const file = `${target("grow")}/file`;
    const stats = async () => {
      const { usage } = await call(cluster.csi.node, "nodeGetVolumeStats", {
        volumeId: "grow",
        volumePath: target("grow"),
        stagingTargetPath: "",
      });
      return usage[0];
    };
    assert.equal((await stats())?.total, 32n << 20n);
    await sh(`head -c 30M /dev/zero > ${file}`);
    await eventually(async () => {
      const { code, stderr } = await run("sh", ["-c", `head -c 8M /dev/zero >> ${file}-2`]);
      assert.notEqual(code, 0);
      assert.match(stderr, /No space left/);
    });
    await apply("grow", {
      capacity: "128Mi",
      replicas: ["a", "b"].map((replica) => hostPath(replica, directory(`grow-${replica}`))),
    });
    await eventually(() => sh(`head -c 60M /dev/zero > ${file}-3`));
    await eventually(async () => assert.equal((await stats())?.total, 128n << 20n));
    // Also for the next process of the same mount.
    const { holderPid } = readRecord(mountDirectory(staging("grow"), directory("run"))) ?? {};
    const { stdout: children } = await run("pgrep", ["-P", String(holderPid)]);
    for (const pid of children.trim().split("\n")) process.kill(Number(pid), "SIGKILL");
    await sh(`head -c 20M /dev/zero > ${file}-4`);
    await eventually(async () => assert.equal((await stats())?.total, 128n << 20n));
    await unpublish("grow");
    await unstage("grow");
  });

  it("is refused to a second node, until a person has said that the first one is down", async () => {
    await make("held");
    await phaseIs("held", "Available");
    const node = { apiVersion: "v1", kind: "Node", metadata: { name: "other" } };
    const made = await cluster.kubectl(["apply", "-f", "-"], JSON.stringify(node));
    assert.equal(made.code, 0, made.stderr);
    await cluster.client.mergePatch(replicatedVolumes, "held", { status: { holder: "other" } }, undefined, "status");
    await assert.rejects(
      stage("held"),
      fails(
        status.UNAVAILABLE,
        /is in use on node other, and one node at a time may write\. .* to save the wait, delete the node or taint it/,
      ),
    );
    await cluster.kubectl(["taint", "node", "other", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"]);
    await stage("held");
    assert.equal((await get("held")).status?.holder, nodeName);
    await unstage("held");
  });

  it("says what is wrong where it cannot be mounted", async () => {
    await apply("elsewhere", { capacity: "1Gi", replicas: [{ name: "a", hostPath: { node: "n9", path: "/srv" } }] });
    await assert.rejects(
      stage("elsewhere"),
      fails(status.FAILED_PRECONDITION, /is a directory of node n9, which node n1 cannot reach; run the pod there/),
    );
    await apply("nowhere", { capacity: "1Gi", replicas: [hostPath("a", directory("not-there"))] });
    await assert.rejects(stage("nowhere"), fails(status.UNAVAILABLE, /not-there/));
    assert.equal((await get("nowhere")).status?.holder, undefined, "what could not be mounted is not held");
    await assert.rejects(stage("nobody"), fails(status.NOT_FOUND, /"nobody" not found/));
  });
});
