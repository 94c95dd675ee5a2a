/**
 * Walks breadth first through every state of a world, until it finds a lie or there are no more. Only when there is a
 * lie it walks again, to tell the shortest way there: the ways of millions of states would not fit into memory.
 */
import { type State, World, type WorldOptions } from "./world.ts";

export interface Exploration {
  readonly states: number;
  /** null, or what was wrong and the shortest way there. */
  readonly lie: { readonly what: string; readonly way: readonly string[] } | null;
}

interface Reached {
  readonly state: State;
  readonly from: Reached | null;
  readonly label: string;
}

export function explore(options: WorldOptions): Exploration {
  const { states, lie } = walk(options, false);
  return lie === null ? { states, lie: null } : walk(options, true);
}

function walk(options: WorldOptions, withWays: boolean): Exploration {
  const world = new World(options);
  const start = world.start();
  const seen = new Set([world.key(start)]);
  let frontier: Reached[] = [{ state: start, from: null, label: "" }];
  while (frontier.length > 0) {
    const next: Reached[] = [];
    for (const reached of frontier) {
      const what = world.lie(reached.state);
      if (what !== null) return { states: seen.size, lie: { what, way: wayTo(reached) } };
      for (const [label, state] of world.steps(reached.state)) {
        if (!world.inside(state)) continue;
        const key = world.key(state);
        if (seen.has(key)) continue;
        seen.add(key);
        next.push({ state, from: withWays ? reached : null, label: withWays ? label : "" });
      }
    }
    frontier = next;
  }
  return { states: seen.size, lie: null };
}

function wayTo(reached: Reached): string[] {
  const way: string[] = [];
  for (let at: Reached | null = reached; at !== null && at.from !== null; at = at.from) way.push(at.label);
  return way.reverse();
}
