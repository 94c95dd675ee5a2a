/** Chance that can be repeated: every draw follows from the seed, which a failing test prints. */

/** Draws a whole number from 0 to `alternatives - 1`. */
export type Choose = (alternatives: number) => number;

/** mulberry32: small, fast, and good enough to draw histories with. */
export function seeded(seed: number): Choose {
  let state = seed >>> 0;
  return (alternatives) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * alternatives);
  };
}

/** Always the first alternative, and always the last one. */
export const first: Choose = () => 0;
export const last: Choose = (alternatives) => alternatives - 1;

/**
 * Runs `visit` once for every sequence of choices that it can make, at most `limit` times: an odometer over the
 * alternatives. Answers how often it ran, and whether that was all.
 */
export function everyChoice(
  visit: (choose: Choose) => void,
  limit = Number.POSITIVE_INFINITY,
): { runs: number; complete: boolean } {
  const path: { at: number; of: number }[] = [];
  for (let runs = 1; ; runs++) {
    let depth = 0;
    visit((alternatives) => {
      const step = path[depth];
      if (step === undefined) path.push({ at: 0, of: alternatives });
      else if (step.of !== alternatives) throw new Error("The choices are not the same when they are made again");
      return path[depth++]?.at ?? 0;
    });
    let end = path.at(-1);
    while (end !== undefined && end.at === end.of - 1) {
      path.pop();
      end = path.at(-1);
    }
    if (end === undefined) return { runs, complete: true };
    if (runs >= limit) return { runs, complete: false };
    end.at++;
  }
}
