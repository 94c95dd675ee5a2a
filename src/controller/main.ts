/**
 * The controller process: the CSI Identity and Controller services on a socket, always, and the reconciler while this
 * process holds the Lease. It exits when it lost the Lease, so that nothing that it had begun goes on beside the next.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { parseArgs } from "node:util";
import { csiDriverName } from "../api/names.ts";
import { ControllerService, IdentityService } from "../csi/generated/csi.ts";
import { identityHandlers } from "../csi/identity.ts";
import { Operations } from "../csi/operations.ts";
import { SocketServer } from "../csi/server.ts";
import { serve } from "../csi/unary.ts";
import { KubeClient } from "../kube/client.ts";
import { loadKubeConfig } from "../kube/config.ts";
import { EventRecorder } from "../kube/events.ts";
import { LeaderElection } from "../kube/leader-election.ts";
import { startProbes } from "../kube/probes.ts";
import { jsonLogger, type LogLevel } from "../util/logger.ts";
import { packageVersion } from "../util/package-version.ts";
import { renderControllerMetrics } from "./controller-metrics.ts";
import { controllerHandlers } from "./csi-controller.ts";
import { Reconciler } from "./reconciler.ts";
import { SnapshotReconciler } from "./snapshot-reconciler.ts";

const options = {
  endpoint: { type: "string", default: "/csi/csi.sock" },
  kubeconfig: { type: "string" },
  namespace: { type: "string" },
  "probe-address": { type: "string", default: ":9810" },
  "stale-after-seconds": { type: "string", default: "720" },
  "log-level": { type: "string", default: "info" },
} as const;

/** Resolves when the process was told to stop, with its exit code. */
export async function runController(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options, strict: true });
  const logger = jsonLogger((line) => process.stderr.write(line), values["log-level"] as LogLevel);
  const config = await loadKubeConfig(values.kubeconfig);
  const client = new KubeClient(config);
  const snapshots = new SnapshotReconciler(client, logger, (volume) => reconciler.look(volume));
  const reconciler: Reconciler = new Reconciler(client, {
    logger,
    snapshotsOf: (volume) => snapshots.of(volume),
    events: new EventRecorder(client, "chiron-controller", logger),
    staleAfterMs: Number(values["stale-after-seconds"]) * 1000,
  });
  const election = new LeaderElection(client, {
    namespace: values.namespace ?? config.namespace,
    name: "chiron-controller",
    identity: `${hostname()}_${randomUUID()}`,
    logger,
  });
  const unary = { operations: new Operations(), logger, maxCallMs: 60_000 };
  const identity = identityHandlers({
    driverName: csiDriverName,
    version: packageVersion(),
    hasController: true,
    ready: () => true,
  });
  const server = new SocketServer(values.endpoint.replace(/^unix:(\/\/)?/, ""))
    .add(IdentityService, serve(identity, unary))
    .add(ControllerService, serve(controllerHandlers(client), unary));
  await server.start();
  const probes = await startProbes({
    address: values["probe-address"],
    notReady: () => null,
    metrics: async () =>
      renderControllerMetrics({ ...reconciler.measure(), leading: election.leading, requests: client.requests }),
  });

  let told = false;
  const stop = () => {
    told = true;
    election.stop();
  };
  process.once("SIGTERM", stop).once("SIGINT", stop);
  await election.run(async (signal) => {
    snapshots.start();
    await snapshots.synced();
    await reconciler.start();
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    await snapshots.stop();
    await reconciler.stop();
  });
  await server.stop();
  probes.close();
  client.close();
  return told ? 0 : 1;
}

if (import.meta.main) process.exit(await runController(process.argv.slice(2)));
