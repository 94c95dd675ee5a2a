/** Turns intents into marks: where a replica may differ that took changes up to some unknown point of them. */
import type { DirtySet } from "./dirty-set.ts";
import type { IntentRecord } from "./intent-record.ts";

/**
 * `isAligned`: the replica is known to have carried out each of the directories' renames. Otherwise it is not known
 * which directory has which name there, and everything in them is looked at.
 */
export function markIntents(set: DirtySet, records: readonly IntentRecord[], isAligned = false): void {
  for (const record of records) {
    switch (record.kind) {
      case "entries":
        set.scan(record.path);
        break;
      case "attributes":
      case "data":
        set.data(record.path, 0, Number.POSITIVE_INFINITY);
        break;
      case "tree":
        set.tree(record.path, true);
        break;
      case "rename": {
        const [from, to] = [record.from.slice(0, -1), record.to.slice(0, -1)];
        const [fromName, toName] = [record.from.at(-1) ?? "", record.to.at(-1) ?? ""];
        set.scan(from);
        set.scan(to);
        if (!isAligned) {
          set.rename(from, fromName, to, toName, record.exchange);
          break;
        }
        set.follow(from, fromName, to, toName, record.exchange);
        set.scan(record.to);
        if (record.exchange) set.scan(record.from);
        break;
      }
      default:
        break;
    }
  }
}
