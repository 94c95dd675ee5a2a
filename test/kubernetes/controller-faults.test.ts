/**
 * The controller where everything goes wrong: killed at every one of its writes, an API server that answers conflicts,
 * throttles and breaks watches, two controllers that both believe to lead. Each time the same life of two volumes.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { replicatedVolumes, typeOfVolume } from "../../src/api/resource.ts";
import type { PersistentVolume } from "../../src/controller/objects.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import {
  ControllerExpandVolumeRequest,
  CreateVolumeRequest,
  DeleteVolumeRequest,
  VolumeCapability_AccessMode_Mode as Mode,
  VolumeCapability,
} from "../../src/csi/generated/csi.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { leases, persistentVolumes } from "../../src/kube/resources.ts";
import { seeded } from "../../src/replica/testing/random.ts";
import { type ApiServer, skipWithoutApiServer, startApiServer } from "./api-server.ts";
import { call, csiClients } from "./csi-client.ts";
import { eventually } from "./eventually.ts";
import { type MeddledApi, startMeddledApi } from "./meddled-api.ts";
import { type Daemon, freePort, startDaemon } from "./processes.ts";

const volumeCapabilities = [VolumeCapability.fromPartial({ mount: {}, accessMode: { mode: Mode.SINGLE_NODE_WRITER } })];
const GiB = 1n << 30n;

describe("a controller among faults, on a real API server", { skip: skipWithoutApiServer() }, () => {
  let api: ApiServer;
  let meddled: MeddledApi;
  let client: KubeClient;
  let directory: string;
  before(async () => {
    api = await startApiServer();
    meddled = await startMeddledApi(api);
    client = new KubeClient(await loadKubeConfig(api.kubeconfigPath));
    directory = mkdtempSync(join(tmpdir(), "chiron-cf-"));
  });
  after(async () => {
    client?.close();
    await meddled?.[Symbol.asyncDispose]();
    await api?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  const socket = () => join(directory, "csi.sock");
  const start = async (namespace = "default", endpoint = socket()): Promise<Daemon> =>
    startDaemon("src/controller/main.ts", [
      `--kubeconfig=${meddled.kubeconfigPath}`,
      `--endpoint=unix://${endpoint}`,
      `--probe-address=127.0.0.1:${await freePort()}`,
      `--namespace=${namespace}`,
      "--log-level=debug",
    ]);

  /** As csi-provisioner and a person would do it: tried again until it is done. Answers when nothing is left of either. */
  const live = async (name: string): Promise<void> => {
    const csi = csiClients(socket());
    const ask = <T>(make: () => Promise<T>) => eventually(make, 90_000, 200);
    const fixed = `${name}-fixed`;
    try {
      const replicas = ["mars", "venus"].map((server) => ({ name: server, nfs: { server, path: `/${name}` } }));
      await client.create(replicatedVolumes, {
        ...typeOfVolume,
        metadata: { name: fixed },
        spec: { capacity: "1Gi", replicas },
      } as never);
      const made = await ask(() =>
        call(
          csi.controller,
          "createVolume",
          CreateVolumeRequest.fromPartial({
            name,
            volumeCapabilities,
            parameters: { nfs: "mars:/e,venus:/e" },
            capacityRange: { requiredBytes: 2n * GiB },
          }),
        ),
      );
      const volumeId = made.volume?.volumeId ?? "";
      for (const id of [volumeId, fixed])
        await ask(async () => {
          const { status, metadata } = await client.get<VolumeObject>(replicatedVolumes, id);
          assert.equal(status?.phase, "Available");
          assert.equal(status?.observedGeneration, metadata.generation);
        });
      const pv = await ask(() => client.get<PersistentVolume>(persistentVolumes, fixed));
      assert.equal(pv.spec.csi?.volumeHandle, fixed);
      const { items } = await client.list<VolumeObject>(replicatedVolumes);
      assert.equal(
        items.filter(({ metadata }) => metadata.name.includes(name)).length,
        2,
        "one of each, however often it was asked for",
      );

      await ask(() =>
        call(
          csi.controller,
          "controllerExpandVolume",
          ControllerExpandVolumeRequest.fromPartial({ volumeId, capacityRange: { requiredBytes: 5n * GiB } }),
        ),
      );
      await client.mergePatch(replicatedVolumes, fixed, { spec: { capacity: "5Gi" } });
      await ask(async () =>
        assert.equal((await client.get<PersistentVolume>(persistentVolumes, fixed)).spec.capacity?.["storage"], "5Gi"),
      );
      const grown = await client.get<VolumeObject>(replicatedVolumes, volumeId);
      assert.ok(["5Gi", String(5n * GiB)].includes(String(grown.spec.capacity)), String(grown.spec.capacity));

      await client.delete(replicatedVolumes, fixed);
      await ask(() => call(csi.controller, "deleteVolume", DeleteVolumeRequest.fromPartial({ volumeId })));
      for (const id of [volumeId, fixed])
        await ask(async () => assert.equal(await client.find(replicatedVolumes, id), null));
      await ask(async () => {
        const left = await client.find(persistentVolumes, fixed);
        // Without the controller manager nobody takes its protection off.
        assert.ok(left === null || left.metadata.deletionTimestamp !== undefined);
      });
    } finally {
      csi[Symbol.dispose]();
    }
  };

  it("brings a volume's whole life to its end, killed at each of its writes, before and after it took effect", async (t) => {
    for (const when of ["before", "after"] as const) {
      let step = 1;
      for (let reached = true; reached; step += 1) {
        let writes = 0;
        reached = false;
        let controller = await start();
        const kill = async () => {
          writes += 1;
          if (writes !== step || reached) return;
          reached = true;
          await controller.stop("SIGKILL");
          // Its lease would be waited for: fifteen seconds each time.
          await client.delete(leases, "chiron-controller", "default");
          controller = await start();
        };
        const isOwn = (path: string) => /replicatedvolumes|persistentvolumes/.test(path);
        meddled.meddling = {
          [when]: async ({ isWrite, path }: { isWrite: boolean; path: string }) => {
            if (isWrite && isOwn(path)) await kill();
            return null;
          },
        };
        try {
          await live(`kill-${when}-${step}`);
        } finally {
          meddled.meddling = {};
          await controller.stop("SIGKILL");
          await client.delete(leases, "chiron-controller", "default");
        }
      }
      t.diagnostic(`${step - 2} writes, killed ${when} each`);
      assert.ok(step - 2 >= 8, `only ${step - 2} writes`);
    }
  });

  it("gets there though the API server answers conflicts, throttles, fails, and breaks every watch", async (t) => {
    const draw = seeded(Number(process.env["CHIRON_SEED"] ?? 7));
    const answered = new Map<number, number>();
    meddled.meddling = {
      before: ({ isWrite, isWatch, path }) => {
        if (isWatch || path.includes("/leases")) return null;
        const code = draw(10) < 4 ? ([isWrite ? 409 : 500, 429, 500, 503][draw(4)] ?? null) : null;
        if (code !== null) answered.set(code, (answered.get(code) ?? 0) + 1);
        return code;
      },
      watchMs: () => 100 + draw(1_500),
    };
    const controller = await start();
    try {
      for (let i = 0; i < 3; i += 1) await live(`meddled-${i}`);
    } finally {
      meddled.meddling = {};
      await controller.stop("SIGKILL");
      await client.delete(leases, "chiron-controller", "default");
    }
    t.diagnostic(JSON.stringify(Object.fromEntries(answered)));
    assert.ok([...answered.values()].reduce((sum, count) => sum + count, 0) > 10);
  });

  it("does no harm when two of them lead at once", async () => {
    await client.create({ group: "", version: "v1", plural: "namespaces", namespaced: false }, {
      metadata: { name: "second" },
    } as never);
    // Leases in two namespaces: each is the leader, and stays it.
    const both = [await start(), await start("second", join(directory, "second.sock"))];
    try {
      await Promise.all([0, 1, 2].map((i) => live(`two-${i}`)));
      for (const controller of both) assert.match(controller.log(), /"leading"/);
    } finally {
      for (const controller of both) await controller.stop("SIGKILL");
    }
  });
});
