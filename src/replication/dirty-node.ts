/** One name in the tree of what a replica has missed. */
import type { ByteString } from "../util/byte-string.ts";
import type { DirtyRanges } from "./dirty-ranges.ts";
import type { TargetPlace } from "./target-places.ts";

export const ENTRY = 1;
export const ATTRIBUTES = 2;
export const SCAN = 4;
export const TREE = 8;
/** With TREE: contents are compared even where size and times are equal. */
export const CONTENTS = 16;

export type Origin = TargetPlace<DirtyNode>;

export class DirtyNode {
  parent: DirtyNode | null;
  name: ByteString;
  children: Map<ByteString, DirtyNode> | null = null;
  flags = 0;
  ranges: DirtyRanges | null = null;
  /** How far a walk of this directory has come; null: not begun. */
  cursor: ByteString | null = null;
  /** Where the replica has the object that now has this name. */
  origin: Origin | null = null;

  constructor(parent: DirtyNode | null, name: ByteString) {
    this.parent = parent;
    this.name = name;
  }

  get hasMarks(): boolean {
    return this.flags !== 0 || this.ranges !== null;
  }

  get isWalking(): boolean {
    return (this.flags & (TREE | SCAN)) !== 0 && this.cursor !== null;
  }

  /** True where a walk of this directory has yet to reach the name. */
  awaits(name: ByteString): boolean {
    return (this.flags & (TREE | SCAN)) !== 0 && (this.cursor === null || name > this.cursor);
  }

  path(): ByteString[] {
    const path: ByteString[] = [];
    for (let node: DirtyNode = this; node.parent !== null; node = node.parent) path.push(node.name);
    return path.reverse();
  }
}
