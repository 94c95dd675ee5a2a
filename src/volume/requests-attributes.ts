/** Requests on attributes, extended attributes and symbolic links. */
import type { Answer, AttrOut, FileHandle, NodeId, Request, SetAttrIn, TimeIn } from "../fuse/filesystem.ts";
import { fileSystemTime } from "../posix/clock.ts";
import type { AttrChange, TimeSpec } from "../replica/replica.ts";
import type { TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EOPNOTSUPP, ERANGE, EROFS, ESTALE } from "../util/errno.ts";
import { FileAttr, S_ISGID } from "../util/file-attr.ts";
import { type Op, start } from "../util/op.ts";

import type { VolumeContext } from "./requests.ts";

export class AttributeRequests {
  readonly #c: VolumeContext;

  constructor(context: VolumeContext) {
    this.#c = context;
  }

  getattr(_request: Request, id: NodeId, _handle: FileHandle | null, out: AttrOut): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined) return -ESTALE;
    return start(this.#getattr(node, out));
  }

  *#getattr(node: TreeNode, out: AttrOut): Op<number> {
    out.attrValidSeconds = this.#c.attrSeconds;
    if (node.detached) {
      const attr = this.#c.removed.get(node);
      if (attr === undefined) return -ESTALE;
      out.attr.copyFrom(attr);
      return 0;
    }
    const result = yield* this.#c.deps.attributes.getattr(node, out.attr);
    if (result >= 0) this.#c.deps.table.show(node, out.attr);
    return result;
  }

  setattr(_request: Request, id: NodeId, change: SetAttrIn, out: AttrOut): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined) return -ESTALE;
    if (this.#c.options.readOnly) return -EROFS;
    return node.detached ? this.#setattrRemoved(node, change, out) : start(this.#setattr(node, change, out));
  }

  /** No replica has it any more: it changes for those alone who still hold it. With the write-back cache the kernel
   *  flushes the times of a file that is gone, and an error would be syncfs's. */
  #setattrRemoved(node: TreeNode, change: SetAttrIn, out: AttrOut): number {
    const attr = this.#c.removed.get(node) ?? new FileAttr();
    attr.ino = node.ino;
    attr.mode = change.mode === null ? attr.mode | node.type : node.type | (change.mode & 0o7777);
    attr.uid = change.uid ?? attr.uid;
    attr.gid = change.gid ?? attr.gid;
    this.#c.removed.set(node, attr);
    out.attr.copyFrom(attr);
    return 0;
  }

  *#setattr(node: TreeNode, change: SetAttrIn, out: AttrOut): Op<number> {
    const { attributes, table } = this.#c.deps;
    out.attrValidSeconds = this.#c.attrSeconds;
    const now = change.atime === "now" || change.mtime === "now" ? fileSystemTime() : null;
    const time = (t: TimeIn | "now"): TimeSpec => (t === "now" ? (now as TimeSpec) : t);
    const set: { -readonly [K in keyof AttrChange]: AttrChange[K] } = {};
    if (change.mode !== null) set.mode = change.mode & 0o7777;
    if (change.uid !== null) set.uid = change.uid;
    if (change.gid !== null) set.gid = change.gid;
    if (change.size !== null) set.size = change.size;
    if (change.atime !== null) set.atime = time(change.atime);
    if (change.mtime !== null) set.mtime = time(change.mtime);
    if (node.open !== null) node.open.unprivileged = false;
    if (change.killSuidgid) {
      const killed = yield* this.#c.killPrivileges(node, null);
      if (killed < 0) return killed;
    }
    const result =
      Object.keys(set).length === 0
        ? yield* attributes.getattr(node, out.attr)
        : yield* attributes.setattr(node, set, out.attr);
    if (result >= 0) table.show(node, out.attr);
    return result;
  }

  readlink(_request: Request, id: NodeId, into: Uint8Array): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    return start(this.#c.deps.fanOut.read((replica) => replica.readlink(node, into)));
  }

  getxattr(_request: Request, id: NodeId, name: ByteString, into: Uint8Array): Answer {
    return this.#xattr(id, name, (node) => this.#c.deps.attributes.getxattr(node, name, into));
  }

  listxattr(_request: Request, id: NodeId, into: Uint8Array): Answer {
    return this.#xattr(id, null, (node) => this.#listxattr(node, into));
  }

  /** Only names that the volume offers. */
  *#listxattr(node: TreeNode, into: Uint8Array): Op<number> {
    const { attributes, abilities } = this.#c.deps;
    const all = Buffer.alloc(64 * 1024);
    const length = yield* attributes.listxattr(node, all);
    if (length < 0) return length;
    const names = all
      .toString("latin1", 0, length)
      .split("\0")
      .filter((name) => name !== "" && abilities().xattr(name));
    const listed = Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1");
    if (into.length === 0) return listed.length;
    if (into.length < listed.length) return -ERANGE;
    into.set(listed);
    return listed.length;
  }

  setxattr(
    request: Request,
    id: NodeId,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Answer {
    if (this.#c.options.readOnly) return -EROFS;
    return this.#xattr(id, name, (node) => this.#setxattr(request, node, name, value, flags, killSgid));
  }

  *#setxattr(
    request: Request,
    node: TreeNode,
    name: ByteString,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): Op<number> {
    const { attributes } = this.#c.deps;
    if (node.open !== null) node.open.unprivileged = false;
    this.#c.defaultAcl.delete(node);
    if (killSgid) {
      const attr = new FileAttr();
      const result = yield* attributes.getattr(node, attr);
      if (result < 0) return result;
      if ((attr.mode & S_ISGID) !== 0) {
        const cleared = yield* attributes.setattr(node, { mode: attr.mode & 0o7777 & ~S_ISGID }, attr);
        if (cleared < 0) return cleared;
      }
    }
    return yield* attributes.setxattr(node, name, value, flags, request.resent);
  }

  removexattr(request: Request, id: NodeId, name: ByteString): Answer {
    if (this.#c.options.readOnly) return -EROFS;
    return this.#xattr(id, name, (node) => {
      this.#c.defaultAcl.delete(node);
      return this.#c.deps.attributes.removexattr(node, name, request.resent);
    });
  }

  #xattr(id: NodeId, name: ByteString | null, act: (node: TreeNode) => Op<number>): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined || node.detached) return -ESTALE;
    if (name !== null && !this.#c.deps.abilities().xattr(name)) return -EOPNOTSUPP;
    return start(act(node));
  }
}
