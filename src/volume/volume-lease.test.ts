import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { silentLogger } from "../util/logger.ts";
import { VolumeLease } from "./volume-lease.ts";

const times = { renewMs: 4_000, holdMs: 12_000, leaseMs: 16_000 };

/** A lease on a clock of its own; `answer` is what the next renewals get. */
function world({ mustEnd = false } = {}) {
  mock.timers.enable({ apis: ["setInterval"] });
  const state = { nowMs: 1_000, answer: "ours" as "ours" | "taken" | "nothing", asked: 0, told: [] as string[] };
  const lease = new VolumeLease(
    {
      renew: async () => {
        state.asked += 1;
        if (state.answer === "nothing") throw new Error("no way there");
        return state.answer === "ours";
      },
      onTaken: () => state.told.push("taken"),
      onHold: () => state.told.push("hold"),
      onLetGo: () => state.told.push("let go"),
      onEnd: () => state.told.push("end"),
      onUntil: (untilMs) => state.told.push(`until ${untilMs}`),
      mustEnd: () => mustEnd,
      nowMs: () => state.nowMs,
      log: silentLogger,
    },
    times,
  );
  lease.start(state.nowMs);
  const pass = async (ms: number) => {
    for (const endMs = state.nowMs + ms; state.nowMs < endMs; ) {
      state.nowMs += 800;
      mock.timers.tick(800);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { state, lease, pass, done: () => mock.timers.reset() };
}

test("a lease is renewed once in each period", async () => {
  const { state, pass, done } = world();
  await pass(40_000);
  done();
  assert.ok(state.asked >= 8 && state.asked <= 10, String(state.asked));
  assert.ok(!state.told.includes("hold"));
});

test("changes wait before the lease is over, and go on when it is renewed", async () => {
  const { state, pass, done } = world();
  state.answer = "nothing";
  await pass(11_000);
  assert.ok(!state.told.includes("hold"));
  await pass(2_000);
  assert.ok(state.told.includes("hold"));
  await pass(10_000);
  state.answer = "ours";
  await pass(2_000);
  done();
  assert.equal(state.told.at(-1), "let go");
  assert.ok(!state.told.includes("end"), "the servers shut it out, if need be");
});

test("where only time shuts a process out, it ends with its lease, and its holder knows when", async () => {
  const { state, pass, done } = world({ mustEnd: true });
  assert.equal(state.told[0], "until 17000");
  state.answer = "nothing";
  await pass(15_200);
  assert.ok(!state.told.includes("end"));
  await pass(1_600);
  done();
  assert.ok(state.told.includes("end"));
});

test("a lease that another node has is no reason to stop by itself: the arbiter is asked", async () => {
  const { state, pass, done } = world();
  state.answer = "taken";
  await pass(5_000);
  done();
  assert.ok(state.told.includes("taken"));
});
