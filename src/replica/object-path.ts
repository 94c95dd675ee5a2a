import type { ByteString } from "../util/byte-string.ts";
import type { TreeObject } from "./replica.ts";

/** An object's path from the root, "" for the root itself. */
export function pathOf(object: TreeObject): ByteString {
  let path = object.name;
  for (let above = object.parent; above !== null && above.parent !== null; above = above.parent) {
    path = `${above.name}/${path}`;
  }
  return path;
}
