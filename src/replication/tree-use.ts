/**
 * How much space a replica's tree occupies, by a walk in small portions, so that the loop serves others between them.
 * `.chiron` does not count. A file with several names counts once.
 */
import { setImmediate } from "node:timers/promises";
import type { DirectoryEntries, Replica, TreeObject } from "../replica/replica.ts";
import { FileAttr, isDirectory } from "../util/file-attr.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";

const PORTION = 64;
const BLOCK_BYTES = 512;

/** In bytes. What cannot be read is left out. */
export async function treeUse(replica: Replica, options: { readonly signal: AbortSignal }): Promise<number> {
  const { signal } = options;
  const linked = new Set<number>();
  const attr = new FileAttr();
  const root: TreeObject = { parent: null, name: "" };
  const todo: TreeObject[] = [root];
  let blocks = 0;
  let looked = 0;
  for (let directory = todo.pop(); directory !== undefined; directory = todo.pop()) {
    const entries: DirectoryEntries = { names: [], types: [], inos: [] };
    if ((await replica.readdir(directory, entries)) < 0) continue;
    for (const name of entries.names) {
      if (directory === root && name === CONTROL_DIRECTORY) continue;
      if (++looked % PORTION === 0) {
        await setImmediate();
        signal.throwIfAborted();
      }
      const answer = replica.lookup(directory, name, attr);
      if ((typeof answer === "number" ? answer : await answer) < 0) continue;
      if (isDirectory(attr.mode)) todo.push({ parent: directory, name });
      else if (attr.nlink > 1 && linked.has(attr.ino)) continue;
      else if (attr.nlink > 1) linked.add(attr.ino);
      blocks += attr.blocks;
    }
    replica.forget(directory);
  }
  return blocks * BLOCK_BYTES;
}
