/** Paths through renames that were recorded as intents. */
import type { IntentRecord } from "./intent-record.ts";
import type { Path } from "./node-path.ts";

export type RenameRecord = IntentRecord & { readonly kind: "rename" };

export function renamesOf(records: readonly IntentRecord[]): RenameRecord[] {
  return records.filter((record): record is RenameRecord => record.kind === "rename");
}

/** Without the renames that are known not to have happened. `by`: what says so; anybody's records do. */
export function withoutFailed<R extends IntentRecord>(records: readonly R[], by: readonly IntentRecord[]): R[] {
  const failed = new Set(by.flatMap((record) => (record.kind === "failed" ? record.of : [])));
  return records.filter((record) => !(record.kind === "rename" && failed.has(record.seq)));
}

/** Where a path leads after these renames. */
export function mapPath(path: Path, renames: readonly RenameRecord[]): Path {
  let at = path;
  for (const { from, to, exchange } of renames) {
    if (isBelow(at, from)) at = [...to, ...at.slice(from.length)];
    else if (exchange && isBelow(at, to)) at = [...from, ...at.slice(to.length)];
  }
  return at;
}

/** Where it was before them. */
export function unmapPath(path: Path, renames: readonly RenameRecord[]): Path {
  const back = renames.map((record): RenameRecord => ({ ...record, from: record.to, to: record.from }));
  return mapPath(path, back.reverse());
}

function isBelow(path: Path, directory: Path): boolean {
  return path.length >= directory.length && directory.every((name, i) => path[i] === name);
}
