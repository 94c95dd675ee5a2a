import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { renderMetrics } from "./node-metrics.ts";

describe("renderMetrics()", () => {
  it("writes each metric's help once, and escapes labels", () => {
    const text = renderMetrics([
      { volume: 'a"b\\c', status: null, restarts: 2 },
      {
        volume: "v",
        restarts: 0,
        status: {
          volume: "v",
          mountpoint: "/m",
          state: "Syncing",
          epoch: "1.0",
          pid: 1,
          minInSyncReplicas: 1,
          replicas: [
            {
              name: "mars",
              url: "/mars",
              state: "Syncing",
              reason: "Fault",
              since: "",
              readable: false,
              progress: { percent: 1, filesRemaining: 3, bytesRemaining: 4 },
              lastError: null,
              freeBytes: null,
            },
          ],
        },
      },
    ]);
    assert.match(text, /^chiron_volume_answers\{volume="a\\"b\\\\c"\} 0$/m);
    assert.match(text, /^chiron_volume_answers\{volume="v"\} 1$/m);
    assert.match(text, /^chiron_volume_process_restarts_total\{volume="a\\"b\\\\c"\} 2$/m);
    assert.match(text, /^chiron_replica_in_sync\{volume="v",replica="mars"\} 0$/m);
    assert.match(text, /^chiron_resync_bytes_remaining\{volume="v",replica="mars"\} 4$/m);
    assert.match(text, /^chiron_volume_state\{volume="v",state="Syncing"\} 1$/m);
    assert.equal([...text.matchAll(/# HELP chiron_volume_answers /g)].length, 1);
  });
});
