/** Requests on names: lookup, creation, removal, rename. */
import type { Answer, EntryOut, NodeId, Request } from "../fuse/filesystem.ts";
import type { TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT, EOPNOTSUPP, ESTALE } from "../util/errno.ts";
import { FileAttr, isDirectory } from "../util/file-attr.ts";
import { type Op, start } from "../util/op.ts";

import type { VolumeContext } from "./requests.ts";

export class NameRequests {
  readonly #c: VolumeContext;

  constructor(context: VolumeContext) {
    this.#c = context;
  }

  lookup(_request: Request, parent: NodeId, name: ByteString, out: EntryOut): Answer {
    const directory = this.#c.deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    if (this.#c.reserved(directory, name)) return -ENOENT;
    return start(this.#lookup(directory, name, out));
  }

  *#lookup(directory: TreeNode, name: ByteString, out: EntryOut): Op<number> {
    const result = yield* this.#c.deps.names.lookup(directory, name, out.attr);
    if (result === -ENOENT) {
      out.nodeId = 0;
      out.entryValidSeconds = this.#c.options.cacheSeconds;
      return 0;
    }
    if (result < 0) return result;
    this.#c.enter(directory, name, out);
    return 0;
  }

  forget(node: NodeId, lookups: number): void {
    this.#c.deps.table.forget(node, lookups);
  }

  mkdir(request: Request, parent: NodeId, name: ByteString, mode: number, umask: number, out: EntryOut): Answer {
    return this.#make(parent, name, mode, umask, out, (directory, finalMode) =>
      this.#c.deps.names.mkdir(directory, name, finalMode, request, request.resent, out.attr),
    );
  }

  mknod(
    request: Request,
    parent: NodeId,
    name: ByteString,
    mode: number,
    rdev: number,
    umask: number,
    out: EntryOut,
  ): Answer {
    return this.#make(parent, name, mode, umask, out, (directory, finalMode) =>
      this.#c.deps.names.mknod(directory, name, finalMode, rdev, request, request.resent, out.attr),
    );
  }

  symlink(request: Request, parent: NodeId, name: ByteString, target: ByteString, out: EntryOut): Answer {
    return this.#make(parent, name, 0o777, 0, out, (directory) =>
      this.#c.deps.names.symlink(directory, name, target, request, request.resent, out.attr),
    );
  }

  link(request: Request, id: NodeId, newParent: NodeId, newName: ByteString, out: EntryOut): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    return this.#make(newParent, newName, 0, 0, out, (directory) => this.#link(request, node, directory, newName, out));
  }

  *#link(request: Request, node: TreeNode, directory: TreeNode, name: ByteString, out: EntryOut): Op<number> {
    const { names, table } = this.#c.deps;
    const result = yield* names.link(node, directory, name, request.resent, out.attr);
    // The tree learns of the second name here, so that `enter` finds the same node whatever number it has now.
    if (result >= 0) table.tree.link(node, directory, name);
    return result;
  }

  #make(
    parent: NodeId,
    name: ByteString,
    mode: number,
    umask: number,
    out: EntryOut,
    make: (directory: TreeNode, mode: number) => Op<number>,
  ): Answer {
    const directory = this.#c.deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#c.refuse(directory, name);
    if (refused < 0) return refused;
    return start(this.#made(directory, name, mode, umask, out, make));
  }

  *#made(
    directory: TreeNode,
    name: ByteString,
    mode: number,
    umask: number,
    out: EntryOut,
    make: (directory: TreeNode, mode: number) => Op<number>,
  ): Op<number> {
    const result = yield* make(directory, umask === 0 ? mode : yield* this.#c.masked(directory, mode, umask));
    if (result < 0) return result;
    const node = this.#c.enter(directory, name, out);
    if (isDirectory(out.attr.mode)) this.#c.deps.intents.created(directory, node);
    this.#c.deps.times.note(node); // a directory, too: it may stay empty, with the time of each replica's own clock
    return 0;
  }

  unlink(request: Request, parent: NodeId, name: ByteString): Answer {
    const directory = this.#c.deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#c.refuse(directory, name);
    return refused < 0 ? refused : start(this.#c.deps.names.unlink(directory, name, request.resent));
  }

  rmdir(request: Request, parent: NodeId, name: ByteString): Answer {
    const directory = this.#c.deps.table.get(parent);
    if (directory === undefined) return -ESTALE;
    const refused = this.#c.refuse(directory, name);
    return refused < 0 ? refused : start(this.#rmdir(request, directory, name));
  }

  *#rmdir(request: Request, directory: TreeNode, name: ByteString): Op<number> {
    const { names, table, attributes } = this.#c.deps;
    const node = table.tree.get(directory, name);
    const attr = new FileAttr();
    if (node !== undefined) yield* attributes.getattr(node, attr);
    const result = yield* names.rmdir(directory, name, request.resent);
    if (result >= 0 && node !== undefined) {
      table.show(node, attr);
      attr.nlink = 0;
      this.#c.removed.set(node, attr);
    }
    return result;
  }

  rename(
    request: Request,
    parent: NodeId,
    name: ByteString,
    newParent: NodeId,
    newName: ByteString,
    flags: number,
  ): Answer {
    const { table, names } = this.#c.deps;
    const from = table.get(parent);
    const to = table.get(newParent);
    if (from === undefined || to === undefined) return -ESTALE;
    const refused = this.#c.refuse(from, name) || this.#c.refuse(to, newName);
    if (refused < 0) return refused;
    if (flags !== 0 && !this.#c.deps.abilities().renameFlags) return -EOPNOTSUPP;
    const memo = this.#c.deps.exchangeMemo(request.unique);
    return start(names.rename(from, name, to, newName, flags, request.resent, memo));
  }
}
