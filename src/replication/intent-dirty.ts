/** Turns intents into marks: what a replica may lack that took changes up to some unknown point of them. */
import type { DirtySet } from "./dirty-set.ts";
import type { IntentRecord } from "./intent-record.ts";

export function markIntents(set: DirtySet, records: readonly IntentRecord[]): void {
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
        // Where the replica has the directory is not known, so its marks move and everything in it is looked at.
        const [from, to] = [record.from.slice(0, -1), record.to.slice(0, -1)];
        const [fromName, toName] = [record.from.at(-1) ?? "", record.to.at(-1) ?? ""];
        set.scan(from);
        set.scan(to);
        set.rename(from, fromName, to, toName, record.exchange);
        break;
      }
      default:
        break;
    }
  }
}
