import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { nextTime, parseSchedule } from "./cron.ts";

const next = (schedule: string, after: string): string | null => {
  const ms = nextTime(parseSchedule(schedule), Date.parse(after));
  return ms === null ? null : new Date(ms).toISOString().slice(0, 16);
};

describe("nextTime()", () => {
  for (const [schedule, after, expected] of [
    ["0 3 * * 0", "2026-01-01T00:00:00Z", "2026-01-04T03:00"],
    ["0 3 * * 7", "2026-01-04T03:00:00Z", "2026-01-11T03:00"],
    ["*/15 * * * *", "2026-01-01T00:14:59Z", "2026-01-01T00:15"],
    ["5-10/2,50 22 * * *", "2026-01-01T22:09:30Z", "2026-01-01T22:50"],
    ["30/10 * * * *", "2026-01-01T00:41:00Z", "2026-01-01T00:50"],
    ["0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00"],
    ["0 0 29 feb *", "2026-01-01T00:00:00Z", "2028-02-29T00:00"],
    ["0 12 * JAN-MAR Mon-Fri", "2026-03-31T12:00:00Z", "2027-01-01T12:00"],
    ["0 0 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T00:00"],
    ["59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59"],
  ] as const)
    it(`finds when "${schedule}" is next`, () => assert.equal(next(schedule, after), expected));

  it("finds nothing on 30 February", () => assert.equal(next("0 0 30 2 *", "2026-01-01T00:00:00Z"), null));

  for (const [schedule, message] of [
    ["0 3 * *", /is not a schedule of five fields/],
    ["60 * * * *", /"60" is no minute \(0 to 59\)/],
    ["* * 0 * *", /"0" is no day of month/],
    ["* * * foo *", /"foo" is no month/],
    ["5-1 * * * *", /"5-1" is no minute/],
    ["*/0 * * * *", /"\*\/0" is no minute/],
  ] as const)
    it(`refuses "${schedule}"`, () => assert.throws(() => parseSchedule(schedule), message));
});
