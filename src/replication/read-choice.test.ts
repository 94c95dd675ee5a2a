import assert from "node:assert/strict";
import { test } from "node:test";
import type { ReadPolicy } from "./model.ts";
import { ReadChoice } from "./read-choice.ts";

const choice = (policy: ReadPolicy, ...replicas: (readonly [slow: boolean, distance: number])[]): ReadChoice =>
  new ReadChoice({ policy, replicas: replicas.map(([slow, distance]) => ({ slow, distance })) });
const fast = [false, 0] as const;
const slow = [true, 0] as const;
const files = (count: number) => Array.from({ length: count }, () => ({ reader: -1 }));

test("RoundRobin hands readers out in turn, and a file keeps its own", () => {
  const chosen = choice("RoundRobin", fast, fast, fast);
  const inSync = [0, 1, 2];
  const opened = files(6);
  const first = opened.map((file) => chosen.choose(file, inSync, 0));
  assert.deepEqual(first, [0, 1, 2, 0, 1, 2]);
  assert.deepEqual(
    opened.map((file) => chosen.choose(file, inSync, 0)),
    first,
  );
});

test("a file whose reader has left reads elsewhere", () => {
  const chosen = choice("RoundRobin", fast, fast);
  const file = { reader: 1 };
  assert.equal(chosen.choose(file, [0, 1], 0), 1);
  assert.equal(chosen.choose(file, [0], 0), 0);
  assert.equal(file.reader, 0);
});

test("a slow replica is read only when all others are out, and no longer once one is back", () => {
  const chosen = choice("RoundRobin", fast, slow);
  const opened = files(4);
  assert.deepEqual(new Set(opened.map((file) => chosen.choose(file, [0, 1], 0))), new Set([0]));
  assert.deepEqual(new Set(opened.map((file) => chosen.choose(file, [1], 0))), new Set([1]));
  assert.deepEqual(new Set(opened.map((file) => chosen.choose(file, [0, 1], 0))), new Set([0]));
});

test("a read that failed goes to each other replica, slow ones last, then to nobody", () => {
  const chosen = choice("Nearest", fast, [false, 2], slow);
  const file = { reader: -1 };
  const inSync = [0, 1, 2];
  assert.equal(chosen.choose(file, inSync, 0), 0);
  assert.equal(chosen.choose(file, inSync, 0b001), 1);
  assert.equal(chosen.choose(file, inSync, 0b011), 2);
  assert.equal(chosen.choose(file, inSync, 0b111), -1);
});

test("Nearest reads the nearest replicas alone", () => {
  const chosen = choice("Nearest", [false, 1], fast, fast);
  assert.deepEqual(new Set(files(8).map((file) => chosen.choose(file, [0, 1, 2], 0))), new Set([1, 2]));
});

test("LowestLatency settles on the replica that answers fastest, and follows when that changes", () => {
  const chosen = choice("LowestLatency", fast, fast);
  const inSync = [0, 1];
  for (let i = 0; i < 100; i++) {
    chosen.observe(0, 1000);
    chosen.observe(1, 100);
  }
  const opened = files(100).map((file) => chosen.choose(file, inSync, 0));
  assert.ok(opened.filter((reader) => reader === 1).length >= 98);
  const file = { reader: 1 };
  for (let i = 0; i < 100; i++) chosen.observe(0, 90);
  assert.equal(chosen.choose(file, inSync, 0), 1, "little is gained: the caches count for more");
  for (let i = 0; i < 100; i++) chosen.observe(0, 10);
  assert.equal(chosen.choose(file, inSync, 0), 0);
});
