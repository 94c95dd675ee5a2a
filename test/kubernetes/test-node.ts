/**
 * One node of a cluster without kubelets: the node plugin and the mount daemon as processes, with directories of their
 * own, so that several "nodes" run on one machine. A node can be cut off from the API server, and frozen.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  NodePublishVolumeRequest,
  NodeStageVolumeRequest,
  VolumeCapability,
} from "../../src/csi/generated/csi.ts";
import { mountDirectory, readRecord } from "../../src/volume/registry.ts";
import { type ApiServer, run } from "./api-server.ts";
import { type BrokenNetwork, brokenNetwork } from "./broken-network.ts";
import { type CsiClients, call, csiClients } from "./csi-client.ts";
import { eventually } from "./eventually.ts";
import { type Daemon, freePort, startDaemon } from "./processes.ts";
import { removeMounts } from "./small-cluster.ts";

const modes = { ReadWriteOnce: Mode.SINGLE_NODE_WRITER, ReadOnlyMany: Mode.MULTI_NODE_READER_ONLY } as const;
type AccessMode = keyof typeof modes;
const capabilityOf = (mode: AccessMode) =>
  VolumeCapability.fromPartial({ mount: {}, accessMode: { mode: modes[mode] } });

export interface TestNodeOptions {
  readonly name: string;
  readonly leaseSeconds: number;
  readonly callDeadlineSeconds?: number;
}

export class TestNode implements AsyncDisposable {
  readonly name: string;
  readonly directory: string;
  readonly csi: CsiClients;
  /** Where its metrics are. */
  metricsUrl = "";
  /** Its way to the API server. */
  readonly network: BrokenNetwork;
  readonly #daemons: { readonly mountd: Daemon; node: Daemon };
  readonly #runNode: () => Promise<Daemon>;

  private constructor(
    name: string,
    directory: string,
    network: BrokenNetwork,
    daemons: { readonly mountd: Daemon; node: Daemon },
    runNode: () => Promise<Daemon>,
  ) {
    this.name = name;
    this.directory = directory;
    this.csi = csiClients(join(directory, "node.sock"));
    this.network = network;
    this.#daemons = daemons;
    this.#runNode = runNode;
  }

  static async start(api: ApiServer, options: TestNodeOptions): Promise<TestNode> {
    const { name, leaseSeconds, callDeadlineSeconds = 4 } = options;
    const directory = mkdtempSync(join(tmpdir(), `chiron-${name}-`));
    for (const path of ["plugins", "pods"]) mkdirSync(join(directory, "kubelet", path), { recursive: true });
    const network = await brokenNetwork(api.server);
    const kubeconfig = join(directory, "kubeconfig");
    const ours = `https://127.0.0.1:${network.port}`;
    writeFileSync(kubeconfig, readFileSync(api.kubeconfigPath, "utf8").replaceAll(api.server.replace(/\/$/, ""), ours));
    const env = { CHIRON_RUN_DIR: join(directory, "run") };
    const sockets = ["mountd", "vault"].map((one) => `--${one}-socket=${join(directory, `${one}.sock`)}`);
    const mountd = startDaemon(
      "src/node/mountd.ts",
      [`--socket=${join(directory, "mountd.sock")}`, sockets[1] ?? ""],
      env,
    );
    const port = await freePort();
    const metricsUrl = `http://127.0.0.1:${port}/metrics`;
    const runNode = async () => {
      const node = startDaemon(
        "src/node/main.ts",
        [
          `--kubeconfig=${kubeconfig}`,
          `--node-name=${name}`,
          `--kubelet-dir=${join(directory, "kubelet")}`,
          `--endpoint=unix://${join(directory, "node.sock")}`,
          ...sockets,
          `--arbiter-socket=${join(directory, "arbiter.sock")}`,
          `--probe-address=127.0.0.1:${port}`,
          `--log-dir=${directory}`,
          `--lease-seconds=${leaseSeconds}`,
          `--call-deadline-seconds=${callDeadlineSeconds}`,
          "--no-registration",
          "--log-level=debug",
        ],
        env,
      );
      await eventually(async () => {
        if (node.child.exitCode !== null) throw new Error(`it ended: ${node.log()}`);
        const response = await fetch(`http://127.0.0.1:${port}/readyz`);
        if (!response.ok) throw new Error(await response.text());
      });
      return node;
    };
    const made = new TestNode(name, directory, network, { mountd, node: await runNode() }, runNode);
    made.metricsUrl = metricsUrl;
    return made;
  }

  staging(volume: string): string {
    return join(this.directory, "kubelet/plugins", volume);
  }

  target(volume: string): string {
    return join(this.directory, "kubelet/pods", volume);
  }

  log(): string {
    return this.#daemons.node.log();
  }

  async stage(volumeId: string, mode: AccessMode = "ReadWriteOnce"): Promise<void> {
    const stagingTargetPath = this.staging(volumeId);
    const request = { volumeId, stagingTargetPath, volumeCapability: capabilityOf(mode) };
    await call(this.csi.node, "nodeStageVolume", NodeStageVolumeRequest.fromPartial(request));
  }

  async publish(volumeId: string, mode: AccessMode = "ReadWriteOnce"): Promise<void> {
    const paths = { stagingTargetPath: this.staging(volumeId), targetPath: this.target(volumeId) };
    const request = { volumeId, ...paths, volumeCapability: capabilityOf(mode) };
    await call(this.csi.node, "nodePublishVolume", NodePublishVolumeRequest.fromPartial(request));
  }

  /** As a kubelet does it: again and again. */
  async use(volumeId: string, timeoutMs = 60_000, mode: AccessMode = "ReadWriteOnce"): Promise<void> {
    await eventually(() => this.stage(volumeId, mode), timeoutMs, 500);
    await this.publish(volumeId, mode);
  }

  async leave(volumeId: string): Promise<void> {
    await call(this.csi.node, "nodeUnpublishVolume", { volumeId, targetPath: this.target(volumeId) });
    await call(this.csi.node, "nodeUnstageVolume", { volumeId, stagingTargetPath: this.staging(volumeId) });
  }

  async killPlugin(): Promise<void> {
    await this.#daemons.node.stop("SIGKILL");
    this.#daemons.node = await this.#runNode();
  }

  /** Everything that runs for this node and this volume. */
  async processes(volume: string): Promise<number[]> {
    const { holderPid } = readRecord(mountDirectory(this.staging(volume), join(this.directory, "run"))) ?? {};
    const { stdout } = await run("pgrep", ["-P", String(holderPid)]);
    const { node, mountd } = this.#daemons;
    return [node.child.pid, mountd.child.pid, holderPid, ...stdout.trim().split("\n")].map(Number);
  }

  /** Whatever still runs with this node's directory: holders and volume processes live on their own. */
  #left(): number[] {
    const mark = `CHIRON_RUN_DIR=${join(this.directory, "run")}\0`;
    return readdirSync("/proc").flatMap((name) => {
      try {
        const isOurs = /^\d+$/.test(name) && readFileSync(`/proc/${name}/environ`, "latin1").includes(mark);
        return isOurs ? [Number(name)] : [];
      } catch {
        return [];
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.csi[Symbol.dispose]();
    await Promise.all([this.#daemons.node.stop("SIGKILL"), this.#daemons.mountd.stop("SIGKILL")]);
    await this.network[Symbol.asyncDispose]();
    for (const pid of this.#left()) process.kill(pid, "SIGKILL");
    await removeMounts(this.directory);
    if (process.env["CHIRON_TEST_KEEP"]) return;
    rmSync(this.directory, { recursive: true, force: true });
  }
}
