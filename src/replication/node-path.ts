/** The way from the root to a node, as names. */
import type { TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import type { TreeNode } from "./tree.ts";

export type Path = readonly ByteString[];

export function pathOf(object: TreeObject): ByteString[] {
  const path: ByteString[] = [];
  for (let at = object; at.parent !== null; at = at.parent) path.push(at.name);
  return path.reverse();
}

/** True when the node or a directory above it has no name any more. */
export function hasNoPlace(node: TreeNode): boolean {
  for (let at: TreeNode | null = node; at !== null; at = at.parent) if (at.detached) return true;
  return false;
}
