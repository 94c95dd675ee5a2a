/**
 * A directory below a backend's root, made or removed through the contract alone, so for every kind of replica: a
 * volume that Kubernetes provisions has one of its own in each place. Neither follows a link nor leaves the root, and
 * each may be repeated after it was interrupted.
 */
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, EISDIR, ELOOP, ENOENT, ENOTDIR, EPERM } from "../util/errno.ts";
import { S_IFDIR, S_IFMT } from "../util/file-attr.ts";
import type { DirectoryEntries, Replica, TreeObject } from "./replica.ts";

const root: TreeObject = { parent: null, name: "" };
const owner = { uid: 0, gid: 0 };

/** Answers 0, or a negative errno. Directories that are there already stay as they are. */
export async function makeSubtree(replica: Replica, path: readonly ByteString[], mode: number): Promise<number> {
  let directory = root;
  for (const name of path) {
    const made = await replica.mkdir(directory, name, mode, owner, null);
    if (made < 0 && made !== -EEXIST) return made;
    directory = { parent: directory, name };
  }
  return Math.min(0, await replica.fsyncdir(root));
}

/** Answers 0, also if nothing is there, or a negative errno. Stops where `signal` says so, with what is left intact. */
export async function removeSubtree(
  replica: Replica,
  path: readonly ByteString[],
  signal: AbortSignal,
): Promise<number> {
  let directory: TreeObject = root;
  for (const name of path.slice(0, -1)) directory = { parent: directory, name };
  const last = path.at(-1);
  if (last === undefined) return -EPERM; // the root of a backend is never removed
  // Depth first, without recursion: a tree may be deeper than the stack.
  const stack: { readonly object: TreeObject; readonly parent: TreeObject; entered: boolean }[] = [
    { object: { parent: directory, name: last }, parent: directory, entered: false },
  ];
  for (;;) {
    const top = stack.at(-1);
    if (top === undefined) return 0;
    signal.throwIfAborted();
    if (!top.entered) {
      top.entered = true;
      const entries: DirectoryEntries = { names: [], types: [], inos: [] };
      const listed = await replica.readdir(top.object, entries);
      if (listed === -ENOENT || listed === -ENOTDIR || listed === -ELOOP) {
        replica.forget(top.object);
        stack.pop();
        if (listed !== -ENOENT) {
          const gone = await replica.unlink(top.parent, top.object.name);
          if (gone < 0 && gone !== -ENOENT) return gone;
        }
        continue;
      }
      if (listed < 0) return listed;
      for (const [index, name] of entries.names.entries()) {
        const type = (entries.types[index] ?? 0) & S_IFMT;
        if (type !== S_IFDIR) {
          const gone = await replica.unlink(top.object, name);
          if (gone === 0 || gone === -ENOENT) continue;
          if (gone !== -EISDIR && gone !== -EPERM) return gone;
        }
        stack.push({ object: { parent: top.object, name }, parent: top.object, entered: false });
      }
      continue;
    }
    const gone = await replica.rmdir(top.parent, top.object.name);
    replica.forget(top.object);
    if (gone < 0 && gone !== -ENOENT) return gone;
    stack.pop();
  }
}
