/** Pods that use a volume and tell by their state whether they ever saw an error. */
import { setTimeout as delay } from "node:timers/promises";
import type { Cluster } from "./cluster.ts";

/**
 * Appends numbered lines to a file, syncs each, reads the last one back, and ends at the first error. Goes on where an
 * earlier pod stopped.
 */
const verifying = `
f=/data/log; touch $f || exit 2; i=$(wc -l < $f); echo from $i
while :; do
  i=$((i+1)); echo "$i" >> $f || { echo "write $i failed"; exit 3; }
  sync $f || { echo "sync $i failed"; exit 4; }
  last=$(tail -n 1 $f) || { echo "read $i failed"; exit 5; }
  [ "$last" = "$i" ] || { echo "wrote $i, read $last"; exit 6; }
  echo "$i" > /progress/done
  sleep 0.02
done`;

export interface PodOptions {
  readonly name: string;
  /** The name of a claim, or what a claim of the pod's own (an ephemeral volume) asks for. */
  readonly claim: string | object;
  readonly script?: string;
  readonly node?: string;
  readonly readOnly?: boolean;
  readonly podSecurity?: object;
  readonly security?: object;
  readonly subPath?: string;
}

export const pod = (options: PodOptions) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: options.name, labels: { app: options.name } },
  spec: {
    restartPolicy: "Never",
    terminationGracePeriodSeconds: 0,
    dnsPolicy: "Default",
    ...(options.node ? { nodeSelector: { "kubernetes.io/hostname": options.node } } : {}),
    ...(options.podSecurity ? { securityContext: options.podSecurity } : {}),
    tolerations: ["unreachable", "not-ready"].map((word) => ({
      key: `node.kubernetes.io/${word}`,
      operator: "Exists",
      effect: "NoExecute",
      tolerationSeconds: 5,
    })),
    containers: [
      {
        name: "main",
        image: "localhost/busybox:1",
        args: ["-c", options.script ?? verifying],
        ...(options.security ? { securityContext: options.security } : {}),
        volumeMounts: [
          {
            name: "data",
            mountPath: "/data",
            readOnly: options.readOnly ?? false,
            ...(options.subPath ? { subPath: options.subPath } : {}),
          },
          { name: "progress", mountPath: "/progress" },
        ],
      },
    ],
    volumes: [
      {
        name: "data",
        ...(typeof options.claim === "string"
          ? { persistentVolumeClaim: { claimName: options.claim } }
          : { ephemeral: { volumeClaimTemplate: { spec: claimSpec(options.claim) } } }),
      },
      { name: "progress", emptyDir: {} },
    ],
  },
});

const claimSpec = (more: object) => ({
  accessModes: ["ReadWriteOnce"],
  resources: { requests: { storage: "1Gi" } },
  ...more,
});

export const claim = (name: string, more: object) => ({
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  metadata: { name },
  spec: claimSpec(more),
});

/** How far the verifying workload is. Throws what it said if it has ended. */
export async function progressOf(cluster: Cluster, name: string): Promise<number> {
  const phase = await cluster.must("get", "pod", name, "-o", "jsonpath={.status.phase}");
  if (phase !== "Running") throw new Error(`pod ${name} is ${phase}: ${(await cluster.kubectl("logs", name)).stdout}`);
  return Number(await cluster.must("exec", name, "--", "sh", "-c", "cat /progress/done 2>/dev/null || echo 0"));
}

/** Waits until the workload has written this many lines more. */
export async function goesOn(cluster: Cluster, name: string, lines = 20, timeoutMs = 60_000): Promise<void> {
  const first = await progressOf(cluster, name);
  for (const endMs = performance.now() + timeoutMs; ; ) {
    const now = await progressOf(cluster, name);
    if (now >= first + lines) return;
    if (performance.now() > endMs) throw new Error(`pod ${name} stands still at line ${now}`);
    await delay(200);
  }
}
