import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { silentLogger } from "../util/logger.ts";
import { IntentPolicy, type PolicyClock } from "./intent-policy.ts";
import { TestVolume } from "./testing/test-volume.ts";

class TestClock implements PolicyClock {
  nowMs = 0;
  setMs = 1_700_000_000_000;
  #due: { at: number; call: () => void }[] = [];
  readonly monotonicMs = (): number => this.nowMs;
  readonly wallMs = (): number => this.setMs + this.nowMs;
  readonly after = (ms: number, call: () => void): (() => void) => {
    const entry = { at: this.nowMs + ms, call };
    this.#due.push(entry);
    return () => {
      this.#due = this.#due.filter((other) => other !== entry);
    };
  };

  get waiting(): number {
    return this.#due.length;
  }

  async pass(ms: number): Promise<void> {
    for (const end = this.nowMs + ms; this.nowMs < end; ) {
      this.nowMs += 1000;
      const due = this.#due.filter(({ at }) => at <= this.nowMs);
      this.#due = this.#due.filter(({ at }) => at > this.nowMs);
      for (const { call } of due) call();
      for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

async function started() {
  const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()]);
  const clock = new TestClock();
  let changes = 0;
  const run = async (path: string) => {
    changes++;
    await volume.run({ kind: "create", path });
  };
  const policy = new IntentPolicy({ intents: volume.intents, changes: () => changes, log: silentLogger }, { clock });
  policy.start();
  return { volume, clock, run, policy };
}

test("intents are cleared some seconds after the last change, and then nothing runs any more", async () => {
  const { volume, clock, run } = await started();
  assert.equal(clock.waiting, 0);
  await run("a");
  await clock.pass(3_000);
  assert.ok(volume.intents.count > 0);
  await clock.pass(4_000);
  assert.equal(volume.intents.count, 0);
  assert.equal(clock.waiting, 0);
});

test("intents of a busy volume are cleared once a minute", async () => {
  const { volume, clock, run } = await started();
  for (let i = 0; i < 59; i++) {
    await run(`a${i}`);
    await clock.pass(1_000);
  }
  assert.equal(volume.intents.generation, 1);
  await run("b");
  await clock.pass(2_000);
  assert.equal(volume.intents.generation, 2);
});

test("nothing is cleared while a replica is out", async () => {
  const { volume, clock, run } = await started();
  await run("a");
  volume.membership.expel([1]);
  await clock.pass(200_000);
  assert.ok(volume.intents.count > 0);
});

test("a clock that is set back begins a new generation", async () => {
  const { volume, clock, run } = await started();
  await run("a");
  clock.setMs -= 3_600_000;
  await clock.pass(1_000);
  assert.equal(volume.intents.generation, 2);
});
