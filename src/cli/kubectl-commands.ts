/**
 * What `kubectl chiron` does. How a volume is, its ReplicatedVolume says; what only the volume's own process can do is
 * asked of it on its node, by `chiron` in the mount daemon's pod; a replica is replaced by editing `spec.replicas`.
 */
import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { places, StorageClassError } from "../api/storage-class.ts";
import type { ReplicaStatus, VolumeStatus } from "../replication/model.ts";
import { FailureError } from "../volume/failure.ts";
import { statusExitCodes, statusText } from "./status-view.ts";
import { LiveLine } from "./terminal.ts";

export interface Cluster {
  readonly context?: string;
  readonly kubeconfig?: string;
}

const chironInThePod = ["node", "/app/dist/cli/main.js"];
const daemonSelector = "app.kubernetes.io/component=mount-daemon";

export async function showStatus(cluster: Cluster, volume: string | undefined): Promise<void> {
  const found = await get<{ items?: ReplicatedVolume[] } & ReplicatedVolume>(cluster, [
    "rv",
    ...(volume === undefined ? [] : [volume]),
  ]);
  const volumes = found.items ?? [found];
  if (volumes.length === 0) console.log("There are no ReplicatedVolumes.");
  let worst = 0;
  for (const one of volumes) {
    const status = statusOf(one);
    worst = Math.max(worst, statusExitCodes[status.state]);
    console.log(statusText(status, Date.now()));
    for (const { type, status: is, message } of one.status?.conditions ?? [])
      if ((type === "Accepted" || type === "Ready") && is !== "True") console.log(`  ${type}: ${message}`);
  }
  process.exitCode = worst;
}

/** A ReplicatedVolume in the words of the command line. */
export function statusOf({ metadata, spec, status }: ReplicatedVolume): VolumeStatus {
  const replicas = (status?.replicas ?? []).map((replica): ReplicaStatus => {
    const { name, state, reason = null, since, progress = null, message = null, place } = replica;
    const nfs = place?.nfs;
    const hostPath = place?.hostPath;
    return {
      name,
      url: nfs ? `${nfs.server}:${nfs.path}` : hostPath ? `${hostPath.node}:${hostPath.path}` : "",
      // Nobody uses the volume: they are as they were left.
      state: state === "Unknown" ? (status?.membership?.members.includes(name) ? "InSync" : "OutOfSync") : state,
      reason: reason as ReplicaStatus["reason"],
      since: since ?? new Date().toISOString(),
      readable: state === "InSync",
      progress,
      lastError: message,
      freeBytes: null,
    };
  });
  const { phase } = status ?? {};
  const lost = phase === "QuorumLost" || phase === "Failed" || phase === "Unknown";
  const behind = replicas.some(({ state }) => state !== "InSync");
  return {
    volume: metadata.name,
    mountpoint: status?.holder === undefined ? `not in use (${phase ?? "Pending"})` : `on ${status.holder} (${phase})`,
    state: lost ? "QuorumLost" : phase === "Syncing" ? "Syncing" : behind ? "Degraded" : "Healthy",
    epoch: status?.membership === undefined ? "none" : `${status.membership.term}.${status.membership.seq}`,
    pid: 0,
    minInSyncReplicas: spec.minInSyncReplicas ?? 1,
    replicas,
  } as VolumeStatus;
}

/** Runs `chiron` on the node that has the volume mounted; its output and its exit code are ours. */
export async function throughItsNode(cluster: Cluster, volume: string, command: readonly string[]): Promise<void> {
  const { status } = await get<ReplicatedVolume>(cluster, ["rv", volume]);
  const node = status?.holder;
  if (node === undefined)
    throw new FailureError(
      "not-mounted",
      `No node has ${volume} mounted for writing: it is looked after while a pod uses it`,
    );
  const pods = await get<{ items: { metadata: { name: string; namespace: string } }[] }>(cluster, [
    "pods",
    "--all-namespaces",
    `--selector=${daemonSelector}`,
    `--field-selector=spec.nodeName=${node},status.phase=Running`,
  ]);
  const [pod] = pods.items;
  if (pod === undefined)
    throw new FailureError("not-mounted", `The mount daemon does not run on node ${node}: look at its pod`);
  const { name, namespace } = pod.metadata;
  const args = ["exec", "-n", namespace, name, "--", ...chironInThePod, ...command];
  process.exitCode = (await kubectl(cluster, args, { shown: true })).code;
}

export async function replaceReplica(
  cluster: Cluster,
  volume: string,
  replica: string,
  { name, nfs, wait }: { readonly name: string; readonly nfs: string; readonly wait: boolean },
): Promise<void> {
  const before = await get<ReplicatedVolume>(cluster, ["rv", volume]);
  const patch = replacement(before, replica, name, nfs);
  await must(cluster, ["patch", "rv", volume, "--type=json", "-p", JSON.stringify(patch)]);
  if (!wait) return;
  const line = new LiveLine();
  for (;;) {
    const { status } = await get<ReplicatedVolume>(cluster, ["rv", volume]);
    const now = status?.replicas?.find((one) => one.name === name);
    const stays = status?.membership?.members.includes(replica) ?? false;
    if (now?.state === "InSync" && !stays) break;
    const percent = now?.progress === undefined ? "" : `, ${now.progress.percent} %`;
    line.show(`${name}  ${now?.state ?? "waiting"}${percent}`);
    await sleep(1_000);
  }
  line.final(`${name} is in sync, and ${replica} is no replica of ${volume} any more`);
}

/** As a JSON patch that is refused if somebody else has edited the replicas meanwhile. */
export function replacement(
  { metadata, spec }: ReplicatedVolume,
  replica: string,
  name: string,
  nfs: string,
): object[] {
  const names = spec.replicas.map((one) => one.name);
  const at = names.indexOf(replica);
  if (at < 0)
    throw new FailureError("usage", `Volume ${metadata.name} has no replica "${replica}": it has ${names.join(", ")}`);
  if (names.includes(name))
    throw new FailureError(
      "usage",
      `Volume ${metadata.name} has a replica "${name}" already: give the new one another name`,
    );
  const [server = "", path = ""] = onePlace(nfs);
  const options = spec.replicas[at]?.nfs?.mountOptions;
  const added = { name, nfs: { server, path, ...(options ? { mountOptions: options } : {}) } };
  return [
    { op: "test", path: `/spec/replicas/${at}/name`, value: replica },
    { op: "add", path: "/spec/replicas/-", value: added },
    { op: "remove", path: `/spec/replicas/${at}` },
  ];
}

function onePlace(nfs: string): readonly string[] {
  try {
    const found = places("--nfs", nfs, "mars.example.org:/export/data");
    if (found[0] !== undefined && found.length === 1) return found[0];
  } catch (error) {
    if (error instanceof StorageClassError) throw new FailureError("usage", error.message, { cause: error });
    throw error;
  }
  throw new FailureError("usage", "--nfs: one place is needed");
}

async function get<T>(cluster: Cluster, what: readonly string[]): Promise<T> {
  return JSON.parse(await must(cluster, ["get", ...what, "-o", "json"])) as T;
}

async function must(cluster: Cluster, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await kubectl(cluster, args, { shown: false });
  if (code !== 0) throw new FailureError("usage", stderr.trim() || `kubectl ended with ${code}`);
  return stdout;
}

function kubectl(
  { context, kubeconfig }: Cluster,
  args: readonly string[],
  { shown }: { readonly shown: boolean },
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const given = [
    ...(context === undefined ? [] : [`--context=${context}`]),
    ...(kubeconfig === undefined ? [] : [`--kubeconfig=${kubeconfig}`]),
  ];
  return new Promise((resolve, reject) => {
    const child = spawn("kubectl", [...given, ...args], { stdio: shown ? "inherit" : ["ignore", "pipe", "pipe"] });
    const out = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"] as const)
      child[stream]?.setEncoding("utf8").on("data", (text: string) => {
        out[stream] += text;
      });
    child.once("error", (cause) =>
      reject(new FailureError("usage", "kubectl cannot be run: is it in $PATH?", { cause })),
    );
    child.once("close", (code) => resolve({ code: code ?? 1, ...out }));
  });
}
