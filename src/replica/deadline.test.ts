import assert from "node:assert/strict";
import { test } from "node:test";
import { ETIMEDOUT } from "../util/errno.ts";
import { deliverUnlessAbandoned } from "./abandoned.ts";
import { type Clock, withDeadline } from "./deadline.ts";
import type { Answer, Replica, TreeObject } from "./replica.ts";

class ManualClock implements Clock {
  time = 0;
  timers: { readonly at: number; readonly callback: () => void }[] = [];

  now(): number {
    return this.time;
  }

  after(ms: number, callback: () => void) {
    this.timers.push({ at: this.time + ms, callback });
    return { ref() {}, unref() {} };
  }

  afterPoll(callback: () => void): void {
    callback();
  }

  async advance(ms: number): Promise<void> {
    this.time += ms;
    const due = this.timers.filter(({ at }) => at <= this.time);
    this.timers = this.timers.filter(({ at }) => at > this.time);
    for (const { callback } of due) callback();
    await new Promise(setImmediate);
  }
}

const place: TreeObject = { parent: null, name: "" };

function subject(calls: Partial<Replica>) {
  const clock = new ManualClock();
  return { clock, replica: withDeadline({ name: "a", url: "/a", ...calls } as Replica, 100, clock) };
}

test("an answer at once, and one in time, pass as they are", async () => {
  let finish: (result: number) => void = () => {};
  const answers: Answer[] = [7, new Promise((resolve) => (finish = resolve))];
  const { clock, replica } = subject({ fsync: () => answers.shift() as Answer });
  assert.equal(replica.fsync(1, false), 7);
  assert.equal(clock.timers.length, 0);
  const later = replica.fsync(1, false);
  await clock.advance(99);
  finish(5);
  assert.equal(await later, 5);
  await clock.advance(1000);
  assert.equal(clock.timers.length, 0);
});

test("each call has its own deadline, though one timer serves all", async () => {
  const { clock, replica } = subject({ fsync: () => new Promise<number>(() => {}) });
  const settled: string[] = [];
  void Promise.resolve(replica.fsync(1, false)).then((result) => settled.push(`first ${result}`));
  await clock.advance(60);
  void Promise.resolve(replica.fsync(2, false)).then((result) => settled.push(`second ${result}`));
  await clock.advance(39);
  assert.deepEqual(settled, []);
  await clock.advance(1);
  assert.deepEqual(settled, [`first ${-ETIMEDOUT}`]);
  assert.equal(clock.timers.length, 1);
  await clock.advance(60);
  assert.deepEqual(settled, [`first ${-ETIMEDOUT}`, `second ${-ETIMEDOUT}`]);
});

test("a call that comes too late fills no buffer", async () => {
  let finish: (reply: readonly [number, number]) => void = () => {};
  const into = new Uint8Array(1);
  const { clock, replica } = subject({
    read: (_handle, buffer) =>
      deliverUnlessAbandoned(new Promise<readonly [number, number]>((resolve) => (finish = resolve)), (byte) => {
        buffer[0] = byte;
      }),
  });
  const late = replica.read(1, into, 0);
  await clock.advance(100);
  assert.equal(await late, -ETIMEDOUT);
  finish([1, 65]);
  await clock.advance(1);
  assert.equal(into[0], 0);
  const timely = replica.read(1, into, 0);
  finish([1, 66]);
  assert.equal(await timely, 1);
  assert.equal(into[0], 66);
});

test("a file that is opened too late is closed", async () => {
  let finish: (handle: number) => void = () => {};
  const closed: number[] = [];
  const { clock, replica } = subject({
    open: () => new Promise<number>((resolve) => (finish = resolve)),
    close: (handle) => closed.push(handle) - 1,
  });
  const opening = replica.open(place, "read");
  await clock.advance(100);
  assert.equal(await opening, -ETIMEDOUT);
  finish(42);
  await clock.advance(1);
  assert.deepEqual(closed, [42]);
});

test("what answered while the process stood still is no fault", async () => {
  let finish: (result: number) => void = () => {};
  const { clock, replica } = subject({ fsync: () => new Promise<number>((resolve) => (finish = resolve)) });
  let polled: () => void = () => {};
  clock.afterPoll = (callback) => {
    polled = callback;
  };
  const answer = replica.fsync(1, false);
  await clock.advance(5000);
  finish(0); // the loop polls, and finds that it has ended
  await new Promise(setImmediate);
  polled();
  assert.equal(await answer, 0);
});
