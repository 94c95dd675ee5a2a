/** Chiron on a real cluster of two nodes, by helm and kubectl alone, as a new user would: one cluster for all of it. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { run } from "../kubernetes/api-server.ts";
import { eventually } from "../kubernetes/eventually.ts";
import { findProgram } from "../kubernetes/programs.ts";
import { Cluster, skipWithoutCluster } from "./cluster.ts";
import { type NfsServer, skipWithoutNfs, startNfsServer } from "./nfs-servers.ts";
import { claim, goesOn, pod, progressOf } from "./workload.ts";

const chart = join(import.meta.dirname, "../../charts/chiron");
const images = [
  "--set=image.repository=localhost/chiron",
  "--set=sidecars.provisioner.image=localhost/csi-provisioner:1",
  "--set=sidecars.resizer.image=localhost/csi-resizer:1",
];
const namespace = ["--namespace", "chiron"];

describe("Chiron on a cluster of two nodes", { skip: skipWithoutCluster() || skipWithoutNfs() }, () => {
  let cluster: Cluster;
  const servers: NfsServer[] = [];
  before(async () => {
    cluster = await Cluster.start(2);
    const exports = join(cluster.directory, "exports");
    mkdirSync(exports);
    for (const name of ["mars", "venus"]) servers.push(await startNfsServer(name, exports));
  });
  after(async () => {
    for (const server of servers) await server[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  const volume = (name: string, more: object = {}) => ({
    apiVersion: "chiron.storage/v1alpha1",
    kind: "ReplicatedVolume",
    metadata: { name },
    spec: {
      capacity: "1Gi",
      replicas: servers.map(({ replica }) => replica),
      subdirectory: name,
      claimRef: { namespace: "default", name },
      ...more,
    },
  });
  const status = async (name: string) =>
    JSON.parse(await cluster.must("get", "rv", name, "-o", "jsonpath={.status}")) as Record<string, unknown>;
  const phaseIs = (name: string, phase: string, timeoutMs = 60_000) =>
    eventually(
      async () => assert.equal((await status(name))["phase"], phase, JSON.stringify(await status(name))),
      timeoutMs,
      500,
    );
  /** Says what the kubelet and the scheduler say of the pod if it does not come up. */
  const running = async (name: string, timeoutSeconds = 180) => {
    const { code } = await cluster.kubectl(
      "wait",
      "--for=condition=Ready",
      `pod/${name}`,
      `--timeout=${timeoutSeconds}s`,
    );
    if (code !== 0)
      throw new Error((await cluster.must("describe", "pod", name)).split("Events:")[1] ?? `pod ${name} does not run`);
  };
  const install = (verb: "install" | "upgrade", tag: string, ...more: string[]) =>
    cluster.helm(
      verb,
      "chiron",
      chart,
      ...namespace,
      ...images,
      `--set-string=image.tag=${tag}`,
      "--wait",
      "--timeout=180s",
      ...more,
    );
  /** Nothing but Chiron's own folder differs between the exports. */
  const files = (server: NfsServer | undefined, subdirectory: string) => {
    const root = join(server?.directory ?? "", subdirectory);
    return readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((path) => !path.startsWith(".chiron"))
      .sort();
  };
  const daemonPods = (component: string) => ["-n", "chiron", "-l", `app.kubernetes.io/component=${component}`];
  const forceDelete = (...pods: string[]) => cluster.must("delete", "pod", ...pods, "--force", "--grace-period=0");

  /** On every node. */
  const daemonsRun = async () => {
    for (const name of ["node", "mount-daemon"])
      await cluster.must("rollout", "status", `ds/chiron-${name}`, "-n", "chiron", "--timeout=110s");
  };
  const nodeOf = async (name: string) =>
    Number((await cluster.must("get", "pod", name, "-o", "jsonpath={.spec.nodeName}")).replace("n", ""));

  /**
   * What a person says of a node that is gone. Its pods are evicted by name: a new one of that name made before that is
   * done would be evicted in its place.
   */
  const outOfService = async (node: number) => {
    await cluster.must("taint", "node", `n${node}`, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute");
    await cluster.must("wait", "--for=delete", "pod/writer", "--timeout=60s");
  };

  it("is installed by helm, and helm test passes", async () => {
    await install("install", "1", "--create-namespace");
    await cluster.must("rollout", "status", "ds/chiron-node", "-n", "chiron", "--timeout=60s");
    await cluster.helm("test", "chiron", ...namespace);
  });

  it("gives a pod a replicated volume within five seconds of kubectl apply", async () => {
    await cluster.apply(claim("data", { storageClassName: "" }), volume("data"));
    const startedMs = performance.now();
    await cluster.must("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "--timeout=30s");
    assert.ok(performance.now() - startedMs < 5_000);
    await cluster.apply(pod({ name: "writer", claim: "data", node: "n1" }));
    await running("writer");
    await goesOn(cluster, "writer");
    await phaseIs("data", "Ready");
    const [, row = ""] = (await cluster.must("get", "rv", "data")).split("\n");
    assert.match(row, /^data\s+Ready\s+2\/2\s+1Gi\s+default\/data/);
    for (const server of servers) assert.ok(existsSync(join(server.directory, "data/log")));
  });

  it("is looked at, verified and resynced by kubectl chiron", async () => {
    const program = join(import.meta.dirname, "../../bin/kubectl-chiron");
    const env = { ...process.env, PATH: `${dirname(findProgram("kubectl") ?? "")}:${process.env["PATH"]}` };
    const chiron = async (...args: string[]) => {
      const { code, stdout, stderr } = await run(program, ["--kubeconfig", cluster.kubeconfig, ...args], "", { env });
      assert.equal(code, 0, stderr);
      return stdout;
    };
    assert.match(await chiron("status", "data"), /data .*healthy .*on n1 \(Ready\) .*2 of 2 in sync/);
    assert.match(await chiron("verify", "data"), /mars and venus are alike/);
    assert.match(await chiron("resync", "data"), /Every replica is in sync/);
  });

  it("keeps a volume in use while the node plugin's pods are deleted", async () => {
    await forceDelete(...daemonPods("node"));
    await goesOn(cluster, "writer", 50);
    await cluster.must("rollout", "status", "ds/chiron-node", "-n", "chiron", "--timeout=60s");
    await phaseIs("data", "Ready");
  });

  it("keeps a volume in use while the mount daemon's pods are deleted", async () => {
    for (let again = 0; again < 2; again += 1) {
      await cluster.must("rollout", "status", "ds/chiron-mount-daemon", "-n", "chiron", "--timeout=60s");
      await forceDelete(...daemonPods("mount-daemon"));
      await goesOn(cluster, "writer", 50);
    }
    await cluster.must("rollout", "status", "ds/chiron-mount-daemon", "-n", "chiron", "--timeout=60s");
  });

  it("keeps a volume in use while everything is upgraded to another image", async () => {
    await install("upgrade", "2");
    await goesOn(cluster, "writer", 50);
    const used = await cluster.must(
      "get",
      "pods",
      "-n",
      "chiron",
      "-o",
      "jsonpath={.items[*].spec.containers[*].image}",
    );
    assert.ok(!used.includes("chiron:1"), used);
  });

  it("keeps a volume in use while the upgrade is rolled back", async () => {
    await cluster.helm("rollback", "chiron", "1", ...namespace, "--wait", "--timeout=180s");
    await goesOn(cluster, "writer", 50);
    await daemonsRun();
  });

  it("keeps a volume in use while the kubelet starts again", async () => {
    const written = await progressOf(cluster, "writer");
    await cluster.killOnNode(1, "kubelet");
    // The kubelet is who asks the pod.
    await eventually(async () => assert.ok((await progressOf(cluster, "writer")) > written), 60_000);
    await goesOn(cluster, "writer", 50);
    await cluster.must("wait", "--for=condition=Ready", "node/n1", "--timeout=120s");
  });

  it("loses a replica's server and gets it back while a pod writes and checks", async () => {
    const [, venus] = servers;
    await venus?.kill();
    await phaseIs("data", "Degraded", 120_000);
    await goesOn(cluster, "writer", 50);
    await venus?.start();
    await phaseIs("data", "Ready", 180_000);
    await goesOn(cluster, "writer", 20);
  });

  it("moves a volume to the other node when its own is drained", async () => {
    const written = await progressOf(cluster, "writer");
    const drain = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"];
    await cluster.must("drain", "n1", ...drain, "--pod-selector=app=writer");
    await cluster.apply(pod({ name: "writer", claim: "data" }));
    await running("writer");
    await cluster.must("uncordon", "n1");
    await goesOn(cluster, "writer");
    const from = Number((await cluster.must("logs", "writer")).replace("from ", ""));
    assert.ok(from >= written, `${from} lines are there, and ${written} were written`);
    assert.equal((await status("data"))["holder"], "n2");
  });

  it("takes a volume over from a node whose power was cut, with everything that was synced", async () => {
    const written = await progressOf(cluster, "writer");
    await cluster.crash(2);
    await outOfService(2);
    await cluster.apply(pod({ name: "writer", claim: "data", node: "n1" }));
    await running("writer");
    await goesOn(cluster, "writer");
    const from = Number((await cluster.must("logs", "writer")).replace("from ", ""));
    assert.ok(from >= written, `${from} lines are there, and ${written} were synced`);
    await cluster.startNode(2);
    await cluster.must("taint", "node", "n2", "node.kubernetes.io/out-of-service-");
    await daemonsRun();
  });

  it("shuts out a node that goes on writing though it was cut off and its volume was taken over", async () => {
    const written = await progressOf(cluster, "writer");
    const old = await nodeOf("writer");
    await cluster.cut(old);
    // A person has looked: nothing of that node is wanted any more.
    await outOfService(old);
    await cluster.apply(pod({ name: "writer", claim: "data", node: `n${3 - old}` }));
    try {
      await running("writer");
      await goesOn(cluster, "writer", 100);
    } finally {
      await cluster.mend(old);
    }
    await goesOn(cluster, "writer", 100);
    const from = Number((await cluster.must("logs", "writer")).replace("from ", ""));
    assert.ok(from >= written, `${from} lines are there, and ${written} were synced`);
    // Whatever the old writer had in flight would show as a number twice, or out of order.
    await cluster.must(
      "exec",
      "writer",
      "--",
      "sh",
      "-c",
      "i=0; while read n; do i=$((i+1)); [ $n = $i ] || exit 1; done < /data/log",
    );
    await cluster.must("taint", "node", `n${old}`, "node.kubernetes.io/out-of-service-");
    await cluster.must("wait", "--for=condition=Ready", `node/n${old}`, "--timeout=120s");
    await daemonsRun();
    await phaseIs("data", "Ready");
  });

  it("provisions by a StorageClass: fsGroup, subPath, read-only, expansion in use, and nothing left behind", async () => {
    await cluster.apply({
      apiVersion: "storage.k8s.io/v1",
      kind: "StorageClass",
      metadata: { name: "chiron" },
      provisioner: "csi.chiron.storage",
      allowVolumeExpansion: true,
      mountOptions: ["vers=4.1"],
      // Each server has a port of its own here, which a class cannot say: directories of one node stand in.
      parameters: { hostPath: ["a", "b"].map((name) => `n1:${join(cluster.directory, "n1/chiron", name)}`).join(",") },
    });
    for (const name of ["a", "b"]) mkdirSync(join(cluster.directory, "n1/chiron", name), { recursive: true });
    await cluster.apply(claim("dynamic", { storageClassName: "chiron" }));
    await cluster.must("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/dynamic", "--timeout=30s");
    const script = "set -e; id -G; echo x > /data/file; ls -ln /data/file; touch /progress/ready; sleep 3600";
    await cluster.apply(
      pod({
        name: "user",
        claim: "dynamic",
        script,
        podSecurity: { fsGroup: 4321 },
        security: { runAsUser: 1000 },
        subPath: "below/it",
      }),
    );
    await running("user");
    const said = await eventually(async () => {
      const text = await cluster.must("logs", "user");
      assert.match(text, /\/data\/file/);
      return text;
    });
    assert.match(said, /4321/);
    await cluster.apply(
      pod({
        name: "reader",
        claim: "dynamic",
        script: "cat /data/below/it/file; touch /data/x; sleep 3600",
        readOnly: true,
      }),
    );
    await running("reader");
    await eventually(async () => assert.match(await cluster.must("logs", "reader"), /^x\n.*Read-only file system/s));
    await cluster.must("patch", "pvc", "dynamic", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}');
    await eventually(async () => {
      assert.equal(await cluster.must("get", "pvc", "dynamic", "-o", "jsonpath={.status.capacity.storage}"), "2Gi");
    });
    await cluster.must("delete", "pod", "user", "reader");
    await cluster.must("delete", "pvc", "dynamic");
    // A volume that lives as long as its pod.
    await cluster.apply(pod({ name: "scratch", claim: { storageClassName: "chiron" }, script: "sleep 3600" }));
    await running("scratch");
    await cluster.must("delete", "pod", "scratch");
    await eventually(async () => assert.doesNotMatch(await cluster.must("get", "rv,pv", "-o", "name"), /pvc-/));
    for (const name of ["a", "b"]) assert.deepEqual(readdirSync(join(cluster.directory, "n1/chiron", name)), []);
  });

  it("refuses a block volume, and says what to use instead", async () => {
    await cluster.apply(claim("block", { storageClassName: "chiron", volumeMode: "Block" }));
    await eventually(async () => {
      const told = await cluster.must(
        "get",
        "events",
        "--field-selector=involvedObject.name=block",
        "-o",
        "jsonpath={.items[*].message}",
      );
      assert.match(
        told,
        /block volumes are not supported: a replicated volume is a tree of files; use volumeMode Filesystem/,
      );
    });
    await cluster.must("delete", "pvc", "block");
  });

  it("starts and deletes fifty pods with volumes at once, and none is stuck", async () => {
    const names = Array.from({ length: 50 }, (_, index) => `many-${index}`);
    const script = "echo $HOSTNAME > /data/me && sleep 3600";
    await cluster.apply(
      ...names.flatMap((name) => [claim(name, { storageClassName: "chiron" }), pod({ name, claim: name, script })]),
    );
    await eventually(
      async () => {
        const phases = await cluster.must("get", "pods", "-o", "jsonpath={.items[*].status.phase}");
        const running = phases.split(" ").filter((phase) => phase === "Running");
        assert.ok(running.length >= names.length, `${running.length} of ${names.length} run`);
      },
      300_000,
      2_000,
    );
    await cluster.must("delete", "--wait=false", ...names.flatMap((name) => [`pod/${name}`, `pvc/${name}`]));
    await eventually(
      async () => assert.doesNotMatch(await cluster.must("get", "pod,pvc,pv,rv", "-o", "name"), /many-|pvc-/),
      300_000,
      1_000,
    );
  });

  it("is uninstalled with every volume left as it is, and finds them when it is installed again", async () => {
    await cluster.must("delete", "pod", "writer");
    await eventually(async () => assert.equal((await status("data"))["holder"], undefined));
    await cluster.helm("uninstall", "chiron", ...namespace, "--wait");
    await cluster.must("get", "rv", "data");
    const [mars, venus] = servers;
    assert.deepEqual(files(mars, "data"), files(venus, "data"));
    assert.equal(
      readFileSync(join(mars?.directory ?? "", "data/log"), "utf8"),
      readFileSync(join(venus?.directory ?? "", "data/log"), "utf8"),
    );
    await install("install", "1");
    await cluster.apply(pod({ name: "writer", claim: "data", node: "n2" }));
    await running("writer");
    await goesOn(cluster, "writer");
    await cluster.must("delete", "pod", "writer");
  });
});
