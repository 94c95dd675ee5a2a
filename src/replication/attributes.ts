/** Attributes and extended attributes on all replicas. */
import type { AttrChange } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENODATA } from "../util/errno.ts";
import type { FileAttr } from "../util/file-attr.ts";
import type { Op } from "../util/op.ts";
import type { Intents, MissedChanges, ObjectLocks } from "./contracts.ts";
import type { Change, FanOut } from "./fan-out.ts";
import type { Times } from "./times.ts";
import type { TreeNode } from "./tree.ts";

export interface AttributesDeps {
  readonly fanOut: FanOut;
  readonly intents: Intents;
  readonly missed: MissedChanges;
  readonly locks: ObjectLocks;
  readonly times: Times;
}

export class Attributes {
  readonly #deps: AttributesDeps;

  constructor(deps: AttributesDeps) {
    this.#deps = deps;
  }

  getattr(node: TreeNode, attr: FileAttr): Op<number> {
    const handles = node.open?.handles;
    const directoryOf = (): TreeNode => node.parent ?? node;
    return this.#deps.fanOut.readAttr(directoryOf, attr, (replica, index, into) => {
      const handle = handles?.[index] ?? -1;
      if (handle >= 0) return into === null ? 0 : replica.fgetattr(handle, into);
      return into === null ? replica.lookup(node.parent ?? node, node.name, null) : replica.getattr(node, into);
    });
  }

  *setattr(node: TreeNode, change: AttrChange, attr: FileAttr): Op<number> {
    const open = node.open;
    const handleFor = (index: number): number => {
      if (open === null || (change.size !== undefined && open.writable[index] !== true)) return -1;
      return open.handles[index] ?? -1;
    };
    const call: Omit<Change, "follows"> = {
      call: (replica, index, into) => replica.setattr(node, handleFor(index), change, into),
      attr,
      reread: (replica, _index, into) => (into === null ? 0 : replica.getattr(node, into)),
    };
    const result = yield* this.#change(node, call, change.size);
    // A new size stamps each replica's own time.
    if (result >= 0 && change.size !== undefined && change.mtime === undefined) this.#deps.times.note(node);
    if (result >= 0 && change.size === 0) this.#deps.intents.truncated(node);
    return result;
  }

  getxattr(node: TreeNode, name: ByteString, into: Uint8Array): Op<number> {
    return this.#deps.fanOut.read((replica) => replica.getxattr(node, name, into));
  }

  listxattr(node: TreeNode, into: Uint8Array): Op<number> {
    return this.#deps.fanOut.read((replica) => replica.listxattr(node, into));
  }

  setxattr(node: TreeNode, name: ByteString, value: Uint8Array, flags: number, again: boolean): Op<number> {
    // "Exists" or "does not exist" in a request sent again: the flag has done its work already.
    const how = again ? 0 : flags;
    return this.#change(node, { call: (replica) => replica.setxattr(node, name, value, how) });
  }

  removexattr(node: TreeNode, name: ByteString, again: boolean): Op<number> {
    return this.#change(node, {
      call: (replica) => {
        const answer = replica.removexattr(node, name);
        if (!again) return answer;
        const gone = (result: number): number => (result === -ENODATA ? 0 : result);
        return typeof answer === "number" ? gone(answer) : answer.then(gone);
      },
    });
  }

  *#change(node: TreeNode, change: Omit<Change, "follows">, newSize?: number): Op<number> {
    const { fanOut, intents, missed, locks } = this.#deps;
    return yield* fanOut.changeLocked(locks.acquire(node), () => intents.attributes(node), {
      ...change,
      object: node,
      follows: (replica) => missed.follows(replica, node),
      again: () => missed.attributes(node, newSize),
    });
  }
}
