/**
 * Every interleaving of small volumes over the code that decides on membership in production. With
 * CHIRON_EXPLORE=full in the environment also the larger worlds, which take some minutes and 3 GB of memory.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { explore } from "./explore.ts";
import { type Rule, World, type WorldOptions } from "./world.ts";

const full = process.env["CHIRON_EXPLORE"] === "full";
const timeout = full ? 3_600_000 : 600_000;

interface Bounds {
  readonly minInSync?: number;
  readonly writes: number;
  readonly terms: number;
  readonly seqs: number;
}

function world(voters: string, bounds: Bounds, without: Rule | null = null): WorldOptions {
  const witness = voters.endsWith("w");
  return { replicas: voters.length - (witness ? 1 : 0), witness, minInSync: 1, without, ...bounds };
}

const honest: readonly (readonly [voters: string, bounds: Bounds])[] = [
  ["ab", { writes: 2, terms: 3, seqs: 3 }],
  ["ab", { writes: 2, terms: 3, seqs: 3, minInSync: 2 }],
  ["abw", { writes: 2, terms: 2, seqs: 3 }],
  ["abw", { writes: 2, terms: 2, seqs: 3, minInSync: 2 }],
  ["abc", { writes: 2, terms: 2, seqs: 2 }],
  ["abc", { writes: 2, terms: 2, seqs: 2, minInSync: 2 }],
];
const larger: typeof honest = [
  ["abw", { writes: 2, terms: 3, seqs: 2 }],
  ["abc", { writes: 2, terms: 3, seqs: 1 }],
  ["abc", { writes: 2, terms: 3, seqs: 2, minInSync: 2 }],
];

for (const [voters, bounds] of full ? [...honest, ...larger] : honest) {
  const { writes, terms, seqs, minInSync = 1 } = bounds;
  const limits = `${writes} writes, ${terms} terms, ${seqs} changes in each, at least ${minInSync} in sync`;
  test(`no lie on voters ${voters}: ${limits}`, { timeout }, (t) => {
    const { states, lie } = explore(new World(world(voters, bounds)));
    t.diagnostic(`${states} states`);
    assert.equal(lie, null, lie === null ? "" : `${lie.what}:\n  ${lie.way.join("\n  ")}`);
  });
}

const rules: readonly (readonly [rule: Rule, voters: string, bounds: Bounds])[] = [
  ["epoch", "abw", { writes: 2, terms: 3, seqs: 2 }],
  ["claim", "abw", { writes: 2, terms: 3, seqs: 2 }],
  ["newcomer", "ab", { writes: 2, terms: 3, seqs: 2 }],
  ["late", "ab", { writes: 2, terms: 3, seqs: 2 }],
  ["expel-first", "ab", { writes: 2, terms: 3, seqs: 2 }],
  ["alike", "ab", { writes: 2, terms: 3, seqs: 2 }],
];
const longer: typeof rules = [["immutable", "abw", { writes: 1, terms: 3, seqs: 2 }]];

for (const [rule, voters, bounds] of full ? [...rules, ...longer] : rules) {
  test(`without the rule "${rule}" there is a lie, and it is found`, { timeout }, (t) => {
    const { states, lie } = explore(new World(world(voters, bounds, rule)));
    t.diagnostic(`${states} states, ${lie?.way.length} steps to: ${lie?.what}`);
    assert.notEqual(lie, null);
  });
}
