/**
 * A volume that goes from one node to another which did not give it back: two nodes' processes, a real API server, real
 * NFS servers. Leases are short here; nothing else differs from a cluster.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { replicatedVolumes, typeOfVolume } from "../../src/api/resource.ts";
import type { VolumeObject } from "../../src/controller/reconciler.ts";
import { KubeClient, type KubeObject } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { events, leases, nodes } from "../../src/kube/resources.ts";
import { available, Ganesha } from "../nfs/ganesha.ts";
import { type ApiServer, run, startApiServer } from "./api-server.ts";
import { eventually } from "./eventually.ts";
import { type Daemon, freePort, startDaemon } from "./processes.ts";
import { skipWithoutSmallCluster } from "./small-cluster.ts";
import { TestNode } from "./test-node.ts";

const leaseSeconds = 8;
const names = ["mars", "venus"];
const skip = skipWithoutSmallCluster() || (available ? false : "LEFT OUT: nfs-ganesha and rpcbind are needed");

/** Writes numbers to a file, one each few milliseconds, and tells of each when it was acknowledged; ends at an error. */
class Writer {
  readonly #child;
  readonly ended: Promise<number | null>;
  #told = "";
  constructor(file: string, name: string) {
    const script = `exec 3>>"$0"; i=0; while :; do i=$((i+1)); echo ${name}$i >&3 || exit 1; echo ${name}$i; sleep 0.01; done`;
    this.#child = spawn("sh", ["-c", script, file], { stdio: ["ignore", "pipe", "ignore"] });
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.#told += text;
    });
    this.ended = new Promise((resolve) => this.#child.once("exit", resolve));
  }
  get pid(): number {
    return this.#child.pid ?? 0;
  }
  get acknowledged(): string[] {
    return this.#told.split("\n").slice(0, -1);
  }
  stop(): void {
    this.#child.kill("SIGKILL");
  }
}

describe("a volume that another node takes over", { skip }, () => {
  let api: ApiServer;
  let client: KubeClient;
  let controller: Daemon;
  let servers: [Ganesha, Ganesha];
  let n1: TestNode;
  let n2: TestNode;
  const writers: Writer[] = [];

  before(async () => {
    api = await startApiServer();
    client = new KubeClient(await loadKubeConfig(api.kubeconfigPath));
    for (const name of ["n1", "n2"])
      await client.create(nodes, { apiVersion: "v1", kind: "Node", metadata: { name } } as KubeObject);
  });
  after(async () => {
    client?.close();
    await api?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    // It ends when it loses its leadership, and is started again, as a pod would be.
    controller = startDaemon("src/controller/main.ts", [
      `--kubeconfig=${api.kubeconfigPath}`,
      `--endpoint=unix:///tmp/chiron-takeover-${process.pid}.sock`,
      `--probe-address=127.0.0.1:${await freePort()}`,
      "--namespace=default",
    ]);
    servers = [await Ganesha.start({ exports: ["mars"] }), await Ganesha.start({ exports: ["venus"] })];
    [n1, n2] = [
      await TestNode.start(api, { name: "n1", leaseSeconds }),
      await TestNode.start(api, { name: "n2", leaseSeconds }),
    ];
  });
  afterEach(async () => {
    for (const writer of writers.splice(0)) writer.stop();
    for (const node of [n1, n2]) await node?.[Symbol.asyncDispose]();
    for (const server of servers) await server[Symbol.asyncDispose]();
    await controller?.stop();
  });

  const write = (node: TestNode, volume: string, file = "log"): Writer => {
    const writer = new Writer(join(node.target(volume), file), `${node.name}-`);
    writers.push(writer);
    return writer;
  };
  const make = async (name: string, version: "3" | "4.1", accessModes = ["ReadWriteOnce"]) => {
    const replicas = servers.map((server, i) => ({
      name: names[i] ?? "",
      nfs: {
        server: "127.0.0.1",
        path: `/${names[i]}`,
        mountOptions: [`vers=${version}`, `port=${server.port}`, `mountport=${server.mountPort}`],
      },
    }));
    await client.create(replicatedVolumes, {
      ...typeOfVolume,
      metadata: { name },
      spec: { capacity: "1Gi", accessModes, replicas },
    } as never);
    await eventually(async () => assert.equal((await get(name)).status?.phase, "Available"));
  };
  const get = (name: string) => client.get<VolumeObject>(replicatedVolumes, name);
  const onBackends = (file = "log") =>
    servers.map(({ directory }, i) =>
      readFileSync(join(directory, names[i] ?? "", file), "utf8")
        .split("\n")
        .slice(0, -1),
    );
  const hasWritten = (writer: Writer, count: number) =>
    eventually(() => assert.ok(writer.acknowledged.length >= count, `${writer.acknowledged.length} written`));
  const signal = (pids: readonly number[], name: NodeJS.Signals) => {
    for (const pid of pids) process.kill(pid, name);
  };
  /** The new holder has all that was acknowledged, and both backends the same; nothing of the old writer came after. */
  const checkTaken = async (old: Writer, now: Writer) => {
    // It goes on writing: the second may have a line more when it is read.
    const mars = await eventually(() => {
      const [first = [], second = []] = onBackends();
      assert.deepEqual(first, second);
      return first;
    });
    const first = mars.findIndex((line) => line.startsWith("n2-"));
    const before = mars.slice(0, first);
    assert.ok(
      old.acknowledged.every((line) => before.includes(line)),
      "an acknowledged line is missing",
    );
    assert.deepEqual(
      mars.slice(first).filter((line) => !line.startsWith("n2-")),
      [],
      "the old writer came later",
    );
    assert.ok(now.acknowledged.every((line) => mars.includes(line)));
  };

  it("is refused to it while the first node renews its lease, and given at once when that node unmounts", async () => {
    await make("moves", "4.1");
    await n1.use("moves");
    const lease = await client.get<KubeObject & { spec: { holderIdentity: string } }>(
      leases,
      "chiron-volume-moves",
      "default",
    );
    assert.equal(lease.spec.holderIdentity, "n1");
    const { status } = await get("moves");
    assert.deepEqual(status?.membership?.members, ["mars", "venus"]);
    assert.equal(status?.membership?.fenced, true);
    const writer = write(n1, "moves");
    for (let endMs = performance.now() + leaseSeconds * 2_000; performance.now() < endMs; await delay(500))
      await assert.rejects(n2.stage("moves"), /in use on node n1, and one node at a time may write/);
    writer.stop();
    await writer.ended;
    await n1.leave("moves");
    assert.equal(await client.find(leases, "chiron-volume-moves", "default"), null);
    await n2.use("moves", 5_000);
    const now = write(n2, "moves");
    await hasWritten(now, 10);
    await checkTaken(writer, now);
    assert.equal((await get("moves")).status?.holder, "n2");
    now.stop();
    await now.ended;
    await n2.leave("moves");
    assert.equal((await get("moves")).status?.membership?.clean, true);
  });

  it("costs the API server one call each quarter of a lease at rest, and goes on while its node's plugin is killed", async () => {
    await make("rest", "4.1");
    await n1.use("rest");
    await eventually(async () => assert.equal((await get("rest")).status?.phase, "Ready"));
    const requests = async () => {
      const text = await (await fetch(n1.metricsUrl)).text();
      return Number(/^chiron_node_api_requests_total (\d+)/m.exec(text)?.[1]);
    };
    await delay(3_000); // the report of being ready
    const [first, sinceMs] = [await requests(), performance.now()];
    await delay(16_000);
    const quarters = (performance.now() - sinceMs) / (leaseSeconds * 250);
    const calls = (await requests()) - first;
    // Its report again every four minutes, its watch again every five: here at most one of each.
    assert.ok(calls <= Math.ceil(quarters) + 2, `${calls} calls in ${quarters} quarters of a lease`);
    assert.ok(calls >= Math.floor(quarters) - 2, `${calls} calls in ${quarters} quarters of a lease`);

    const writer = write(n1, "rest");
    await hasWritten(writer, 20);
    for (let kill = 0; kill < 3; kill += 1) await n1.killPlugin();
    await delay(leaseSeconds * 1_500);
    await hasWritten(writer, writer.acknowledged.length + 50);
    writer.stop();
    await writer.ended;
    const [mars, venus] = onBackends();
    assert.deepEqual(mars, venus);
    assert.ok(writer.acknowledged.every((line) => mars?.includes(line)));
    await n1.leave("rest");
  });

  it("is read on two nodes at once, which leave its record alone; a new one is made first", async () => {
    await make("read", "4.1", ["ReadOnlyMany"]);
    await n1.use("read", 60_000, "ReadOnlyMany");
    await n2.use("read", 60_000, "ReadOnlyMany");
    const { status } = await get("read");
    assert.equal(status?.holder, undefined);
    assert.equal(status?.membership?.clean, true);
    for (const node of [n1, n2]) {
      const { code, stderr } = await run("sh", ["-c", `ls ${node.target("read")} && touch ${node.target("read")}/x`]);
      assert.notEqual(code, 0);
      assert.match(stderr, /Read-only file system/);
    }
    await servers[0].kill();
    for (const node of [n1, n2]) assert.equal((await run("ls", [node.target("read")])).code, 0);
    assert.deepEqual((await get("read")).status?.membership, status?.membership);
    for (const node of [n1, n2]) await node.leave("read");
  });

  it("stops being written by a node that is cut off from the API server alone, before another one has it", async () => {
    await make("cut", "4.1");
    await n1.use("cut");
    const old = write(n1, "cut");
    await hasWritten(old, 20);
    n1.network.cut();
    const staged = n2.use("cut");
    // Its backends answer all the time; it waits because its lease cannot be renewed.
    await eventually(async () => {
      const count = old.acknowledged.length;
      await delay(1_000);
      assert.equal(old.acknowledged.length, count);
    });
    await staged;
    const now = write(n2, "cut");
    await hasWritten(now, 50);
    await checkTaken(old, now);
    n1.network.mend();
    assert.notEqual(await old.ended, 0);
    await hasWritten(now, now.acknowledged.length + 50);
    await checkTaken(old, now);
    await n1.leave("cut");
    const { items } = await client.list<KubeObject & { message: string }>(events, {
      fieldSelector: "reason=TakenOver",
    });
    assert.match(items[0]?.message ?? "", /node n2 took the volume over from node n1, which did not give it back/);
  });

  it("is shut to a node that was frozen across the take-over and goes on: the servers see to that", async () => {
    await make("frozen", "4.1");
    await n1.use("frozen");
    const old = write(n1, "frozen");
    await hasWritten(old, 20);
    const pids = await n1.processes("frozen");
    signal(pids, "SIGSTOP");
    await n2.use("frozen");
    const now = write(n2, "frozen");
    await hasWritten(now, 50);
    signal(pids, "SIGCONT");
    assert.notEqual(await old.ended, 0, "the old writer must get an error");
    await hasWritten(now, now.acknowledged.length + 50);
    await checkTaken(old, now);
    const { status } = await get("frozen");
    assert.equal(status?.holder, "n2");
    assert.deepEqual(status?.membership?.members, ["mars", "venus"]);
  });

  it("rests on time where the servers shut nobody out: the old process is ended with its lease, and waited for", async () => {
    await make("unfenced", "3");
    await n1.use("unfenced");
    assert.equal((await get("unfenced")).status?.membership?.fenced, false);
    const old = write(n1, "unfenced");
    await hasWritten(old, 20);
    const [plugin = 0] = await n1.processes("unfenced");
    process.kill(plugin, "SIGSTOP"); // nobody renews the lease
    const cutMs = performance.now();
    await n2.use("unfenced");
    assert.ok(performance.now() - cutMs > leaseSeconds * 1_900, "twice the lease is waited for");
    assert.match(readFileSync(join(n1.directory, "unfenced.log"), "utf8"), /had no lease|The lease is over/);
    const now = write(n2, "unfenced");
    await hasWritten(now, 50);
    process.kill(plugin, "SIGCONT");
    assert.notEqual(await old.ended, 0);
    await checkTaken(old, now);
  });

  it("goes on when the API server was away while a replica died: writes wait, and nobody else gets in", async () => {
    await make("outage", "4.1");
    await n1.use("outage");
    const writer = write(n1, "outage");
    await hasWritten(writer, 20);
    const { stdout } = await run("pgrep", ["-P", String(process.pid), "kube-apiserver"]);
    const apiServer = Number(stdout.trim());
    process.kill(apiServer, "SIGSTOP");
    let before = 0;
    try {
      await servers[1].kill();
      await delay(6_000);
      before = writer.acknowledged.length;
      await delay(Number(process.env["CHIRON_OUTAGE_SECONDS"] ?? 20) * 1_000);
      assert.equal(writer.acknowledged.length, before, "nothing is acknowledged that is on one replica alone");
      await assert.rejects(n2.stage("outage"));
    } finally {
      process.kill(apiServer, "SIGCONT");
    }
    await hasWritten(writer, before + 50);
    await eventually(async () => assert.deepEqual((await get("outage")).status?.membership?.members, ["mars"]));
    assert.equal((await get("outage")).status?.holder, "n1");
    await assert.rejects(n2.stage("outage"), /in use on node n1/);
    // A node that takes it over now must not believe the replica that was left behind.
    await eventually(() => servers[1].start());
    await eventually(
      async () => assert.deepEqual((await get("outage")).status?.membership?.members, ["mars", "venus"]),
      180_000,
    );
    writer.stop();
    await writer.ended;
    await n1.leave("outage");
    const [mars, venus] = onBackends();
    assert.deepEqual(mars, venus);
    assert.ok(writer.acknowledged.every((line) => mars?.includes(line)));
  });

  it("is taken over with one replica, though both were in sync, and with what that one has", async () => {
    await make("half", "4.1");
    await n1.use("half");
    const old = write(n1, "half");
    await hasWritten(old, 20);
    // The node's power is cut, and one of the servers is away as well.
    signal([...(await n1.processes("half")), old.pid], "SIGSTOP");
    await servers[0].freeze();
    await n2.use("half");
    assert.deepEqual((await get("half")).status?.membership?.members, ["venus"]);
    const now = write(n2, "half");
    await hasWritten(now, 20);
    servers[0].signal("SIGCONT");
    await eventually(async () => assert.equal((await get("half")).status?.membership?.members.length, 2), 180_000);
    now.stop();
    await now.ended;
    await checkTaken(old, now);
    signal([...(await n1.processes("half")), old.pid], "SIGCONT");
    await old.ended;
    await n2.leave("half");
  });
});
