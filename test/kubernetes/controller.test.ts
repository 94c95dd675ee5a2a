/** The controller as a process, against a real API server: over its CSI socket, and by what it does to objects. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { status } from "@grpc/grpc-js";
import { replicatedVolumes, typeOfVolume } from "../../src/api/resource.ts";
import type { PersistentVolume } from "../../src/controller/objects.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import {
  CreateVolumeRequest,
  VolumeCapability_AccessMode_Mode as Mode,
  VolumeCapability,
} from "../../src/csi/generated/csi.ts";
import { KubeClient, type KubeObject } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { events, persistentVolumes } from "../../src/kube/resources.ts";
import { type ApiServer, skipWithoutApiServer, startApiServer } from "./api-server.ts";
import { type CsiClients, call, csiClients } from "./csi-client.ts";
import { eventually } from "./eventually.ts";
import { type Daemon, freePort, startDaemon } from "./processes.ts";

const mount = VolumeCapability.fromPartial({ mount: {}, accessMode: { mode: Mode.SINGLE_NODE_WRITER } });

describe("the controller on a real API server", { skip: skipWithoutApiServer() }, () => {
  let api: ApiServer;
  let client: KubeClient;
  let directory: string;
  let controller: Daemon;
  let csi: CsiClients;
  let probes: string;

  const start = async (name: string) => {
    const socket = join(directory, `${name}.sock`);
    const port = await freePort();
    const daemon = startDaemon("src/controller/main.ts", [
      `--kubeconfig=${api.kubeconfigPath}`,
      `--endpoint=unix://${socket}`,
      `--probe-address=127.0.0.1:${port}`,
      "--namespace=default",
      "--log-level=debug",
      "--stale-after-seconds=3",
    ]);
    return { daemon, socket, probes: `http://127.0.0.1:${port}` };
  };
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "chiron-controller-"));
    api = await startApiServer();
    client = new KubeClient(await loadKubeConfig(api.kubeconfigPath));
    const started = await start("first");
    controller = started.daemon;
    probes = started.probes;
    await eventually(() => assert.match(controller.log(), /"leading"/));
    csi = csiClients(started.socket);
  });
  after(async () => {
    csi?.[Symbol.dispose]();
    await controller?.stop();
    client?.close();
    await api?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  const volume = (name: string, spec: object = {}) =>
    ({
      ...typeOfVolume,
      metadata: { name },
      spec: {
        capacity: "1Gi",
        replicas: ["mars", "venus"].map((server) => ({ name: server, nfs: { server, path: "/e" } })),
        ...spec,
      },
    }) as unknown as VolumeObject;
  const get = (name: string) => client.get<VolumeObject>(replicatedVolumes, name);
  const condition = (of: VolumeObject, type: string) => of.status?.conditions?.find((one) => one.type === type);
  const report = (name: string, replicas: object[], state = "Healthy", node = "n1") =>
    client.apply(
      replicatedVolumes,
      {
        ...typeOfVolume,
        metadata: { name },
        status: { nodes: [{ name: node, state, reportedAt: new Date().toISOString(), replicas }] },
      } as unknown as VolumeObject,
      `chiron-node-${node}`,
      "status",
    );

  it("makes the PersistentVolume of a ReplicatedVolume in less than five seconds", async () => {
    const startedMs = performance.now();
    await client.create(replicatedVolumes, volume("static", { claimRef: { namespace: "default", name: "data" } }));
    const pv = await eventually(() => client.get<PersistentVolume>(persistentVolumes, "static"));
    assert.ok(performance.now() - startedMs < 5_000);
    assert.equal(pv.spec.csi?.volumeHandle, "static");
    assert.equal(pv.spec.claimRef?.name, "data");
    const made = await eventually(async () => {
      const found = await get("static");
      assert.equal(found.status?.phase, "Available");
      return found;
    });
    assert.equal(made.status?.claim, "default/data");
    assert.deepEqual(made.status?.replicas?.[0]?.place, { nfs: { server: "mars", path: "/e" } });
    assert.equal(condition(made, "Accepted")?.status, "True");
  });

  it("derives the health from the nodes' reports, tells of a lost replica, and forgets a silent node's", async () => {
    await client.create(replicatedVolumes, volume("health"));
    const inSync = ["mars", "venus"].map((name) => ({ name, state: "InSync" }));
    await report("health", inSync);
    await eventually(async () => assert.equal((await get("health")).status?.phase, "Ready"));
    await report(
      "health",
      [inSync[0] ?? {}, { name: "venus", state: "Unreachable", reason: "Fault", message: "no route" }],
      "Degraded",
    );
    const degraded = await eventually(async () => {
      const found = await get("health");
      assert.equal(found.status?.phase, "Degraded");
      return found;
    });
    assert.equal(degraded.status?.inSyncReplicas, "1/2");
    await eventually(async () => {
      const { items } = await client.list<KubeObject & { reason: string; message: string }>(events, {
        fieldSelector: "involvedObject.name=health,reason=ReplicaLost",
      });
      assert.match(items[0]?.message ?? "", /replica "venus" is Unreachable \(Fault: no route\)/);
    });
    await eventually(async () => assert.equal((await get("health")).status?.phase, "Unknown"));
    // Reports written at the same moment by a node survive: each writer has its own fields.
    assert.equal((await get("health")).status?.nodes?.length, 1);
  });

  it("waits for the PersistentVolume behind a replica, and goes on when it is there", async () => {
    await client.create(
      replicatedVolumes,
      volume("behind", { replicas: [{ name: "a", persistentVolume: { name: "backend" } }] }),
    );
    await eventually(async () => {
      const accepted = condition(await get("behind"), "Accepted");
      assert.match(accepted?.message ?? "", /replica "a": there is no PersistentVolume backend/);
    });
    assert.equal(await client.find(persistentVolumes, "behind"), null);
    await client.create<PersistentVolume>(persistentVolumes, {
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: { name: "backend" },
      spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], nfs: { server: "moon", path: "/x" } },
    });
    await eventually(() => client.get(persistentVolumes, "behind"));
    await eventually(async () => {
      const { status: now } = await get("behind");
      assert.deepEqual(now?.replicas?.[0]?.place, { nfs: { server: "moon", path: "/x" } });
    });
  });

  it("deletes a volume that nobody uses, and keeps one that a node uses", async () => {
    await client.create(replicatedVolumes, volume("delete"));
    await eventually(() => client.get(persistentVolumes, "delete"));
    await report("delete", [{ name: "mars", state: "InSync" }]);
    await client.delete(replicatedVolumes, "delete");
    await eventually(async () => assert.equal((await get("delete")).status?.phase, "Deleting"));
    assert.notEqual(await client.find(persistentVolumes, "delete"), null);
    // Three seconds later the report is stale.
    await eventually(async () => assert.equal(await client.find(replicatedVolumes, "delete"), null));
    await eventually(async () => {
      const pv = await client.find(persistentVolumes, "delete");
      // Without the controller manager nobody takes its protection off.
      assert.ok(pv === null || pv.metadata.deletionTimestamp !== undefined);
    });
  });

  const request = (name: string, more: Partial<CreateVolumeRequest> = {}) =>
    CreateVolumeRequest.fromPartial({
      name,
      volumeCapabilities: [mount],
      parameters: {
        nfs: "mars:/e,venus:/e",
        "csi.storage.k8s.io/pvc/name": "claim",
        "csi.storage.k8s.io/pvc/namespace": "ns",
      },
      capacityRange: { requiredBytes: 5n << 30n },
      ...more,
    });
  const failsWith = (code: number, message: RegExp) => (error: { code: number; details: string }) => {
    assert.equal(error.code, code, error.details);
    assert.match(error.details, message);
    return true;
  };

  it("creates a volume of a StorageClass, answers the same again, and refuses another size", async () => {
    const { volume: made } = await call(csi.controller, "createVolume", request("pvc-1"));
    assert.equal(made?.volumeId, "pvc-1");
    assert.equal(made?.capacityBytes, 5n << 30n);
    const again = await call(csi.controller, "createVolume", request("pvc-1"));
    assert.deepEqual(again.volume, made);
    await assert.rejects(
      call(
        csi.controller,
        "createVolume",
        request("pvc-1", { capacityRange: { requiredBytes: 9n << 30n, limitBytes: 0n } }),
      ),
      failsWith(status.ALREADY_EXISTS, /is there with 5368709120 bytes, and 9663676416 are asked for/),
    );
    const { spec } = await get("pvc-1");
    assert.equal(spec.subdirectory, "pvc-1");
    assert.equal(spec.reclaimPolicy, "Delete");
    assert.equal(spec.capacity, "5Gi");
    assert.deepEqual(spec.claimRef, { namespace: "ns", name: "claim" });
    await eventually(async () => assert.equal((await get("pvc-1")).status?.phase, "Available"));
    assert.equal(await client.find(persistentVolumes, "pvc-1"), null, "csi-provisioner makes it");
  });

  it("says what is wrong with a StorageClass", async () => {
    await assert.rejects(
      call(csi.controller, "createVolume", request("bad", { parameters: { nfs: "mars" } })),
      failsWith(status.INVALID_ARGUMENT, /StorageClass parameter "nfs": cannot read "mars"; write it like/),
    );
    await assert.rejects(
      call(csi.controller, "createVolume", request("bad", { parameters: { hostPath: "n1:/a,n2:/a" } })),
      failsWith(status.INVALID_ARGUMENT, /directories of several nodes \(n1, n2\)/),
    );
    const block = VolumeCapability.fromPartial({ block: {}, accessMode: { mode: Mode.SINGLE_NODE_WRITER } });
    await assert.rejects(
      call(csi.controller, "createVolume", request("bad", { volumeCapabilities: [block] })),
      failsWith(status.INVALID_ARGUMENT, /block volumes are not supported/),
    );
    const many = VolumeCapability.fromPartial({ mount: {}, accessMode: { mode: Mode.MULTI_NODE_MULTI_WRITER } });
    await assert.rejects(
      call(csi.controller, "createVolume", request("bad", { volumeCapabilities: [many] })),
      failsWith(status.INVALID_ARGUMENT, /ReadWriteMany is not supported yet/),
    );
  });

  it("expands a volume, and answers the size that it has when it is larger already", async () => {
    await call(csi.controller, "createVolume", request("pvc-2"));
    const expand = (bytes: bigint) =>
      call(csi.controller, "controllerExpandVolume", {
        volumeId: "pvc-2",
        capacityRange: { requiredBytes: bytes, limitBytes: 0n },
        secrets: {},
        volumeCapability: mount,
      });
    assert.deepEqual(await expand(6n << 30n), { capacityBytes: 6n << 30n, nodeExpansionRequired: false });
    assert.equal((await expand(2n << 30n)).capacityBytes, 6n << 30n);
    assert.equal((await get("pvc-2")).spec.capacity, "6Gi");
  });

  it("says a volume's health in CSI's words", async () => {
    await call(csi.controller, "createVolume", request("pvc-3"));
    await report("pvc-3", [
      { name: "mars", state: "InSync" },
      { name: "venus", state: "OutOfSync", reason: "Diverged" },
    ]);
    await eventually(async () => {
      const { volumeHealth } = await call(csi.controller, "controllerGetVolumeHealth", {
        volumeId: "pvc-3",
        secrets: {},
      });
      assert.deepEqual(volumeHealth?.healthStatuses, [
        { status: 3, reason: "Diverged", message: 'replica "venus" is OutOfSync' },
      ]);
    });
  });

  it("deletes a volume, and answers the same when it is gone; a static one it leaves alone", async () => {
    await call(csi.controller, "createVolume", request("pvc-4"));
    await call(csi.controller, "deleteVolume", { volumeId: "pvc-4", secrets: { key: "hunter2" } });
    assert.equal(await client.find(replicatedVolumes, "pvc-4"), null);
    await call(csi.controller, "deleteVolume", { volumeId: "pvc-4", secrets: {} });
    await assert.rejects(
      call(csi.controller, "deleteVolume", { volumeId: "static", secrets: {} }),
      failsWith(status.FAILED_PRECONDITION, /was not made by a StorageClass; delete it with kubectl/),
    );
    assert.doesNotMatch(controller.log(), /hunter2/);
  });

  it("answers the kubelet's probes", async () => {
    assert.equal((await fetch(`${probes}/healthz`)).status, 200);
    assert.equal((await fetch(`${probes}/readyz`)).status, 200);
  });

  it("costs the API server nothing for volumes at rest", async () => {
    const requests = async () => {
      const { stdout } = await api.kubectl(["get", "--raw", "/metrics"]);
      let sum = 0;
      for (const [, count] of stdout.matchAll(
        /^apiserver_request_total\{[^}]*resource="(?:replicatedvolumes|persistentvolumes|persistentvolumeclaims|events)"[^}]*\} (\d+)/gm,
      ))
        sum += Number(count);
      return sum;
    };
    // Until the last report of the tests above is stale and written down.
    await eventually(async () => {
      const first = await requests();
      await new Promise((resolve) => setTimeout(resolve, 4_000));
      assert.equal(await requests(), first);
    });
  });

  it("ends with its Lease given back when it is told to stop, and the next one goes on at once", async () => {
    const { daemon: second } = await start("second");
    await using _ = second;
    assert.equal(await controller.stop(), 0);
    await eventually(() => assert.match(second.log(), /"leading"/), 14_000);
    await client.create(replicatedVolumes, volume("after"));
    await eventually(() => client.get(persistentVolumes, "after"));
  });
});
