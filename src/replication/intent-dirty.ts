/** Turns intents into marks: where a replica may differ that took changes up to some unknown point of them. */
import type { DirtySet } from "./dirty-set.ts";
import type { IntentRecord } from "./intent-record.ts";
import { type RenameRecord, unmapPath } from "./intent-renames.ts";
import type { Path } from "./node-path.ts";

/** It is not known which directory has which name on the replica: everything in one that was renamed is looked at. */
export function markIntents(set: DirtySet, records: readonly IntentRecord[]): void {
  for (const record of records) {
    if (record.kind !== "rename") markOne(set, record, (path) => path);
    else {
      const [from, to] = [record.from.slice(0, -1), record.to.slice(0, -1)];
      set.scan(from);
      set.scan(to);
      set.rename(from, record.from.at(-1) ?? "", to, record.to.at(-1) ?? "", record.exchange);
      set.tree(record.from, true);
      set.tree(record.to, true);
    }
  }
}

/**
 * Both have carried out just these renames of directories, and none of `undone`, which come after them: so what was
 * recorded under a later name is to be found under the earlier one. Or under that name itself, if a rename never happened
 * at all and nobody has had the time to say so.
 */
export function markAligned(set: DirtySet, records: readonly IntentRecord[], undone: readonly RenameRecord[]): void {
  for (const record of records) {
    const before = undone.filter((rename) => rename.seq < record.seq);
    const now = (path: Path): Path => unmapPath(path, before);
    if (record.kind !== "rename") {
      markOne(set, record, now);
      if (before.length > 0) markOne(set, record, (path) => path);
      continue;
    }
    const [from, to] = [record.from.slice(0, -1), record.to.slice(0, -1)];
    set.scan(now(from));
    set.scan(now(to));
    if (undone.includes(record) || before.length > 0) {
      set.scan(now(record.from));
      if (record.exchange) set.scan(now(record.to));
      continue;
    }
    set.follow(from, record.from.at(-1) ?? "", to, record.to.at(-1) ?? "", record.exchange);
    set.scan(record.to);
    if (record.exchange) set.scan(record.from);
  }
}

function markOne(set: DirtySet, record: IntentRecord, now: (path: Path) => Path): void {
  switch (record.kind) {
    case "entries":
      set.scan(now(record.path));
      break;
    case "attributes":
    case "data":
      set.data(now(record.path), 0, Number.POSITIVE_INFINITY);
      break;
    case "tree":
      set.tree(now(record.path), true);
      break;
    default:
      break;
  }
}
