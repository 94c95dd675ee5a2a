/**
 * Snapshots as a user has them: VolumeSnapshots by the real csi-snapshotter and snapshot-controller, claims made from them
 * and from other claims by the real csi-provisioner, up to files in a published path.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { snapshotFinalizer } from "../../src/api/names.ts";
import { replicatedVolumes, typeOfSnapshot, volumeSnapshots } from "../../src/api/resource.ts";
import type { SnapshotObject } from "../../src/controller/csi-snapshots.ts";
import type { PersistentVolumeClaim } from "../../src/controller/objects.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  NodePublishVolumeRequest,
  NodeStageVolumeRequest,
  VolumeCapability,
} from "../../src/csi/generated/csi.ts";
import { persistentVolumeClaims } from "../../src/kube/resources.ts";
import { run } from "./api-server.ts";
import { call } from "./csi-client.ts";
import { eventually } from "./eventually.ts";
import { findProgram, skipWithout } from "./programs.ts";
import { type SmallCluster, skipWithoutSmallCluster, startSmallCluster } from "./small-cluster.ts";
import { snapshotCrds } from "./snapshot-crds.ts";

const programs = ["csi-snapshotter", "snapshot-controller", "csi-provisioner", "kube-controller-manager"];
const crds = snapshotCrds();
const missing =
  skipWithout(...programs) || skipWithoutSmallCluster() || (crds === null && "LEFT OUT: no snapshot CRDs");
const capability = VolumeCapability.fromPartial({ mount: {}, accessMode: { mode: Mode.SINGLE_NODE_WRITER } });

describe("VolumeSnapshots and clones", { skip: missing }, () => {
  let cluster: SmallCluster;
  const children: ChildProcess[] = [];
  let log = "";
  let ending = false;
  /** Sidecars end when their driver's socket does, and are started again, as in a pod. */
  const start = (name: string, ...args: string[]) => {
    const child = spawn(findProgram(name) ?? name, args, { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-20_000);
    });
    children.push(child);
    child.once("exit", () => {
      if (!ending) setTimeout(() => start(name, ...args), 200);
    });
  };
  const apply = async (...objects: object[]) => {
    const ran = await cluster.kubectl(
      ["apply", "-f", "-"],
      objects.map((object) => JSON.stringify(object)).join("\n---\n"),
    );
    assert.equal(ran.code, 0, ran.stderr);
  };
  before(async () => {
    cluster = await startSmallCluster();
    const kubeconfig = `--kubeconfig=${cluster.api.kubeconfigPath}`;
    for (const file of crds ?? []) {
      const ran = await cluster.kubectl(["apply", "--server-side", "-f", file]);
      assert.equal(ran.code, 0, ran.stderr);
    }
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
      "--timeout=60s",
      "--retry-interval-max=5s",
    );
    start("snapshot-controller", kubeconfig, "--leader-election=false");
    start(
      "csi-snapshotter",
      kubeconfig,
      `--csi-address=${cluster.controllerSocket}`,
      "--leader-election=false",
      "--timeout=60s",
      "--retry-interval-max=5s",
    );
    await apply(
      {
        apiVersion: "storage.k8s.io/v1",
        kind: "StorageClass",
        metadata: { name: "chiron" },
        provisioner: "csi.chiron.storage",
        parameters: { hostPath: cluster.places("a", "b") },
      },
      {
        apiVersion: "snapshot.storage.k8s.io/v1",
        kind: "VolumeSnapshotClass",
        metadata: { name: "chiron" },
        driver: "csi.chiron.storage",
        deletionPolicy: "Delete",
        parameters: { maxPauseSeconds: "10" },
      },
    );
  });
  after(async () => {
    ending = true;
    for (const child of children) child.kill("SIGKILL");
    await cluster?.[Symbol.asyncDispose]();
  });

  const claim = (name: string, dataSource?: object) => ({
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name, namespace: "default" },
    spec: {
      storageClassName: "chiron",
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: "1Gi" } },
      ...(dataSource ? { dataSource } : {}),
    },
  });
  const volumeOf = (name: string) =>
    eventually(
      async () => {
        const found = await cluster.client.get<PersistentVolumeClaim>(persistentVolumeClaims, name, "default");
        assert.equal(found.status?.phase, "Bound", log.slice(-3_000));
        return found.spec.volumeName ?? "";
      },
      120_000,
      250,
    );
  const staging = (id: string) => join(cluster.directory, "kubelet/plugins", id);
  const target = (id: string) => join(cluster.directory, "kubelet/pods", id);
  const use = async (id: string) => {
    await call(
      cluster.csi.node,
      "nodeStageVolume",
      NodeStageVolumeRequest.fromPartial({
        volumeId: id,
        stagingTargetPath: staging(id),
        volumeCapability: capability,
      }),
    );
    await call(
      cluster.csi.node,
      "nodePublishVolume",
      NodePublishVolumeRequest.fromPartial({
        volumeId: id,
        stagingTargetPath: staging(id),
        targetPath: target(id),
        volumeCapability: capability,
      }),
    );
  };
  const leave = async (id: string) => {
    await call(cluster.csi.node, "nodeUnpublishVolume", { volumeId: id, targetPath: target(id) });
    await call(cluster.csi.node, "nodeUnstageVolume", { volumeId: id, stagingTargetPath: staging(id) });
  };
  const sh = async (script: string) => {
    const { code, stdout, stderr } = await run("sh", ["-c", script]);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const takeSnapshot = async (name: string, source: string) => {
    await apply({
      apiVersion: "snapshot.storage.k8s.io/v1",
      kind: "VolumeSnapshot",
      metadata: { name, namespace: "default" },
      spec: { volumeSnapshotClassName: "chiron", source: { persistentVolumeClaimName: source } },
    });
    await eventually(
      async () => {
        const { stdout } = await cluster.kubectl([
          "get",
          "volumesnapshot",
          name,
          "-o",
          "jsonpath={.status.readyToUse}",
        ]);
        assert.equal(stdout, "true", log.slice(-3_000));
      },
      120_000,
      250,
    );
  };
  const gone = (what: () => Promise<readonly unknown[]>) =>
    eventually(async () => assert.deepEqual(await what(), [], log.slice(-2_000)), 120_000, 250);

  let first = "";

  it("restore a volume that is in use, up to files in a published path", async () => {
    await apply(claim("first"));
    first = await volumeOf("first");
    await use(first);
    await sh(`cd ${target(first)}; mkdir d; echo one > d/file; ln d/file link; chmod 751 d; chown 5:6 d/file`);
    await takeSnapshot("moment", "first");
    await sh(`cd ${target(first)}; echo two > d/file; rm link; echo more > more`);
    await apply(claim("restored", { apiGroup: "snapshot.storage.k8s.io", kind: "VolumeSnapshot", name: "moment" }));
    const restored = await volumeOf("restored");
    await use(restored);
    assert.equal(
      await sh(`cd ${target(restored)}; cat d/file link; stat -c '%a' d; stat -c '%u:%g %h' d/file; ls`),
      "one\none\n751\n5:6 2\nd\nlink\n",
    );
    assert.equal(await sh(`cat ${target(first)}/d/file`), "two\n", "the volume goes on");
    const volume = await cluster.client.get<VolumeObject>(replicatedVolumes, restored);
    await eventually(async () => {
      const { status } = await cluster.client.get<VolumeObject>(replicatedVolumes, restored);
      assert.equal(status?.inSyncReplicas, "2/2");
    });
    assert.equal(volume.status?.filled, true);
    await sh(`echo own > ${target(restored)}/own`);
    for (const replica of ["a", "b"])
      assert.equal(readFileSync(join(cluster.directory, replica, restored, "own"), "utf8"), "own\n");
    const { stdout } = await cluster.kubectl(["get", "events", "-o", "jsonpath={.items[*].message}"]);
    assert.match(stdout, /snapshot ".*" of 2 files: n1 (copy|reflink), n1-2 (copy|reflink); changes waited \d+ ms/);
    await leave(restored);
    await leave(first);
  });

  it("are plain trees that anybody can copy by hand", async () => {
    const { items } = await cluster.client.list<SnapshotObject>(volumeSnapshots);
    const [snapshot] = items;
    assert.equal(items.length, 1);
    assert.deepEqual(
      snapshot?.status?.replicas?.map(({ name, state }) => [name, state]),
      [
        ["n1", "Ready"],
        ["n1-2", "Ready"],
      ],
    );
    for (const replica of ["a", "b"]) {
      const tree = join(cluster.directory, replica, first, ".chiron/snapshots", snapshot?.metadata.name ?? "");
      assert.equal(
        await sh(
          `cp -a ${tree}/. ${cluster.directory}/by-hand-${replica}; cat ${cluster.directory}/by-hand-${replica}/link`,
        ),
        "one\n",
      );
    }
  });

  it("clone a claim that nobody uses, and leave no snapshot behind", async () => {
    await apply(claim("clone", { kind: "PersistentVolumeClaim", name: "first" }));
    const clone = await volumeOf("clone");
    await use(clone);
    assert.equal(await sh(`cd ${target(clone)}; cat d/file more`), "two\nmore\n");
    await leave(clone);
    await gone(async () =>
      (await cluster.client.list<SnapshotObject>(volumeSnapshots)).items
        .map(({ metadata }) => metadata.name)
        .filter((name) => name.startsWith("clone-")),
    );
  });

  it("are made though the node plugin is killed at any step, and its own mounts do not stay", async () => {
    const killed = async () => {
      await cluster.daemons.node.stop("SIGKILL");
      await cluster.startNode();
    };
    for (const [index, afterMs] of [50, 400, 900, 1_500].entries()) {
      const name = `killed-${index}`;
      const made = await cluster.kubectl(
        ["apply", "-f", "-"],
        JSON.stringify({
          ...typeOfSnapshot,
          metadata: { name, finalizers: [snapshotFinalizer] },
          spec: { volume: first },
        }),
      );
      assert.equal(made.code, 0, made.stderr);
      await delay(afterMs);
      await killed();
      const ready = await eventually(
        async () => {
          const found = await cluster.client.get<SnapshotObject>(volumeSnapshots, name);
          assert.equal(found.status?.phase, "Ready", JSON.stringify(found.status));
          return found;
        },
        90_000,
        250,
      );
      assert.deepEqual(
        ready.status?.replicas?.map(({ state }) => state),
        ["Ready", "Ready"],
      );
      const ran = await cluster.kubectl(["delete", "rvs", name, "--wait=false"]);
      assert.equal(ran.code, 0, ran.stderr);
      if (index % 2 === 0) await killed();
    }
    await gone(async () =>
      (await cluster.client.list<SnapshotObject>(volumeSnapshots)).items
        .map(({ metadata }) => metadata.name)
        .filter((name) => name.startsWith("killed-")),
    );
    await eventually(async () => {
      const { status } = await cluster.client.get<VolumeObject>(replicatedVolumes, first);
      assert.ok(!status?.holder, `held by ${status?.holder}`);
      const own = join(cluster.directory, "kubelet/plugins/csi.chiron.storage/aside");
      assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(own));
    }, 120_000);
  });

  it("are made, restored and removed though the controller is killed at any step", async () => {
    const killed = async () => {
      await cluster.daemons.controller.stop("SIGKILL");
      await cluster.startController();
    };
    for (const [index, afterMs] of [100, 700, 1_500].entries()) {
      const name = `step-${index}`;
      const taking = takeSnapshot(name, "first");
      await delay(afterMs);
      await killed();
      await taking;
      const dataSource = { apiGroup: "snapshot.storage.k8s.io", kind: "VolumeSnapshot", name };
      await apply(claim(name, dataSource));
      await delay(afterMs);
      await killed();
      const restored = await volumeOf(name);
      assert.equal(
        await sh(`cat ${cluster.directory}/a/${restored}/d/file ${cluster.directory}/b/${restored}/d/file`),
        "two\ntwo\n",
      );
      await cluster.client.delete(persistentVolumeClaims, name, "default");
      const ran = await cluster.kubectl(["delete", "volumesnapshot", name, "--wait=false"]);
      assert.equal(ran.code, 0, ran.stderr);
      await delay(afterMs);
      await killed();
      await gone(async () =>
        (await cluster.client.list<VolumeObject>(replicatedVolumes)).items.filter(
          ({ metadata }) => metadata.name === restored,
        ),
      );
    }
    // What the test before has made, and nothing else.
    await eventually(
      async () => {
        const { items } = await cluster.client.list<SnapshotObject>(volumeSnapshots);
        assert.equal(items.length, 1, items.map(({ metadata }) => metadata.name).join());
      },
      90_000,
      500,
    );
  });

  it("keep their volume: its claim may go, and can be restored from them", async () => {
    await cluster.client.delete(persistentVolumeClaims, "first", "default");
    await apply(claim("again", { apiGroup: "snapshot.storage.k8s.io", kind: "VolumeSnapshot", name: "moment" }));
    const again = await volumeOf("again");
    await use(again);
    assert.equal(await sh(`cat ${target(again)}/d/file`), "one\n");
    await leave(again);
    assert.notEqual(await cluster.client.find(replicatedVolumes, first), null, "its snapshot lies in its directories");
  });

  it("leave nothing behind when they and the claims are deleted", async () => {
    const ran = await cluster.kubectl(["delete", "volumesnapshot", "moment", "--wait=false"]);
    assert.equal(ran.code, 0, ran.stderr);
    for (const name of ["restored", "clone", "again"])
      await cluster.client.delete(persistentVolumeClaims, name, "default");
    await gone(async () => (await cluster.client.list(volumeSnapshots)).items);
    await gone(async () => (await cluster.client.list(replicatedVolumes)).items);
    for (const replica of ["a", "b"]) assert.deepEqual(readdirSync(join(cluster.directory, replica)), []);
  });
});
