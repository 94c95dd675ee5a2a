/** `src/kube` against a real API server, over a network that breaks. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { after, before, describe, it } from "node:test";
import { isConflict, KubeClient, KubeError, type KubeObject } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { EventRecorder } from "../../src/kube/events.ts";
import { Informer } from "../../src/kube/informer.ts";
import { LeaderElection } from "../../src/kube/leader-election.ts";
import { events, leases, persistentVolumes } from "../../src/kube/resources.ts";
import { silentLogger } from "../../src/util/logger.ts";
import { type ApiServer, skipWithoutApiServer, startApiServer } from "./api-server.ts";
import { brokenNetwork } from "./broken-network.ts";
import { eventually } from "./eventually.ts";

const replicatedVolumes = {
  group: "chiron.storage",
  version: "v1alpha1",
  plural: "replicatedvolumes",
  namespaced: false,
};
interface Volume extends KubeObject {
  readonly spec: { readonly capacity: string };
  readonly status?: Record<string, unknown>;
}
const volume = (name: string, capacity = "1Gi") => ({
  apiVersion: "chiron.storage/v1alpha1",
  kind: "ReplicatedVolume",
  metadata: { name },
  spec: { capacity, replicas: [{ name: "a", nfs: { server: "mars", path: "/e" } }] },
});

describe("src/kube on a real API server", { skip: skipWithoutApiServer() }, () => {
  let api: ApiServer;
  let client: KubeClient;
  before(async () => {
    api = await startApiServer();
    client = new KubeClient(await loadKubeConfig(api.kubeconfigPath));
  });
  after(async () => {
    client?.close();
    await api?.[Symbol.asyncDispose]();
  });

  it("says what the API server answered", async () => {
    await assert.rejects(
      client.get(replicatedVolumes, "nobody"),
      (error) => error instanceof KubeError && error.code === 404 && error.reason === "NotFound",
    );
    assert.equal(await client.find(replicatedVolumes, "nobody"), null);
    assert.equal(await client.delete(replicatedVolumes, "nobody"), false);
    await assert.rejects(
      client.create(replicatedVolumes, volume("bad", "0")),
      /spec\.capacity: Invalid value: .*must be more than 0/,
    );
  });

  it("says that the API server cannot be reached, and why", async () => {
    const nowhere = new KubeClient({ ...client.config, server: "https://127.0.0.1:1" });
    await assert.rejects(nowhere.get(replicatedVolumes, "x"), /Cannot reach the API server at 127\.0\.0\.1:1/);
    nowhere.close();
  });

  it("watches any number of things beside its calls", async () => {
    const names = Array.from({ length: 50 }, (_, index) => `watched-${index}`);
    const informers = names.map(
      (name) =>
        new Informer<Volume>(client, replicatedVolumes, () => {}, {
          logger: silentLogger,
          fieldSelector: `metadata.name=${name}`,
        }),
    );
    for (const informer of informers) informer.start();
    await Promise.all(informers.map((informer) => informer.synced()));
    await Promise.all(names.map((name) => client.create<Volume>(replicatedVolumes, volume(name))));
    await eventually(() => assert.ok(informers.every(({ size }) => size === 1)));
    await Promise.all(names.map((name) => client.delete(replicatedVolumes, name)));
    await eventually(() => assert.ok(informers.every(({ size }) => size === 0)));
    await Promise.all(informers.map((informer) => informer.stop()));
  });

  it("gives up a call that waits for a connection", async () => {
    const silent = createServer().listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as AddressInfo;
    const stuck = new KubeClient({ ...client.config, server: `https://127.0.0.1:${port}` });
    const before = Array.from({ length: 40 }, () => stuck.get(replicatedVolumes, "x").catch(() => {}));
    const signal = AbortSignal.timeout(100);
    await assert.rejects(stuck.get(replicatedVolumes, "y", undefined, { signal }), /Cannot reach the API server/);
    stuck.close();
    silent.close();
    await Promise.all(before);
  });

  it("replaces only what has not changed meanwhile", async () => {
    const made = await client.create<Volume>(replicatedVolumes, volume("swap"));
    await client.replace<Volume>(replicatedVolumes, { ...made, status: { holder: "n1" } }, "status");
    await assert.rejects(
      client.replace<Volume>(replicatedVolumes, { ...made, status: { holder: "n2" } }, "status"),
      isConflict,
    );
  });

  it("applies each writer's own part of a status, and removes what a writer no longer names", async () => {
    await client.create<Volume>(replicatedVolumes, volume("apply"));
    const part = (status: unknown) => ({ ...volume("apply"), spec: undefined, status }) as unknown as Volume;
    const report = { state: "Healthy", reportedAt: "2026-01-01T00:00:00Z" };
    await client.apply(replicatedVolumes, part({ nodes: [{ name: "n1", ...report }] }), "node-n1", "status");
    await client.apply(replicatedVolumes, part({ nodes: [{ name: "n2", ...report }] }), "node-n2", "status");
    const both = await client.apply<Volume>(replicatedVolumes, part({ phase: "Ready" }), "controller", "status");
    assert.deepEqual(both.status?.["nodes"], [
      { name: "n1", ...report },
      { name: "n2", ...report },
    ]);
    const one = await client.apply<Volume>(replicatedVolumes, part({}), "node-n1", "status");
    assert.deepEqual(one.status, { phase: "Ready", nodes: [{ name: "n2", ...report }] });
  });

  it("an informer hears of everything, also of what happened while the network was broken", async () => {
    await using network = await brokenNetwork(api.server);
    const far = new KubeClient({ ...client.config, server: `https://127.0.0.1:${network.port}` });
    const heard: string[] = [];
    const informer = new Informer<Volume>(
      far,
      replicatedVolumes,
      (now, before) => heard.push(`${now ? (before ? "changed" : "new") : "gone"} ${(now ?? before)?.metadata.name}`),
      { logger: silentLogger, firstRetryMs: 20, longestRetryMs: 100 },
    );
    await client.create(replicatedVolumes, volume("first"));
    informer.start();
    await informer.synced();
    assert.ok(heard.includes("new first"));
    await client.create(replicatedVolumes, volume("second"));
    await eventually(() => assert.ok(heard.includes("new second")));
    network.cut();
    await client.delete(replicatedVolumes, "first");
    await client.mergePatch(replicatedVolumes, "second", { spec: { capacity: "2Gi" } });
    await client.create(replicatedVolumes, volume("third"));
    assert.ok(!heard.includes("new third"));
    network.mend();
    await eventually(() => {
      for (const event of ["gone first", "changed second", "new third"])
        assert.ok(heard.includes(event), `${event}: ${heard}`);
    });
    assert.equal(informer.get("first"), undefined);
    assert.equal(informer.get("second")?.spec.capacity, "2Gi");
    await informer.stop();
    far.close();
  });

  it("an informer lists more objects than fit on a page", async () => {
    const count = 520;
    const pv = (i: number) => ({
      apiVersion: "v1",
      kind: "PersistentVolume",
      metadata: { name: `pv-${i}` },
      spec: { capacity: { storage: "1Gi" }, accessModes: ["ReadWriteOnce"], nfs: { server: "mars", path: "/e" } },
    });
    for (let i = 0; i < count; i += 40)
      await Promise.all(
        Array.from({ length: Math.min(40, count - i) }, (_, j) => client.create(persistentVolumes, pv(i + j))),
      );
    const informer = new Informer(client, persistentVolumes, () => {}, { logger: silentLogger });
    informer.start();
    await informer.synced();
    assert.equal(informer.size, count);
    await informer.stop();
  });

  it("elects one leader at a time, and the next one when it is gone", async () => {
    const make = (identity: string) =>
      new LeaderElection(client, {
        namespace: "default",
        name: "leader",
        identity,
        logger: silentLogger,
        leaseMs: 1_000,
        renewDeadlineMs: 700,
        retryMs: 50,
      });
    const led: string[] = [];
    const elections = ["a", "b"].map((identity) => {
      const election = make(identity);
      const run = election.run(async (signal) => {
        led.push(identity);
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      });
      return { identity, election, run };
    });
    await eventually(() => assert.equal(led.length, 1));
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    assert.equal(led.length, 1, "the second one led while the first one renewed");
    const first = elections.find(({ identity }) => identity === led[0]);
    first?.election.stop();
    await first?.run;
    await eventually(() => assert.equal(led.length, 2));
    assert.notEqual(led[1], led[0]);
    const second = elections.find(({ identity }) => identity === led[1]);
    second?.election.stop();
    await second?.run;
    const lease = await client.get<KubeObject & { spec: { holderIdentity: string } }>(leases, "leader", "default");
    assert.equal(lease.spec.holderIdentity, "");
  });

  it("a leader that cannot renew its lease stops leading before another one may", async () => {
    await using network = await brokenNetwork(api.server);
    const far = new KubeClient({ ...client.config, server: `https://127.0.0.1:${network.port}` });
    const times = {
      namespace: "default",
      name: "cut",
      logger: silentLogger,
      leaseMs: 2_000,
      renewDeadlineMs: 1_000,
      retryMs: 50,
    };
    const order: string[] = [];
    const lead = (name: string) => async (signal: AbortSignal) => {
      order.push(`${name} leads`);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      order.push(`${name} ends`);
    };
    const one = new LeaderElection(far, { ...times, identity: "one" });
    const two = new LeaderElection(client, { ...times, identity: "two" });
    const oneRuns = one.run(lead("one"));
    await eventually(() => assert.deepEqual(order, ["one leads"]));
    const twoRuns = two.run(lead("two"));
    network.cut();
    await eventually(() => assert.deepEqual(order, ["one leads", "one ends", "two leads"]));
    await oneRuns;
    two.stop();
    await twoRuns;
    far.close();
  });

  it("counts an event up instead of making it again", async () => {
    const made = await client.create<Volume>(replicatedVolumes, volume("eventful"));
    const involved = { ...made, apiVersion: "chiron.storage/v1alpha1", kind: "ReplicatedVolume" };
    for (let process = 0; process < 2; process += 1) {
      const recorder = new EventRecorder(client, "test", silentLogger);
      for (let again = 0; again < 3; again += 1)
        await recorder.record(involved, "Warning", "ReplicaLost", 'replica "mars"');
    }
    const list = await client.list<KubeObject & { count: number; reason: string }>(events, {
      fieldSelector: "involvedObject.name=eventful",
    });
    assert.deepEqual(
      list.items.map(({ count, reason }) => [count, reason]),
      [[2, "ReplicaLost"]],
    );
  });
});
