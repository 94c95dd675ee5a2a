/** What the kernel's requests share: the parts of the volume, and how a node is shown. */
import type { EntryOut, Negotiated, StatfsOut } from "../fuse/filesystem.ts";
import type { Attributes } from "../replication/attributes.ts";
import type { Intents } from "../replication/contracts.ts";
import type { FanOut } from "../replication/fan-out.ts";
import type { Files } from "../replication/files.ts";
import type { ExchangeMemo, Namespace } from "../replication/namespace.ts";
import type { OpenFile } from "../replication/open-file.ts";
import { CONTROL_DIRECTORY } from "../replication/orphans.ts";
import type { Times } from "../replication/times.ts";
import type { TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT, EPERM, EROFS } from "../util/errno.ts";
import { FileAttr, S_ISGID, S_ISUID } from "../util/file-attr.ts";
import type { Op } from "../util/op.ts";
import type { VolumeAbilities } from "./abilities.ts";
import type { NodeTable } from "./node-table.ts";

const XATTR_ACL_DEFAULT = "system.posix_acl_default";
const XATTR_CAPABILITY = "security.capability";

export interface VolumeDeps {
  readonly table: NodeTable;
  readonly names: Namespace;
  readonly attributes: Attributes;
  readonly files: Files;
  readonly fanOut: FanOut;
  readonly times: Times;
  readonly intents: Pick<Intents, "created">;
  readonly onInit: (negotiated: Negotiated) => void;
  /** What was agreed with the kernel, by this process or an earlier one. */
  readonly negotiated: () => Negotiated | null;
  readonly exchangeMemo: (unique: bigint) => ExchangeMemo;
  /** What all replicas can do. */
  readonly abilities: () => VolumeAbilities;
  /** May so many bytes more be written? 0 or a negative errno. */
  readonly admit: (bytes: number) => number;
  /** Sizes and free space as applications see them. */
  readonly statfs: (out: StatfsOut) => Op<number>;
}

export interface VolumeOptions {
  /** How long the kernel may keep names and attributes: it is the only one who changes them. */
  readonly cacheSeconds: number;
  readonly readOnly: boolean;
}

export class VolumeContext {
  readonly deps: VolumeDeps;
  readonly options: VolumeOptions;
  /** Attributes of removed directories that somebody still stands in. */
  readonly removed = new WeakMap<TreeNode, FileAttr>();
  /** Directories that are known to have no default ACL, or one; asked once. */
  readonly defaultAcl = new WeakMap<TreeNode, boolean>();

  constructor(deps: VolumeDeps, options: VolumeOptions) {
    this.deps = deps;
    this.options = options;
  }

  /**
   * How long the kernel may keep attributes. While a snapshot is made a number of links may be a moment old, for reading
   * it and taking ours off are two steps: then not at all.
   */
  get attrSeconds(): number {
    return this.deps.table.hiddenLinks === null ? this.options.cacheSeconds : 0;
  }

  enter(directory: TreeNode, name: ByteString, out: EntryOut): TreeNode {
    const node = this.deps.table.enter(directory, name, out.attr);
    this.deps.table.show(node, out.attr);
    out.nodeId = node.id;
    out.entryValidSeconds = this.options.cacheSeconds;
    out.attrValidSeconds = this.attrSeconds;
    return node;
  }

  /** `.chiron` at the root is ours. */
  reserved(directory: TreeNode, name: ByteString): boolean {
    return directory.parent === null && name === CONTROL_DIRECTORY;
  }

  /** What no request may touch, or not now. */
  refuse(directory: TreeNode, name: ByteString): number {
    if (this.options.readOnly) return -EROFS;
    if (this.reserved(directory, name)) return -EPERM;
    if (directory.detached) return -ENOENT;
    return 0;
  }

  /** The umask counts only where the directory has no default ACL: that decides instead, on the backends. */
  *masked(directory: TreeNode, mode: number, umask: number): Op<number> {
    if (this.deps.abilities().acls) {
      let hasDefault = this.defaultAcl.get(directory);
      if (hasDefault === undefined) {
        hasDefault = (yield* this.deps.attributes.getxattr(directory, XATTR_ACL_DEFAULT, new Uint8Array(0))) > 0;
        this.defaultAcl.set(directory, hasDefault);
      }
      if (hasDefault) return mode;
    }
    return mode & ~umask;
  }

  /** Clears set-user-id, set-group-id and capabilities, as a write by others does. */
  *killPrivileges(node: TreeNode, file: OpenFile | null): Op<number> {
    const { attributes } = this.deps;
    const attr = new FileAttr();
    const result = yield* attributes.getattr(node, attr);
    if (result < 0) return result;
    const group = (attr.mode & (S_ISGID | 0o010)) === (S_ISGID | 0o010) ? S_ISGID : 0;
    const kill = attr.mode & (S_ISUID | group);
    if (kill !== 0) {
      const set = yield* attributes.setattr(node, { mode: attr.mode & 0o7777 & ~kill }, attr);
      if (set < 0) return set;
    }
    if ((yield* attributes.getxattr(node, XATTR_CAPABILITY, new Uint8Array(0))) >= 0) {
      const removed = yield* attributes.removexattr(node, XATTR_CAPABILITY, true);
      if (removed < 0) return removed;
    }
    if (file !== null) file.unprivileged = true;
    return 0;
  }
}
