import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decideHolder, type HolderView } from "./volume-holder.ts";

const view = (change: Partial<HolderView>): HolderView => ({
  holder: "n1",
  node: "n2",
  holderIsDown: false,
  fenced: true,
  unchangedMs: 0,
  leaseMs: 60_000,
  ...change,
});

describe("decideHolder()", () => {
  it("takes a volume that nobody has, and keeps its own", () => {
    assert.deepEqual(decideHolder(view({ holder: null })), { kind: "take", waits: false });
    assert.deepEqual(decideHolder(view({ holder: "n2" })), { kind: "ours" });
  });
  it("refuses what another node holds, and says for how long at least", () => {
    assert.deepEqual(decideHolder(view({ unchangedMs: 59_000 })), { kind: "refuse", againMs: 1_000 });
  });
  it("takes over from a silent node; where nothing shuts that out, its last lease is waited for", () => {
    assert.deepEqual(decideHolder(view({ unchangedMs: 60_000 })), { kind: "take", waits: false });
    assert.deepEqual(decideHolder(view({ unchangedMs: 60_000, fenced: false })), { kind: "take", waits: true });
  });
  it("believes a person who says that the node is down", () => {
    assert.deepEqual(decideHolder(view({ holderIsDown: true, fenced: false })), { kind: "take", waits: false });
  });
});
