/** A dirty set as text, to be kept where a later process finds it. What is read back is not trusted. */
import type { ByteString } from "../util/byte-string.ts";
import type { DirtyNode } from "./dirty-node.ts";
import { DirtyRanges } from "./dirty-ranges.ts";
import { DirtySet } from "./dirty-set.ts";

type SavedNode = [
  depth: number,
  name: ByteString,
  flags: number,
  ranges: [number, number | null][],
  cursor: ByteString | null,
  origin: ByteString[] | null,
];

export function saveDirtySet(set: DirtySet): string {
  const nodes: SavedNode[] = [];
  for (const { node, depth } of set.walk()) {
    const ranges = (node.ranges?.list() ?? []).map(([start, end]): [number, number | null] => [
      start,
      Number.isFinite(end) ? end : null,
    ]);
    nodes.push([depth, node.name, node.flags, ranges, node.cursor, node.origin?.path() ?? null]);
  }
  return JSON.stringify({ version: 1, nodes, suspects: [...set.suspects] });
}

/** null if the text is not what `saveDirtySet` wrote: the whole tree must be taken as dirty then. */
export function loadDirtySet(text: string, options: { readonly maxNodes?: number } = {}): DirtySet | null {
  try {
    const saved = JSON.parse(text) as { version?: unknown; nodes?: unknown; suspects?: unknown };
    if (saved.version !== 1 || !Array.isArray(saved.nodes) || !Array.isArray(saved.suspects)) return null;
    const set = new DirtySet(options);
    for (const [ino, names] of saved.suspects as [number, number][]) set.suspects.set(ino, names);
    const above: DirtyNode[] = [];
    for (const [depth, name, flags, ranges, cursor, origin] of saved.nodes as SavedNode[]) {
      if (!Number.isInteger(depth) || depth < 0 || depth > above.length || !Number.isInteger(flags)) return null;
      if (typeof name !== "string" || (cursor !== null && typeof cursor !== "string")) return null;
      const node = depth === 0 ? set.root : set.found(above[depth - 1] as DirtyNode, name, 0);
      above.length = depth;
      above.push(node);
      node.flags = flags;
      // A walk's listing is gone; what it had done stays done.
      node.cursor = cursor;
      for (const [start, end] of ranges) {
        node.ranges ??= new DirtyRanges();
        node.ranges.add(start, end ?? Number.POSITIVE_INFINITY);
      }
      if (origin === null) continue;
      let place = set.target;
      for (const part of origin) place = place.child(part);
      set.setOrigin(node, place);
    }
    return set;
  } catch {
    return null;
  }
}
