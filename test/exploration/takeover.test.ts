/**
 * Every interleaving of two nodes that take a volume from each other, over the code that decides in production. With
 * CHIRON_EXPLORE=full in the environment also a larger world.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { explore } from "./explore.ts";
import { type TakeoverOptions, type TakeoverRule, TakeoverWorld } from "./takeover-world.ts";

const full = process.env["CHIRON_EXPLORE"] === "full";
const timeout = full ? 3_600_000 : 600_000;
type Bounds = Omit<TakeoverOptions, "without">;

const honest: readonly Bounds[] = [
  { writes: 1, terms: 3, moves: 2 },
  { writes: 2, terms: 2, moves: 2 },
];
const larger: readonly Bounds[] = [{ writes: 2, terms: 3, moves: 2 }];

for (const bounds of full ? [...honest, ...larger] : honest) {
  const { writes, terms, moves } = bounds;
  test(`no lie when nodes take over: ${writes} writes, ${moves} moves, ${terms} terms`, { timeout }, (t) => {
    const { states, lie } = explore(new TakeoverWorld({ ...bounds, without: null }));
    t.diagnostic(`${states} states`);
    assert.equal(lie, null, lie === null ? "" : `${lie.what}:\n  ${lie.way.join("\n  ")}`);
  });
}

const rules: readonly (readonly [rule: TakeoverRule, bounds: Bounds])[] = [
  ["ask-after", { writes: 2, terms: 3, moves: 2 }],
  ["ask-to-renew", { writes: 2, terms: 3, moves: 2 }],
  ["fence", { writes: 2, terms: 3, moves: 2 }],
  ["unreachable-leaves", { writes: 2, terms: 3, moves: 2 }],
  ["expel-first", { writes: 2, terms: 3, moves: 2 }],
  ["alike", { writes: 2, terms: 3, moves: 2 }],
];

for (const [rule, bounds] of rules) {
  test(`without the rule "${rule}" there is a lie in a take-over, and it is found`, { timeout }, (t) => {
    const { states, lie } = explore(new TakeoverWorld({ ...bounds, without: rule }));
    t.diagnostic(`${states} states, ${lie?.way.length} steps to: ${lie?.what}`);
    assert.notEqual(lie, null);
  });
}
