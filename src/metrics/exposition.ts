/** Every metric of a volume, declared in one place, filled at each scrape from plain figures. Labels are bounded. */
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import { bucketBoundsUs, type LatencyHistogram } from "./latency-histogram.ts";
import type { CallFigures, VolumeFacts, VolumeMetrics } from "./volume-metrics.ts";

const volumeStates = ["Healthy", "Degraded", "Syncing", "QuorumLost"];
const replicaStates = ["InSync", "OutOfSync", "Syncing", "Unreachable"];

type Labels = Readonly<Record<string, string>>;

export async function expose(metrics: VolumeMetrics, facts: VolumeFacts): Promise<string> {
  const registry = new Registry();
  registry.setDefaultLabels({ volume: facts.volume });
  const gauge = (name: string, help: string, values: readonly (readonly [Labels, number])[]) => {
    if (values.length === 0) return; // prom-client would make up a 0 without labels
    const labelNames = Object.keys(values[0]?.[0] ?? {});
    const metric = new Gauge({ name, help, labelNames, registers: [registry] });
    for (const [labels, value] of values) metric.set(labels, value);
  };
  const counter = (name: string, help: string, values: readonly (readonly [Labels, number])[]) => {
    if (values.length === 0) return;
    const labelNames = Object.keys(values[0]?.[0] ?? {});
    const metric = new Counter({ name, help, labelNames, registers: [registry] });
    for (const [labels, value] of values) metric.inc(labels, value);
  };
  const { replicas } = facts;

  gauge(
    "chiron_volume_state",
    "1 for the state that the volume is in.",
    volumeStates.map((state) => [{ state }, Number(facts.state === state)]),
  );
  gauge("chiron_volume_in_sync_replicas", "How many replicas are in sync.", [
    [{}, replicas.filter((replica) => replica.state === "InSync").length],
  ]);
  gauge("chiron_volume_min_in_sync_replicas", "With fewer in sync the volume is read-only.", [
    [{}, facts.minInSyncReplicas],
  ]);
  gauge(
    "chiron_replica_state",
    "1 for the state that the replica is in.",
    replicas.flatMap(({ name, state: is }) =>
      replicaStates.map((state) => [{ replica: name, state }, Number(is === state)] as const),
    ),
  );
  gauge(
    "chiron_replica_free_bytes",
    "Space that is left on the replica.",
    replicas.flatMap(({ name, freeBytes }) => (freeBytes === null ? [] : [[{ replica: name }, freeBytes] as const])),
  );
  const syncing = replicas.flatMap(({ name, progress }) => (progress === null ? [] : [{ name, progress }]));
  gauge(
    "chiron_resync_files_remaining",
    "Files that the resync of the replica has still to look at.",
    syncing.map(({ name, progress }) => [{ replica: name }, progress.filesRemaining]),
  );
  gauge(
    "chiron_resync_bytes_remaining",
    "Bytes that the resync of the replica has still to compare or copy.",
    syncing.map(({ name, progress }) => [{ replica: name }, progress.bytesRemaining]),
  );
  gauge(
    "chiron_resync_percent",
    "How far the resync of the replica is.",
    syncing.map(({ name, progress }) => [{ replica: name }, progress.percent]),
  );
  gauge(
    "chiron_dirty_objects",
    "Objects that a replica which is not in sync is known to have missed; everything is one if nothing is known.",
    facts.dirty.map(({ name, files }) => [{ replica: name }, files]),
  );
  gauge(
    "chiron_dirty_bytes",
    "Bytes within files that a replica which is not in sync is known to have missed, beside whole objects.",
    facts.dirty.map(({ name, bytes }) => [{ replica: name }, bytes]),
  );
  counter(
    "chiron_expulsions_total",
    "How often a replica left the in-sync set, by reason.",
    metrics.expulsions.map(({ replica, reason, count }) => [{ replica, reason }, count]),
  );

  const operations = [...metrics.operations.byName].map(([operation, figures]) => ({ labels: { operation }, figures }));
  counter(
    "chiron_operation_errors_total",
    "Requests of the kernel that were answered with an errno.",
    errorsOf(operations),
  );
  histogram(
    registry,
    "chiron_operation_duration_seconds",
    "Requests of the kernel, by how long they took.",
    operations,
  );
  counter(
    "chiron_read_bytes_total",
    "Bytes that applications have read through the volume (not from the page cache).",
    [[{}, metrics.operations.byName.get("read")?.bytes ?? 0]],
  );
  counter("chiron_written_bytes_total", "Bytes that applications have written to the volume.", [
    [{}, metrics.operations.byName.get("write")?.bytes ?? 0],
  ]);
  const calls = [...metrics.replicas].flatMap(([replica, recorder]) =>
    [...recorder.byName].map(([call, figures]) => ({ labels: { replica, call }, figures })),
  );
  const moved = (call: string): (readonly [Labels, number])[] =>
    [...metrics.replicas].map(([replica, { byName }]) => [{ replica }, byName.get(call)?.bytes ?? 0]);
  counter("chiron_replica_read_bytes_total", "Bytes read from a replica, for applications and resyncs.", moved("read"));
  counter("chiron_replica_written_bytes_total", "Bytes written to a replica.", moved("write"));
  counter("chiron_replica_errors_total", "Calls that a replica answered with an errno.", errorsOf(calls));
  histogram(registry, "chiron_replica_duration_seconds", "Calls of a replica, by how long they took.", calls);
  return await registry.metrics();
}

interface Series {
  readonly labels: Labels;
  readonly figures: CallFigures;
}

function errorsOf(series: readonly Series[]): (readonly [Labels, number])[] {
  return series.map(({ labels, figures }) => [labels, figures.errors]);
}

/** prom-client's own histogram takes observations only, not counts; its registry takes anything that can be asked. */
function histogram(registry: Registry, name: string, help: string, series: readonly Series[]): void {
  const metric = {
    name,
    help,
    type: "histogram",
    aggregator: "sum",
    reset: () => {},
    get: async () => ({
      name,
      help,
      type: "histogram",
      aggregator: "sum",
      values: series
        .filter(({ figures }) => figures.durations.sumUs > 0) // a kind of call that nobody makes would be 23 lines
        .flatMap(({ labels, figures }) => histogramValues(name, labels, figures.durations)),
    }),
  };
  registry.registerMetric(metric as unknown as Metric);
}

function histogramValues(name: string, labels: Labels, durations: LatencyHistogram) {
  let cumulative = 0;
  const buckets = bucketBoundsUs.map((bound, i) => {
    cumulative += durations.counts[i] ?? 0;
    return { metricName: `${name}_bucket`, labels: { ...labels, le: bound / 1e6 }, value: cumulative };
  });
  const { count } = durations;
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { ...labels, le: "+Inf" }, value: count },
    { metricName: `${name}_sum`, labels, value: durations.sumUs / 1e6 },
    { metricName: `${name}_count`, labels, value: count },
  ];
}
