/**
 * Walks breadth first through every state of a world, until it finds a lie or there are no more. Only when there is a
 * lie it walks again, to tell the shortest way there: the ways of millions of states would not fit into memory.
 */
export interface Explorable<S> {
  start(): S;
  /** Everything that may happen next, with a name. */
  steps(state: S): Iterable<readonly [label: string, next: S]>;
  /** Equal for states that are the same. */
  key(state: S): string;
  /** Within the bounds of this exploration. */
  inside(state: S): boolean;
  /** What must never be, or null. */
  lie(state: S): string | null;
}

export interface Exploration {
  readonly states: number;
  /** null, or what was wrong and the shortest way there. */
  readonly lie: { readonly what: string; readonly way: readonly string[] } | null;
}

interface Reached<S> {
  readonly state: S;
  readonly from: Reached<S> | null;
  readonly label: string;
}

export function explore<S>(world: Explorable<S>): Exploration {
  const { states, lie } = walk(world, false);
  return lie === null ? { states, lie: null } : walk(world, true);
}

function walk<S>(world: Explorable<S>, withWays: boolean): Exploration {
  const start = world.start();
  const seen = new Set([world.key(start)]);
  let frontier: Reached<S>[] = [{ state: start, from: null, label: "" }];
  while (frontier.length > 0) {
    const next: Reached<S>[] = [];
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

function wayTo<S>(reached: Reached<S>): string[] {
  const way: string[] = [];
  for (let at: Reached<S> | null = reached; at !== null && at.from !== null; at = at.from) way.push(at.label);
  return way.reverse();
}
