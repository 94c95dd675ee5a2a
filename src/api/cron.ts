/** Cron schedules of five fields, in UTC: minute hour day-of-month month day-of-week. */

interface Field {
  readonly name: string;
  readonly min: number;
  readonly max: number;
  readonly words?: readonly string[];
}

const fields: readonly Field[] = [
  { name: "minute", min: 0, max: 59 },
  { name: "hour", min: 0, max: 23 },
  { name: "day of month", min: 1, max: 31 },
  {
    name: "month",
    min: 1,
    max: 12,
    words: ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
  },
  // 7 is Sunday as well.
  { name: "day of week", min: 0, max: 7, words: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

export interface Schedule {
  readonly allowed: readonly ReadonlySet<number>[];
  /** With both days given, either is enough, as cron has it. */
  readonly eitherDay: boolean;
}

/** Throws a RangeError that names the field. */
export function parseSchedule(text: string): Schedule {
  const parts = text.trim().split(/\s+/);
  if (parts.length !== fields.length)
    throw new RangeError(`"${text}" is not a schedule of five fields: minute hour day-of-month month day-of-week`);
  const allowed = fields.map((field, index) => parseField(field, parts[index] ?? ""));
  if (allowed[4]?.has(7)) allowed[4].add(0);
  return { allowed, eitherDay: !parts[2]?.startsWith("*") && !parts[4]?.startsWith("*") };
}

function parseField(field: Field, text: string): Set<number> {
  const values = new Set<number>();
  for (const part of text.split(",")) {
    const [range = "", step = "1"] = part.split("/");
    const [from, to] = range === "*" ? [field.min, field.max] : bounds(field, range, part.includes("/"));
    const by = Number(step);
    if (!Number.isInteger(by) || by < 1 || from < field.min || to > field.max || from > to)
      throw new RangeError(`"${part}" is no ${field.name} (${field.min} to ${field.max})`);
    for (let value = from; value <= to; value += by) values.add(value);
  }
  return values;
}

function bounds(field: Field, range: string, stepped: boolean): readonly [number, number] {
  const number = (word: string): number => {
    const named = field.words?.indexOf(word.toLowerCase()) ?? -1;
    return named >= 0 ? named : /^\d+$/.test(word) ? Number(word) : Number.NaN;
  };
  const [first = "", last] = range.split("-");
  const from = number(first);
  const to = last === undefined ? (stepped ? field.max : from) : number(last);
  // NaN fails every comparison: make it a bound that is refused.
  return [Number.isNaN(from) ? -1 : from, Number.isNaN(to) ? -1 : to];
}

/** The first time after this one; null if there is none within four years (30 February). */
export function nextTime({ allowed, eitherDay }: Schedule, afterMs: number): number | null {
  const [minutes, hours, days, months, weekdays] = allowed;
  const at = new Date(afterMs);
  at.setUTCSeconds(0, 0);
  at.setUTCMinutes(at.getUTCMinutes() + 1);
  const endMs = afterMs + 4 * 366 * 86_400_000;
  while (at.getTime() <= endMs) {
    const dayOfMonth = days?.has(at.getUTCDate()) ?? false;
    const dayOfWeek = weekdays?.has(at.getUTCDay()) ?? false;
    if (!months?.has(at.getUTCMonth() + 1)) {
      at.setUTCMonth(at.getUTCMonth() + 1, 1);
      at.setUTCHours(0, 0);
    } else if (!(eitherDay ? dayOfMonth || dayOfWeek : dayOfMonth && dayOfWeek)) {
      at.setUTCDate(at.getUTCDate() + 1);
      at.setUTCHours(0, 0);
    } else if (!hours?.has(at.getUTCHours())) at.setUTCHours(at.getUTCHours() + 1, 0);
    else if (!minutes?.has(at.getUTCMinutes())) at.setUTCMinutes(at.getUTCMinutes() + 1);
    else return at.getTime();
  }
  return null;
}
