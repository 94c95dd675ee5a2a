/**
 * The node plugin's process: CSI Identity and Node services on a socket, registration with the kubelet, reports on the
 * volumes that are mounted here, removal of deleted volumes' directories. It mounts nothing itself, and ending it ends
 * no mount.
 */
import { hostname } from "node:os";
import { parseArgs } from "node:util";
import { csiDriverName } from "../api/names.ts";
import { typeOfVolume } from "../api/resource.ts";
import { IdentityService, NodeService } from "../csi/generated/csi.ts";
import { identityHandlers } from "../csi/identity.ts";
import { Operations } from "../csi/operations.ts";
import { SocketServer } from "../csi/server.ts";
import { serve } from "../csi/unary.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import { EventRecorder } from "../kube/events.ts";
import { startProbes } from "../kube/probes.ts";
import { jsonLogger, type LogLevel } from "../util/logger.ts";
import { packageVersion } from "../util/package-version.ts";
import { runDirectory } from "../volume/registry.ts";
import { ArbiterServer } from "./arbiter-server.ts";
import { nodeService } from "./csi-node.ts";
import { DescriptorVault } from "./descriptor-vault.ts";
import { MountDaemonClient } from "./mount-daemon.ts";
import { renderMetrics } from "./node-metrics.ts";
import { removeStartupTaint } from "./node-taint.ts";
import { Registration } from "./registration.ts";
import { SnapshotWork } from "./snapshot-work.ts";
import { TreeFill } from "./tree-fill.ts";
import { TreeRemoval } from "./tree-removal.ts";
import { Trees } from "./trees.ts";
import type { VolumeObject } from "./volume-holder.ts";
import { VolumeLeases } from "./volume-leases.ts";
import { VolumeWatch } from "./volume-watch.ts";

const options = {
  "node-name": { type: "string" },
  "kubelet-dir": { type: "string", default: "/var/lib/kubelet" },
  /** Where this process listens; the kubelet must see it at the same path. */
  endpoint: { type: "string" },
  "mountd-socket": { type: "string", default: "/run/chiron/mountd.sock" },
  "vault-socket": { type: "string", default: "/run/chiron/vault.sock" },
  "arbiter-socket": { type: "string", default: "/run/chiron/arbiter.sock" },
  /** A node that was silent for longer than this may be taken volumes from. */
  "lease-seconds": { type: "string", default: "60" },
  /** Where the volumes' Leases are; by default the pod's own namespace. */
  namespace: { type: "string" },
  "host-root": { type: "string", default: "" },
  "log-dir": { type: "string" },
  kubeconfig: { type: "string" },
  "no-registration": { type: "boolean", default: false },
  "probe-address": { type: "string", default: ":9809" },
  "call-deadline-seconds": { type: "string", default: "30" },
  "log-level": { type: "string", default: "info" },
} as const;

/** Resolves when the process was told to stop, with its exit code. */
export async function runNode(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options, strict: true });
  const logLevel = values["log-level"] as LogLevel;
  const logger = jsonLogger((line) => process.stderr.write(line), logLevel);
  const told = new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve()).once("SIGINT", () => resolve());
  });
  const kubeletDirectory = values["kubelet-dir"].replace(/\/$/, "");
  const endpoint = (values.endpoint ?? `${kubeletDirectory}/plugins/${csiDriverName}/csi.sock`).replace(
    /^unix:(\/\/)?/,
    "",
  );
  const facts = { node: values["node-name"] ?? hostname(), hostRoot: values["host-root"].replace(/\/$/, "") };
  const config = await loadKubeConfig(values.kubeconfig);
  const client = new KubeClient(config);
  const unary = { operations: new Operations(), logger, maxCallMs: 110_000 };

  const trees = new Trees(facts, logger);
  const vault = new DescriptorVault(values["vault-socket"], logger);
  const watch = new VolumeWatch(client, { facts, logger, runDirectory: runDirectory(), kubeletDirectory, vault });
  const leaseMs = Number(values["lease-seconds"]) * 1000;
  const leases = new VolumeLeases(client, {
    namespace: values.namespace ?? config.namespace,
    node: facts.node,
    times: { leaseMs, holdMs: (leaseMs * 3) / 4, renewMs: leaseMs / 4 },
  });
  const arbiter = new ArbiterServer(client, leases, logger);
  const events = new EventRecorder(client, "chiron-node", logger);
  const onTaken = (volume: VolumeObject, from: string, fenced: boolean) => {
    const how = fenced
      ? "the replicas' servers shut it out"
      : "nothing but time shuts it out of the replicas, so its lease is waited for";
    const message = `node ${facts.node} took the volume over from node ${from}, which did not give it back: ${how}`;
    void events.record({ ...volume, ...typeOfVolume }, "Warning", "TakenOver", message);
  };
  const removal = new TreeRemoval(client, trees, facts.node, logger);
  const daemon = new MountDaemonClient(values["mountd-socket"]);
  const service = nodeService(
    { client, daemon, trees, watch, vault, leases, onTaken },
    {
      facts,
      runDirectory: runDirectory(),
      logDirectory: values["log-dir"] ?? null,
      logLevel,
      deadlineMs: Number(values["call-deadline-seconds"]) * 1000,
      arbiterSocket: values["arbiter-socket"],
    },
  );
  const snapshots = new SnapshotWork(
    { client, aside: service.aside, operations: unary.operations, watch, events, logger },
    { node: facts.node, directory: `${kubeletDirectory}/plugins/${csiDriverName}/aside` },
  );
  const fill = new TreeFill({ claims: { client, leases, node: facts.node, onTaken }, trees, events, logger });
  const identity = identityHandlers({
    driverName: csiDriverName,
    version: packageVersion(),
    hasController: false,
    ready: () => true,
  });
  const server = new SocketServer(endpoint)
    .add(IdentityService, serve(identity, unary))
    .add(NodeService, serve(service.handlers, unary));
  const registration = new Registration({
    directory: `${kubeletDirectory}/plugins_registry`,
    endpoint,
    logger,
    unary,
    onRegistered: () =>
      void removeStartupTaint(client, facts.node, logger).catch((error: unknown) =>
        logger.warn("cannot remove the start-up taint", { node: facts.node, error }),
      ),
  });
  await server.start();
  await vault.start();
  await arbiter.start(values["arbiter-socket"]);
  watch.start();
  removal.start();
  fill.start();
  snapshots.start();
  if (!values["no-registration"]) await registration.start();
  const probes = await startProbes({
    address: values["probe-address"],
    notReady: () => (values["no-registration"] ? null : registration.problem),
    metrics: async () => renderMetrics(watch.measure(), client.requests),
  });

  await told;
  if (!values["no-registration"]) await registration.stop();
  await server.stop();
  await snapshots.stop();
  await fill.stop();
  await watch.stop();
  vault.stop();
  arbiter.stop();
  await removal.stop();
  probes.close();
  client.close();
  return 0;
}

if (import.meta.main) process.exit(await runNode(process.argv.slice(2)));
