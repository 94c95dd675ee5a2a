import assert from "node:assert/strict";
import { test } from "node:test";
import type { Capabilities } from "../replica/replica.ts";
import {
  exchangeMemo,
  loadCertain,
  loadNumbers,
  loadOffered,
  loadTerm,
  saveCertain,
  saveNumbers,
  saveOffered,
  saveTerm,
} from "./state-facts.ts";
import type { StateLog } from "./state-log.ts";

const everything: Capabilities = {
  userXattrs: true,
  rootXattrs: true,
  acls: true,
  hardLinks: true,
  symlinks: true,
  specialFiles: true,
  holes: true,
  fallocate: true,
  renameFlags: true,
  timeGranularityNsec: 1,
  maxNameBytes: 255,
};

/** The header alone. */
function log(): StateLog {
  const facts = new DataView(new ArrayBuffer(192));
  return { facts: () => facts } as unknown as StateLog;
}

test("a successor knows what the volume offered, also of replicas that it does not see", () => {
  const facts = log();
  assert.equal(loadOffered(facts), null);
  saveOffered(facts, [everything]);
  assert.deepEqual(loadOffered(facts), everything);
  const poor = { ...everything, renameFlags: false, acls: false, timeGranularityNsec: 1000, maxNameBytes: 143 };
  saveOffered(facts, [everything, poor]);
  assert.deepEqual(loadOffered(facts), poor);
});

test("facts do not get in each other's way", () => {
  const facts = log();
  saveOffered(facts, [everything]);
  saveTerm(facts, 7);
  saveCertain(facts, [0, 7]);
  const steps = [1, 2, 3, 4, 255, 6, 7, 8];
  saveNumbers(facts, steps);
  const pairs = new Map(steps.map((step, replica) => [replica, [step, step * 2] as const]));
  exchangeMemo(facts, 5n).save(pairs);
  assert.deepEqual([loadTerm(facts), loadCertain(facts), loadOffered(facts)], [7, [0, 7], everything]);
  assert.deepEqual([loadNumbers(facts), exchangeMemo(facts, 5n).load()], [steps, pairs]);
});
