/** Generations of intents that no checkpoint has cleared: what they hold, who has them, and when they began. */
import type { Replica, TimeSpec } from "../replica/replica.ts";
import { FileAttr } from "../util/file-attr.ts";
import { type ControlPlace, generationPlace } from "./intent-places.ts";
import { isBefore, type ReadIntents } from "./intent-read.ts";
import type { IntentRecord } from "./intent-record.ts";

export interface Generation {
  readonly number: number;
  readonly place: ControlPlace;
  readonly records: IntentRecord[];
  /** Replicas that have it. */
  readonly members: Set<number>;
  /** Holds records that have not been flushed. */
  unflushed: boolean;
}

export function newGeneration(number: number, first: IntentRecord | null): Generation {
  const records = first === null ? [] : [first];
  return { number, place: generationPlace(number), records, members: new Set(), unflushed: true };
}

/** What an earlier process has left on the members, as generations in their order. */
export function adoptGenerations(read: ReadonlyMap<number, ReadIntents>): Generation[] {
  const generations = new Map<number, Generation>();
  for (const [index, there] of read) {
    const damaged: IntentRecord[] =
      there.damage === null ? [] : [{ kind: "tree", path: [], generation: there.generations[0] ?? 1, seq: 0 }];
    for (const number of there.generations.length === 0 && damaged.length > 0 ? [1] : there.generations) {
      let generation = generations.get(number);
      if (generation === undefined) {
        generation = newGeneration(number, null);
        generations.set(number, generation);
      }
      generation.members.add(index);
      const known = new Set(generation.records.map((record) => record.seq));
      for (const record of [...damaged, ...there.records]) {
        if (record.generation === number && !known.has(record.seq)) generation.records.push(record);
      }
    }
  }
  for (const { records } of generations.values()) records.sort((a, b) => a.seq - b.seq);
  return [...generations.values()].sort((a, b) => a.number - b.number);
}

const always: TimeSpec = { seconds: 0, nsec: 0 };

/**
 * When, by a replica's own time, the first of these was made. Who has joined since has the earlier changes with the times
 * of its resync: there everything counts as changed since. null if there are none.
 */
export async function begunAt(
  replica: Replica,
  index: number,
  generations: readonly Generation[],
): Promise<TimeSpec | null> {
  const [oldest] = generations;
  if (oldest === undefined) return null;
  if (!oldest.members.has(index)) return always;
  let earliest: TimeSpec | null = null;
  const attr = new FileAttr();
  for (const { place, records, members } of generations) {
    const [first] = records;
    if (first === undefined || !members.has(index)) continue;
    const object = { parent: place, name: String(first.seq) };
    const result = await replica.getattr(object, attr);
    replica.forget(object);
    const ctime = { seconds: attr.ctime, nsec: attr.ctimeNsec };
    if (result < 0) return always;
    if (earliest === null || isBefore(ctime, earliest)) earliest = ctime;
  }
  return earliest ?? always;
}
