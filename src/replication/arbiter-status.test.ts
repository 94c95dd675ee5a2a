import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { silentLogger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { type RecordStore, StatusArbiter, type StatusArbiterOptions } from "./arbiter-status.ts";
import { VoterArbiter } from "./arbiter-voters.ts";
import { ReplicaControlFiles } from "./control-files.ts";
import { ClaimLostError, QuorumLostError } from "./errors.ts";
import type { Held, StatusRecord } from "./takeover-rules.ts";

/** An object that changes by compare-and-swap, and can be out of reach, before or after a swap takes effect. */
class Store implements RecordStore {
  held: Held = { holder: "n1", record: null };
  version = 1;
  fails: "never" | "always" | "after the next swap" = "never";

  async read() {
    if (this.fails === "always") throw new Error("out of reach");
    return { ...this.held, version: String(this.version) };
  }

  async swap(version: string, record: StatusRecord) {
    if (this.fails === "always") throw new Error("out of reach");
    if (version !== String(this.version)) return false;
    this.version += 1;
    this.held = { ...this.held, record };
    if (this.fails === "after the next swap") {
      this.fails = "never";
      throw new Error("no answer");
    }
    return true;
  }

  /** Somebody writes another part of the object. */
  touch() {
    this.version += 1;
  }
}

async function world() {
  const store = new Store();
  const replicas = new Map<string, MemoryReplica>();
  for (const name of ["a", "b"]) {
    const replica = new MemoryReplica(undefined, { name });
    await replica.connect({ signal: AbortSignal.timeout(10_000) });
    await start(new ReplicaControlFiles(replica).create());
    replicas.set(name, replica);
  }
  const clock = { nowMs: 0 };
  const voters = () =>
    new VoterArbiter(
      [...replicas].map(([name, replica]) => ({ name, files: new ReplicaControlFiles(replica) })),
      { log: silentLogger, now: () => new Date(0), isQuiet: () => true },
      { volumeId: "v", witness: null, minInSync: 1, forceDegraded: false },
    );
  await voters().initialize(["a", "b"]);
  const arbiter = (change: Partial<StatusArbiterOptions> = {}) =>
    new StatusArbiter(
      {
        store,
        voters: voters(),
        fences: () => true,
        now: () => new Date(0),
        nowMs: () => clock.nowMs,
        pause: async (ms) => {
          clock.nowMs += ms;
          await new Promise((resolve) => setImmediate(resolve));
        },
        log: silentLogger,
      },
      {
        node: "n1",
        mount: "m1",
        volumeId: "v",
        resumed: false,
        waitMs: 5_000,
        replicas: ["a", "b"],
        here: ["a", "b"],
        ...change,
      },
    );
  return { store, arbiter, voters, clock };
}

test("the first record is made of what the replicas carry, and copied to its members", async () => {
  const { store, arbiter, voters } = await world();
  const claimed = await arbiter().claim();
  assert.deepEqual(claimed.members, ["a", "b"]);
  assert.equal(store.held.record?.mount, "m1");
  const copy = await voters().peek();
  assert.equal(copy?.term, claimed.term);
  assert.deepEqual(copy?.members, ["a", "b"]);
});

test("without a record the replicas are believed only if all of them are here", async () => {
  const { arbiter } = await world();
  await assert.rejects(arbiter({ here: ["a"] }).claim(), (error: QuorumLostError) => {
    assert.equal(error.reason, "member-missing");
    assert.match(error.message, /"b" cannot be reached/);
    return true;
  });
});

test("a claim goes on with the members that are here, whoever held the volume before", async () => {
  const { store, arbiter } = await world();
  await arbiter().claim();
  store.held = { ...store.held, holder: "n2" };
  const claimed = await arbiter({ node: "n2", mount: "m2", here: ["b"] }).claim();
  assert.deepEqual(claimed.members, ["b"]);
  assert.deepEqual(
    claimed.absent.map(({ name, reason }) => [name, reason]),
    [["a", "NotAtMount"]],
  );
});

test("a process whose volume was claimed by another one can record nothing, and learns of it when it asks", async () => {
  const { store, arbiter } = await world();
  const old = arbiter();
  await old.claim();
  await old.confirm();
  store.held = { ...store.held, holder: "n2" };
  await assert.rejects(old.confirm(), ClaimLostError, "already when the other node has made itself the holder");
  await arbiter({ node: "n2", mount: "m2" }).claim();
  store.held = { ...store.held, holder: "n1" };
  await assert.rejects(old.record(["a"], null, []), ClaimLostError);
  await assert.rejects(arbiter({ resumed: true }).claim(), ClaimLostError, "its successor in the same mount neither");
});

test("other changes of the object delay a record, and never undo it", async () => {
  const { store, arbiter } = await world();
  const ours = arbiter();
  await ours.claim();
  const swap = store.swap.bind(store);
  let meddled = 0;
  store.swap = async (version, record) => {
    if (meddled++ < 3) store.touch();
    return await swap(version, record);
  };
  const record = await ours.record(["a"], null, []);
  assert.deepEqual(record.members, ["a"]);
  assert.deepEqual(store.held.record?.members, ["a"]);
});

test("a swap without an answer is looked for, and its record is in force once", async () => {
  const { store, arbiter } = await world();
  const ours = arbiter();
  await ours.claim();
  store.fails = "after the next swap";
  const record = await ours.record(["a"], null, []);
  assert.deepEqual(store.held.record, record);
  assert.deepEqual(record.members, ["a"]);
});

test("a record waits for the store as long as it may, and a successor's claim for as long as it takes", async () => {
  const { store, arbiter, clock } = await world();
  const ours = arbiter();
  await ours.claim();
  store.fails = "always";
  await assert.rejects(ours.record(["a"], null, []), QuorumLostError);
  assert.ok(clock.nowMs >= 5_000);
  const successor = arbiter({ resumed: true }).claim();
  while (clock.nowMs < 60_000) await new Promise((resolve) => setImmediate(resolve));
  store.fails = "never";
  assert.deepEqual((await successor).members, ["a", "b"]);
});

test("members that earlier processes cannot be shut out of leave before anything is served; never all of them", async () => {
  const { arbiter } = await world();
  const ours = arbiter();
  await ours.claim();
  assert.deepEqual((await ours.leave(["b"])).members, ["a"]);
  await assert.rejects(ours.leave(["a"]), QuorumLostError);
});

test("an unmount in order is on record, so that the next claim need not compare", async () => {
  const { arbiter } = await world();
  const ours = arbiter();
  await ours.claim();
  await ours.release();
  const next = arbiter({ mount: "m2" });
  await next.claim();
  assert.equal(next.claimed.clean, true);
  const after = arbiter({ mount: "m3" });
  await after.claim();
  assert.equal(after.claimed.clean, false);
});
