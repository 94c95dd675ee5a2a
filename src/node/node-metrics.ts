/** What Prometheus is told of the volumes that are mounted on this node: names and labels that the chart's alerts use. */
import { escapeLabel } from "../metrics/label.ts";
import type { VolumeStatus } from "../volume/protocol.ts";

export interface MeasuredVolume {
  readonly volume: string;
  /** null: the volume process does not answer. */
  readonly status: VolumeStatus | null;
  /** How often its volume process was started again. */
  readonly restarts: number;
}

interface Family {
  readonly help: string;
  readonly type: "gauge" | "counter";
  readonly samples: string[];
}

const families = {
  chiron_volume_answers: ["gauge", "Whether the volume process answers."],
  chiron_volume_state: ["gauge", "1 for the state that the volume is in."],
  chiron_volume_replicas: ["gauge", "Replicas of the volume."],
  chiron_volume_replicas_in_sync: ["gauge", "Replicas that hold everything that was acknowledged."],
  chiron_volume_replicas_needed: ["gauge", "With fewer in sync, writes are refused."],
  chiron_volume_size_bytes: ["gauge", "How much the volume may hold, or its tightest replica."],
  chiron_volume_available_bytes: ["gauge", "How much more fits."],
  chiron_volume_process_restarts_total: ["counter", "How often the volume process was started again."],
  chiron_replica_in_sync: ["gauge", "Whether the replica holds everything that was acknowledged."],
  chiron_replica_state: ["gauge", "1 for the state that the replica is in."],
  chiron_resync_files_remaining: ["gauge", "Files that the replica's resync has before it."],
  chiron_node_api_requests_total: ["counter", "Requests of the node plugin to the API server."],
  chiron_resync_bytes_remaining: ["gauge", "Bytes that the replica's resync has before it."],
} as const;
type Name = keyof typeof families;

/** `requests`: to the API server, so far. */
export function renderMetrics(volumes: readonly MeasuredVolume[], requests = 0): string {
  const found = new Map<Name, Family>();
  const add = (name: Name, labels: Readonly<Record<string, string>>, value: number) => {
    const [type, help] = families[name];
    const family = found.get(name) ?? { type, help, samples: [] };
    const text = Object.entries(labels).map(([label, word]) => `${label}="${escapeLabel(word)}"`);
    family.samples.push(text.length === 0 ? `${name} ${value}` : `${name}{${text.join(",")}} ${value}`);
    found.set(name, family);
  };
  add("chiron_node_api_requests_total", {}, requests);
  for (const { volume, status, restarts } of volumes) {
    add("chiron_volume_answers", { volume }, status === null ? 0 : 1);
    add("chiron_volume_process_restarts_total", { volume }, restarts);
    if (status === null) continue;
    for (const state of ["Healthy", "Degraded", "Syncing", "QuorumLost"])
      add("chiron_volume_state", { volume, state }, status.state === state ? 1 : 0);
    add("chiron_volume_replicas", { volume }, status.replicas.length);
    add("chiron_volume_replicas_in_sync", { volume }, status.replicas.filter(({ state }) => state === "InSync").length);
    add("chiron_volume_replicas_needed", { volume }, status.minInSyncReplicas);
    if (status.space) {
      add("chiron_volume_size_bytes", { volume }, status.space.totalBytes);
      add("chiron_volume_available_bytes", { volume }, status.space.availableBytes);
    }
    for (const { name: replica, state, progress } of status.replicas) {
      add("chiron_replica_in_sync", { volume, replica }, state === "InSync" ? 1 : 0);
      for (const word of ["InSync", "OutOfSync", "Syncing", "Unreachable"])
        add("chiron_replica_state", { volume, replica, state: word }, state === word ? 1 : 0);
      if (progress === null) continue;
      add("chiron_resync_files_remaining", { volume, replica }, progress.filesRemaining);
      add("chiron_resync_bytes_remaining", { volume, replica }, progress.bytesRemaining);
    }
  }
  return [...found]
    .map(([name, { type, help, samples }]) =>
      [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...samples].join("\n"),
    )
    .join("\n");
}
