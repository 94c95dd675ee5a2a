/** The clock that file systems stamp their times with (the coarse one), so that our times compare with theirs. */
import { declare, sys } from "./libc.ts";

const callClockGettime = declare("int clock_gettime(int clock, void *time)");
const CLOCK_REALTIME_COARSE = 5;
const time = new BigInt64Array(2);

export function fileSystemTime(): { readonly seconds: number; readonly nsec: number } {
  sys(callClockGettime(CLOCK_REALTIME_COARSE, time));
  return { seconds: Number(time[0]), nsec: Number(time[1]) };
}
