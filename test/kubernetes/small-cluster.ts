/**
 * Chiron as it runs on a cluster of one node, as plain processes: a real API server, the controller, the mount daemon
 * and the node plugin, with a kubelet's directory that no kubelet uses. Mounts are real.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parse } from "yaml";
import { KubeClient } from "../../src/kube/client.ts";
import { loadKubeConfig } from "../../src/kube/config.ts";
import { type ApiServer, type Ran, run, skipWithoutApiServer, startApiServer } from "./api-server.ts";
import { type CsiClients, csiClients } from "./csi-client.ts";
import { eventually } from "./eventually.ts";
import { compileInto, type Daemon, freePort, startDaemon } from "./processes.ts";

export const nodeName = "n1";

/** The option `skip` of tests on a small cluster. */
export function skipWithoutSmallCluster(): string | false {
  const reason = skipWithoutApiServer();
  if (reason !== false) return reason;
  if (process.getuid?.() === 0) return false;
  const problem = "LEFT OUT: mounting needs root";
  if (process.env["CI"]) throw new Error(problem);
  process.stderr.write(`\n*** ${problem} ***\n`);
  return problem;
}

export interface SmallCluster extends AsyncDisposable {
  readonly api: ApiServer;
  readonly client: KubeClient;
  /** A directory of this test's own, with `kubelet` in it. */
  readonly directory: string;
  readonly controllerSocket: string;
  readonly nodeSocket: string;
  /** Of both sockets: `controller` of the controller's, `node` of the plugin's. */
  readonly csi: CsiClients;
  readonly probes: string;
  readonly daemons: { controller: Daemon; mountd: Daemon; node: Daemon };
  startController(): Promise<void>;
  startNode(): Promise<void>;
  startMountd(): Promise<void>;
  kubectl(args: readonly string[], input?: string): Promise<Ran>;
  /** Makes directories for replicas and answers the StorageClass parameter that names them. */
  places(...names: readonly string[]): string;
}

/** `compiled`: as in the image, instead of from the sources. */
export async function startSmallCluster(options: { readonly compiled?: boolean } = {}): Promise<SmallCluster> {
  // Short, for a socket's path has 107 bytes at most.
  const directory = mkdtempSync(join(tmpdir(), "chiron-k-"));
  const kubelet = join(directory, "kubelet");
  const runDirectory = join(directory, "run");
  for (const path of ["plugins_registry", "plugins", "pods"]) mkdirSync(join(kubelet, path), { recursive: true });
  const compiled = options.compiled ? join(directory, "package") : null;
  if (compiled !== null) {
    mkdirSync(compiled);
    await compileInto(compiled);
  }
  const api = await startApiServer();
  const client = new KubeClient(await loadKubeConfig(api.kubeconfigPath));
  const [controllerProbes, nodeProbes] = [await freePort(), await freePort()];
  const controllerSocket = join(directory, "controller.sock");
  const nodeSocket = join(directory, "node.sock");
  // Without the parser for YAML, as in a pod, where there is no kubeconfig at all.
  const kubeconfigPath = join(directory, "kubeconfig.json");
  writeFileSync(kubeconfigPath, JSON.stringify(parse(readFileSync(api.kubeconfigPath, "utf8"))));
  const kubeconfig = `--kubeconfig=${kubeconfigPath}`;
  const runController = () =>
    startDaemon(
      "src/controller/main.ts",
      [
        kubeconfig,
        `--endpoint=unix://${controllerSocket}`,
        `--probe-address=127.0.0.1:${controllerProbes}`,
        "--namespace=default",
        "--log-level=debug",
      ],
      {},
      compiled,
    );
  const env = { CHIRON_RUN_DIR: runDirectory };
  const runMountd = () =>
    startDaemon(
      "src/node/mountd.ts",
      [
        `--socket=${join(directory, "mountd.sock")}`,
        `--vault-socket=${join(directory, "vault.sock")}`,
        "--log-level=debug",
      ],
      env,
      compiled,
    );
  const runNode = () =>
    startDaemon(
      "src/node/main.ts",
      [
        kubeconfig,
        `--node-name=${nodeName}`,
        `--kubelet-dir=${kubelet}`,
        `--endpoint=unix://${nodeSocket}`,
        `--mountd-socket=${join(directory, "mountd.sock")}`,
        `--vault-socket=${join(directory, "vault.sock")}`,
        `--arbiter-socket=${join(directory, "arbiter.sock")}`,
        `--probe-address=127.0.0.1:${nodeProbes}`,
        `--log-dir=${directory}`,
        "--no-registration",
        "--log-level=debug",
      ],
      env,
      compiled,
    );
  const probes = `http://127.0.0.1:${nodeProbes}`;
  const ready = (daemon: Daemon, url: string) =>
    eventually(async () => {
      if (daemon.child.exitCode !== null) throw new Error(`it ended: ${daemon.log()}`);
      const response = await fetch(`${url}/readyz`);
      if (!response.ok) throw new Error(await response.text());
    });
  const daemons = { controller: runController(), mountd: runMountd(), node: runNode() };
  await ready(daemons.node, probes);
  await ready(daemons.controller, `http://127.0.0.1:${controllerProbes}`);
  const ofController = csiClients(controllerSocket);
  const ofNode = csiClients(nodeSocket);
  return {
    api,
    client,
    directory,
    controllerSocket,
    nodeSocket,
    csi: { ...ofNode, controller: ofController.controller, [Symbol.dispose]: () => {} },
    probes,
    daemons,
    async startController() {
      daemons.controller = runController();
      await ready(daemons.controller, `http://127.0.0.1:${controllerProbes}`);
    },
    async startNode() {
      daemons.node = runNode();
      await ready(daemons.node, probes);
    },
    async startMountd() {
      daemons.mountd = runMountd();
      await delay(0);
    },
    kubectl: (args, input) => api.kubectl(args, input),
    places(...names) {
      for (const name of names) mkdirSync(join(directory, name), { recursive: true });
      return names.map((name) => `${nodeName}:${join(directory, name)}`).join(",");
    },
    async [Symbol.asyncDispose]() {
      ofController[Symbol.dispose]();
      ofNode[Symbol.dispose]();
      await Promise.all([daemons.node.stop(), daemons.mountd.stop(), daemons.controller.stop()]);
      client.close();
      await api[Symbol.asyncDispose]();
      await removeMounts(directory);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A test that failed half-way leaves mounts and holders behind; nothing below our own directory may stay. */
export async function removeMounts(directory: string): Promise<void> {
  for (;;) {
    const line = readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .findLast((text) => text.split(" ")[4]?.startsWith(`${directory}/`));
    const mountpoint = line?.split(" ")[4];
    if (mountpoint === undefined) return;
    const { code } = await run("umount", ["-l", mountpoint]);
    if (code !== 0) return;
    await delay(200);
  }
}
