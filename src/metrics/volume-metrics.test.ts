import assert from "node:assert/strict";
import { test } from "node:test";
import { bucketBoundsUs, LatencyHistogram } from "./latency-histogram.ts";
import { type VolumeFacts, VolumeMetrics } from "./volume-metrics.ts";

const facts: VolumeFacts = {
  volume: "web",
  state: "Syncing",
  minInSyncReplicas: 1,
  replicas: [
    { name: "mars", state: "InSync", freeBytes: 4096, progress: null },
    {
      name: "venus",
      state: "Syncing",
      freeBytes: null,
      progress: { filesRemaining: 7, bytesRemaining: 70, percent: 50 },
    },
  ],
  dirty: [{ name: "venus", files: 3, bytes: 8192 }],
};

test("a duration is counted in the first bucket that it fits into", () => {
  for (const [i, bound] of bucketBoundsUs.entries()) {
    for (const microseconds of [bound, bound + 0.5, bound + 1]) {
      const histogram = new LatencyHistogram();
      histogram.record(microseconds);
      assert.equal(histogram.counts.indexOf(1), microseconds <= bound ? i : i + 1, `${microseconds} µs`);
    }
  }
  const extremes = new LatencyHistogram();
  extremes.record(0);
  extremes.record(1e15);
  assert.deepEqual([extremes.counts[0], extremes.counts.at(-1), extremes.count], [1, 1, 2]);
});

test("figures come out as Prometheus reads them", async () => {
  const metrics = new VolumeMetrics();
  metrics.operations.of("write").record(100, 4096);
  metrics.operations.of("write").record(20, -28);
  metrics.operations.of("write").bytes += 4096;
  metrics.replica("mars").of("write").record(30, -5);
  metrics.expelled("venus", "Fault");
  metrics.expelled("venus", "Fault");
  const lines = (await metrics.text(facts)).split("\n");
  for (const expected of [
    'chiron_volume_state{state="Syncing",volume="web"} 1',
    'chiron_volume_state{state="Healthy",volume="web"} 0',
    'chiron_volume_in_sync_replicas{volume="web"} 1',
    'chiron_replica_state{replica="venus",state="Syncing",volume="web"} 1',
    'chiron_replica_free_bytes{replica="mars",volume="web"} 4096',
    'chiron_resync_files_remaining{replica="venus",volume="web"} 7',
    'chiron_dirty_objects{replica="venus",volume="web"} 3',
    'chiron_dirty_bytes{replica="venus",volume="web"} 8192',
    'chiron_replica_written_bytes_total{replica="mars",volume="web"} 0',
    'chiron_expulsions_total{replica="venus",reason="Fault",volume="web"} 2',
    'chiron_operation_errors_total{operation="write",volume="web"} 1',
    "# TYPE chiron_operation_duration_seconds histogram",
    'chiron_operation_duration_seconds_bucket{operation="write",le="0.000032",volume="web"} 1',
    'chiron_operation_duration_seconds_bucket{operation="write",le="0.000128",volume="web"} 2',
    'chiron_operation_duration_seconds_bucket{operation="write",le="+Inf",volume="web"} 2',
    'chiron_operation_duration_seconds_count{operation="write",volume="web"} 2',
    'chiron_written_bytes_total{volume="web"} 4096',
    'chiron_replica_errors_total{replica="mars",call="write",volume="web"} 1',
  ]) {
    assert.ok(lines.includes(expected), `${expected}\nis not in\n${lines.join("\n")}`);
  }
  assert.equal(await metrics.text(facts), lines.join("\n"), "a second scrape says the same");
});

test("a volume that has done nothing yet can be scraped", async () => {
  const text = await new VolumeMetrics().text({ ...facts, replicas: [], dirty: [] });
  assert.match(text, /chiron_volume_in_sync_replicas\{volume="web"\} 0/);
});
