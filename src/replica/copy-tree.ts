/**
 * Copies a tree that nobody changes meanwhile, from one replica to another or within one. It may be stopped anywhere and
 * begun again: what is complete (it has the source's size and modification time) is kept, anything else is made anew.
 */
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT } from "../util/errno.ts";
import { FileAttr, isDirectory, S_IFDIR, S_IFMT } from "../util/file-attr.ts";
import { type CopyMethod, type CopyOptions, copyAttributes, copyObject, must, type Spot } from "./copy-object.ts";
import type { DirectoryEntries, TreeObject } from "./replica.ts";

export interface CopyTreeOptions extends CopyOptions {
  /** Names at the top that are not part of the tree. */
  readonly except?: readonly ByteString[];
}

export interface CopiedTree {
  readonly files: number;
  readonly bytes: number;
  /** null if there was no content to be copied. */
  readonly method: CopyMethod | null;
}

/** So many objects of one directory are under way at a time: each waits for its server many times. */
const width = 16;

interface Level {
  readonly from: TreeObject;
  readonly to: TreeObject;
  readonly attr: FileAttr;
  readonly directories: { readonly name: ByteString; readonly attr: FileAttr }[];
  listed: boolean;
}

/** `to` is a directory that is there. Throws a `ReplicaError`. */
export async function copyTree(from: Spot, to: Spot, options: CopyTreeOptions): Promise<CopiedTree> {
  /** Files with several names: where the first of them was made. */
  const linked = new Map<number, { readonly object: TreeObject; readonly made: Promise<void> }>();
  const total = { files: 0, bytes: 0, method: null as CopyMethod | null };
  const top = new FileAttr();
  await must(from, "look at", from.replica.getattr(from.object, top));
  const stack: Level[] = [{ from: from.object, to: to.object, attr: top, directories: [], listed: false }];
  for (let level = stack.at(-1); level !== undefined; level = stack.at(-1)) {
    options.signal.throwIfAborted();
    const source: Spot = { replica: from.replica, object: level.from };
    const target: Spot = { replica: to.replica, object: level.to };
    if (!level.listed) {
      level.listed = true;
      await copyEntries(source, target, level, stack.length === 1 ? (options.except ?? []) : []);
    }
    const next = level.directories.pop();
    if (next !== undefined) {
      const object = { parent: level.to, name: next.name };
      if ((await to.replica.lookup(level.to, next.name, null)) === -ENOENT)
        await copyObject(source, next.attr, { replica: to.replica, object }, options);
      stack.push({
        from: { parent: level.from, name: next.name },
        to: object,
        attr: next.attr,
        directories: [],
        listed: false,
      });
      continue;
    }
    await copyAttributes(source, level.attr, target);
    from.replica.forget(level.from);
    to.replica.forget(level.to);
    stack.pop();
  }
  return total;

  async function copyEntries(source: Spot, target: Spot, level: Level, except: readonly ByteString[]): Promise<void> {
    const entries: DirectoryEntries = { names: [], types: [], inos: [] };
    await must(source, "list", source.replica.readdir(source.object, entries));
    const names = entries.names.filter((name) => !except.includes(name));
    let next = 0;
    const work = async (): Promise<void> => {
      for (let name = names[next++]; name !== undefined; name = names[next++]) {
        const attr = new FileAttr();
        await must(source, "look into", source.replica.lookup(source.object, name, attr));
        if (isDirectory(attr.mode)) level.directories.push({ name, attr });
        else await copyEntry(source, target, name, attr);
      }
    };
    await Promise.all(Array.from({ length: Math.min(width, names.length) }, work));
  }

  async function copyEntry(source: Spot, target: Spot, name: ByteString, attr: FileAttr): Promise<void> {
    const object = { parent: target.object, name };
    const made: Spot = { replica: target.replica, object };
    total.files += 1;
    const there = new FileAttr();
    const found = await target.replica.lookup(target.object, name, there);
    if (found !== -ENOENT) await must(made, "look for", found);
    if (found >= 0) {
      if ((there.mode & S_IFMT) === S_IFDIR) throw new Error(`"${name}" is a directory where a file is to be made`);
      if (attr.nlink <= 1 && isComplete(there, attr)) return;
      await must(made, "replace", target.replica.unlink(target.object, name));
    }
    const first = attr.nlink > 1 ? linked.get(attr.ino) : undefined; // no wait from here until it is there
    if (first !== undefined) {
      await first.made;
      await must(made, "link", target.replica.link(first.object, target.object, name, null));
      return;
    }
    const making = copyContents(source, target, name, attr, object);
    if (attr.nlink > 1) linked.set(attr.ino, { object, made: making });
    await making;
  }

  async function copyContents(
    source: Spot,
    target: Spot,
    name: ByteString,
    attr: FileAttr,
    object: TreeObject,
  ): Promise<void> {
    const made: Spot = { replica: target.replica, object };
    const from = { replica: source.replica, object: { parent: source.object, name } };
    const method = await copyObject(from, attr, made, options);
    from.replica.forget(from.object);
    if (attr.nlink <= 1) target.replica.forget(object);
    if (method === null || attr.size === 0) return;
    total.bytes += attr.size;
    total.method = method === "copy" ? "copy" : (total.method ?? method);
  }
}

function isComplete(there: FileAttr, wanted: FileAttr): boolean {
  const sameKind = (there.mode & S_IFMT) === (wanted.mode & S_IFMT);
  return sameKind && there.size === wanted.size && there.mtime === wanted.mtime && there.mtimeNsec === wanted.mtimeNsec;
}
