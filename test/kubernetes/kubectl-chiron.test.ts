/** `kubectl chiron` as a person runs it, found by kubectl in the path, against a real API server. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { replicatedVolumes, typeOfVolume } from "../../src/api/resource.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { type ApiServer, run, skipWithoutApiServer, startApiServer } from "./api-server.ts";
import { findProgram } from "./programs.ts";

describe("kubectl chiron", { skip: skipWithoutApiServer() }, () => {
  let api: ApiServer;
  let client: KubeClient;
  before(async () => {
    api = await startApiServer();
    client = new KubeClient(await loadKubeConfig(api.kubeconfigPath));
    const replicas = ["mars", "venus"].map((server) => ({ name: server, nfs: { server, path: "/e" } }));
    await client.create(replicatedVolumes, {
      ...typeOfVolume,
      metadata: { name: "data" },
      spec: { capacity: "1Gi", replicas },
    } as unknown as VolumeObject);
    const status = {
      phase: "Degraded",
      holder: "n1",
      replicas: [
        { name: "mars", state: "InSync" },
        { name: "venus", state: "Unreachable", reason: "Fault", message: "no route to host" },
      ],
    };
    await client.mergePatch(replicatedVolumes, "data", { status }, undefined, "status");
  });
  after(async () => {
    client?.close();
    await api?.[Symbol.asyncDispose]();
  });

  const kubectl = findProgram("kubectl") ?? "kubectl";
  const chiron = (...args: string[]) => {
    const path = [join(import.meta.dirname, "../../bin"), dirname(kubectl), process.env["PATH"]].join(":");
    return run(kubectl, ["chiron", ...args, `--kubeconfig=${api.kubeconfigPath}`], "", {
      env: { ...process.env, PATH: path, KUBECONFIG: "" },
    });
  };

  it("shows how a volume is, and tells it by its exit code, too", async () => {
    const { code, stdout, stderr } = await chiron("status", "data");
    assert.equal(code, 1, stderr);
    assert.match(stdout, /data .*degraded .*on n1 \(Degraded\) .*1 of 2 in sync/);
    assert.match(stdout, /venus +unreachable .*a call failed: no route to host/);
  });

  it("says what is wrong, as kubectl does", async () => {
    const { code, stderr } = await chiron("status", "nothing");
    assert.notEqual(code, 0);
    assert.match(stderr, /"nothing" not found/);
    const resync = await chiron("resync", "data");
    assert.equal(resync.code, 2);
    assert.match(resync.stderr, /The mount daemon does not run on node n1/);
  });

  it("replaces a replica by one edit", async () => {
    const place = ["--name", "earth", "--nfs", "earth:/e"];
    const refused = await chiron("replica", "replace", "data", "pluto", ...place);
    assert.match(refused.stderr, /has no replica "pluto": it has mars, venus/);
    const { code, stderr } = await chiron("replica", "replace", "data", "venus", ...place, "--no-wait");
    assert.equal(code, 0, stderr);
    const { spec } = await client.get<VolumeObject>(replicatedVolumes, "data");
    assert.deepEqual(
      spec.replicas.map(({ name, nfs }) => [name, nfs?.server]),
      [
        ["mars", "mars"],
        ["earth", "earth"],
      ],
    );
  });
});
