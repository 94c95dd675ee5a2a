/** How the holder starts a dead volume process again: at once, but not for ever as fast as it can. Pure. */

const WINDOW_MS = 60_000;
const DEATHS_TO_REPORT = 5;
const MAX_DELAY_MS = 30_000;

export interface RestartPlan {
  /** Deaths within the last minute, this one included: to be passed in at the next. */
  readonly deathsMs: readonly number[];
  readonly delayMs: number;
  /** This death makes it five in a minute: somebody has to look at it. */
  readonly report: boolean;
}

/** `deathsMs`: times of earlier deaths, oldest first. */
export function planRestart(deathsMs: readonly number[], nowMs: number): RestartPlan {
  const recent = [...deathsMs.filter((at) => nowMs - at < WINDOW_MS), nowMs];
  const excess = recent.length - DEATHS_TO_REPORT;
  return {
    deathsMs: recent,
    delayMs: excess < 0 ? 0 : Math.min(MAX_DELAY_MS, 1000 * 2 ** excess),
    report: excess === 0,
  };
}
