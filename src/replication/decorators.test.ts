import assert from "node:assert/strict";
import { test } from "node:test";
import { withDeadline } from "../replica/deadline.ts";
import type { LateCall, Replica } from "../replica/replica.ts";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { Moves } from "./moves.ts";
import { besideMoves } from "./moves-replica.ts";

class FencingReplica extends MemoryReplica {
  readonly fences = true;
  lateCalls: readonly LateCall[] = [{ kind: "entry", directory: { parent: null, name: "" }, name: "late" }];
  takenOver = "";

  async takeOver(volumeId: string): Promise<void> {
    this.takenOver = volumeId;
  }

  settleLateCalls(calls: readonly LateCall[]): void {
    this.lateCalls = this.lateCalls.filter((call) => !calls.includes(call));
  }
}

const decorators: readonly (readonly [string, (replica: Replica) => Replica])[] = [
  ["deadlines", (replica) => withDeadline(replica, 1_000)],
  ["moves", (replica) => besideMoves(replica, new Moves())],
];

for (const [name, decorate] of decorators) {
  test(`a replica with ${name} shuts others out, and tells of late calls, as the one inside does`, async () => {
    const inner = new FencingReplica(new MemoryDisk(), { name: "mars" });
    const replica = decorate(inner);
    assert.equal(replica.fences, true);
    await replica.takeOver?.("volume");
    assert.equal(inner.takenOver, "volume");
    const late = replica.lateCalls ?? [];
    assert.equal(late.length, 1);
    replica.settleLateCalls?.(late);
    assert.deepEqual(replica.lateCalls, []);
    assert.equal(decorate(new MemoryReplica(new MemoryDisk(), { name: "venus" })).fences, false);
  });
}
