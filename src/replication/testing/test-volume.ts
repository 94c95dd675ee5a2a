/**
 * A volume in memory for tests: the real engine on replicas that can lose power, with a membership that is merely kept,
 * not recorded. Operations name their objects by path, as a kernel would after its lookups.
 */
import assert from "node:assert/strict";
import type { AttrChange, Replica } from "../../replica/replica.ts";
import { MemoryReplica } from "../../replica/testing/memory.ts";
import type { MemoryDisk } from "../../replica/testing/memory-disk.ts";
import { FileAttr, isDirectory, S_IFIFO, S_IFMT } from "../../util/file-attr.ts";
import { type Op, start } from "../../util/op.ts";
import { Attributes } from "../attributes.ts";
import type { Membership } from "../contracts.ts";
import { FanOut } from "../fan-out.ts";
import { Files } from "../files.ts";
import { InodeNumbers } from "../inode-numbers.ts";
import { IntentLog, type IntentLogOptions } from "../intent-log.ts";
import { RangeLocks } from "../locks.ts";
import { MissedChangesLog } from "../missed-changes.ts";
import { Namespace } from "../namespace.ts";
import { CONTROL_DIRECTORY, Orphans } from "../orphans.ts";
import type { ResyncDeps } from "../resync.ts";
import { Times } from "../times.ts";
import { Tree, type TreeNode } from "../tree.ts";

const owner = { uid: 1000, gid: 1000 };

const noMemo = { load: () => null, save: () => {} };

export type Operation =
  | { readonly kind: "create" | "mkdir" | "fifo" | "unlink" | "rmdir" | "fsync"; readonly path: string }
  | {
      readonly kind: "write";
      readonly path: string;
      readonly at: number;
      readonly bytes: number;
      readonly fill: number;
    }
  | { readonly kind: "truncate"; readonly path: string; readonly size: number }
  | { readonly kind: "punch"; readonly path: string; readonly at: number; readonly bytes: number }
  | { readonly kind: "chmod"; readonly path: string; readonly mode: number }
  | { readonly kind: "utimes"; readonly path: string; readonly seconds: number }
  | { readonly kind: "xattr"; readonly path: string; readonly value: string | null }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | { readonly kind: "link" | "rename" | "exchange"; readonly path: string; readonly to: string };

export class TestMembership implements Membership {
  inSync: readonly number[];
  syncing: readonly number[] = [];
  readonly minInSync = 1;
  readonly quorumLost = false;
  readonly settled = null;
  readonly held: Promise<void> | null = null;
  onExpelled: (replica: number) => void = () => {};

  constructor(inSync: readonly number[]) {
    this.inSync = inSync;
  }

  expel(replicas: readonly number[]): void {
    for (const replica of replicas) {
      if (!this.inSync.includes(replica)) continue;
      this.inSync = this.inSync.filter((index) => index !== replica);
      this.onExpelled(replica);
    }
  }

  startSync(replica: number): void {
    this.syncing = [...this.syncing, replica];
  }

  admit(replica: number): void {
    this.syncing = this.syncing.filter((index) => index !== replica);
    this.inSync = [...this.inSync, replica].sort((a, b) => a - b);
  }
}

export class TestVolume {
  readonly disks: MemoryDisk[];
  readonly replicas: Replica[];
  readonly membership: TestMembership;
  readonly tree: Tree;
  readonly orphans: Orphans;
  readonly locks = new RangeLocks();
  readonly missed: MissedChangesLog;
  readonly intents: IntentLog;
  readonly fanOut: FanOut;
  readonly times: Times;
  readonly names: Namespace;
  readonly attributes: Attributes;
  readonly files: Files;
  readonly #linked = new Map<number, TreeNode>();
  #nextId = 16;

  static async open(
    disks: MemoryDisk[],
    options: {
      readonly inSync?: readonly number[];
      readonly intents?: IntentLogOptions;
      readonly wrap?: (replica: Replica, index: number) => Replica;
      /** The disks are a volume's already, and `intents.open` is the caller's. */
      readonly prepared?: boolean;
    } = {},
  ): Promise<TestVolume> {
    const replicas: Replica[] = [];
    for (const [i, disk] of disks.entries()) {
      const replica = new MemoryReplica(disk, { name: `r${i}` });
      await replica.connect({ signal: new AbortController().signal });
      replicas.push(options.wrap?.(replica, i) ?? replica);
    }
    const volume = new TestVolume(disks, replicas, options.inSync ?? disks.map((_, i) => i), options.intents ?? {});
    if (options.prepared === true) return volume;
    const control = { parent: { parent: null, name: "" }, name: CONTROL_DIRECTORY };
    for (const index of volume.membership.inSync) {
      await replicas[index]?.mkdir(control.parent, CONTROL_DIRECTORY, 0o700, owner, null);
      await replicas[index]?.mkdir(control, "orphans", 0o700, owner, null);
    }
    await volume.intents.open();
    return volume;
  }

  private constructor(
    disks: MemoryDisk[],
    replicas: Replica[],
    inSync: readonly number[],
    intentOptions: IntentLogOptions,
  ) {
    this.disks = disks;
    this.replicas = replicas;
    const membership = new TestMembership(inSync);
    this.membership = membership;
    this.tree = new Tree({ onDrop: () => {}, onMove: () => {} });
    this.tree.root.id = 1;
    this.orphans = new Orphans(this.tree);
    this.missed = new MissedChangesLog();
    const { tree, orphans, missed, locks } = this;
    const slots = replicas.length;
    const numbers = new InodeNumbers();
    this.fanOut = new FanOut(
      { replicas, membership, missed, locks, numbers, onSuspect: () => {} },
      { fullPolicy: "FailWrites" },
    );
    const { fanOut } = this;
    this.intents = new IntentLog(
      {
        replica: (index) => fanOut.replica(index),
        inSync: () => membership.inSync,
        onFailed: (results) => {
          membership.expel(results.filter(({ result }) => result < 0).map(({ replica }) => replica));
          return 0;
        },
        isDegraded: () => membership.inSync.length < replicas.length,
        drained: async () => {
          await fanOut.barrier(async () => {});
          await this.settle();
        },
      },
      intentOptions,
    );
    const { intents } = this;
    this.times = new Times({ fanOut, membership, missed, intents: this.intents, locks, tree, onNoted: () => {} });
    const { times } = this;
    this.names = new Namespace({ fanOut, membership, intents, missed, locks, tree, orphans, times, numbers, slots });
    this.attributes = new Attributes({ fanOut, intents, missed, locks, times });
    this.files = new Files({
      fanOut,
      membership,
      intents,
      missed,
      locks,
      times,
      slots,
      chooseReader: () => membership.inSync[0] ?? -1,
      onRead: null,
    });
    membership.onExpelled = (replica) => {
      missed.begin(replica, { kind: "intents", records: intents.uncleared });
    };
  }

  replica(index: number): Replica {
    return this.fanOut.replica(index);
  }

  get resyncDeps(): ResyncDeps {
    const { tree, orphans, locks, missed, intents, membership } = this;
    return {
      tree,
      orphans,
      locks,
      missed,
      intents,
      replica: (index) => this.replica(index),
      sources: () => membership.inSync,
      onSourceFailed: (index) => membership.expel([index]),
      barrier: (act) => this.fanOut.barrier(act),
      admit: async (index) => membership.admit(index),
      linked: (ino) => this.#linked.get(ino),
    };
  }

  async settle(): Promise<void> {
    while (this.times.size > 0) await start(this.times.settleSome(1024));
  }

  /** Carries one operation out; answers its result. What the kernel would not let pass is answered as it would. */
  async run(operation: Operation): Promise<number> {
    const names = operation.path.split("/").filter((name) => name !== "");
    const name = names.pop() ?? "";
    const directory = await this.#find(names);
    if (typeof directory === "number") return directory;
    try {
      return await this.#apply(operation, directory, name);
    } finally {
      this.tree.unpin(directory);
    }
  }

  async #apply(operation: Operation, directory: TreeNode, name: string): Promise<number> {
    const attr = new FileAttr();
    switch (operation.kind) {
      case "create": {
        const file = await start(this.names.create(directory, name, 0o644, owner, false, attr));
        if (typeof file === "number") return file;
        this.#know(file.node, attr);
        this.times.note(file.node);
        this.files.adopt(file);
        await start(this.files.release(file));
        this.tree.unpin(file.node);
        return 0;
      }
      case "mkdir": {
        const result = await start(this.names.mkdir(directory, name, 0o755, owner, false, attr));
        if (result < 0) return result;
        this.intents.created(directory, this.#made(directory, name, attr));
        return result;
      }
      case "fifo": {
        const result = await start(this.names.mknod(directory, name, S_IFIFO | 0o600, 0, owner, false, attr));
        if (result >= 0) this.#made(directory, name, attr);
        return result;
      }
      case "symlink": {
        const { target } = operation;
        const result = await start(this.names.symlink(directory, name, target, owner, false, attr));
        if (result >= 0) this.#made(directory, name, attr);
        return result;
      }
      default:
        return await this.#onObject(operation, directory, name);
    }
  }

  #made(directory: TreeNode, name: string, attr: FileAttr): TreeNode {
    const node = this.tree.pin(directory, name);
    this.#know(node, attr);
    this.times.note(node);
    this.tree.unpin(node);
    return node;
  }

  async #onObject(operation: Operation, directory: TreeNode, name: string): Promise<number> {
    const node = await this.#child(directory, name);
    if (typeof node === "number") return node;
    try {
      switch (operation.kind) {
        case "unlink":
          return await start(this.names.unlink(directory, name, false));
        case "rmdir":
          return await start(this.names.rmdir(directory, name, false));
        case "chmod":
          return await this.#setattr(node, { mode: operation.mode });
        case "utimes":
          return await this.#setattr(node, { mtime: { seconds: operation.seconds, nsec: 0 } });
        case "truncate": {
          const result = await this.#setattr(node, { size: operation.size });
          if (result >= 0 && operation.size === 0) this.intents.truncated(node);
          return result;
        }
        case "xattr":
          if (operation.value === null) return await start(this.attributes.removexattr(node, "user.x", false));
          return await start(this.attributes.setxattr(node, "user.x", Buffer.from(operation.value), 0, false));
        case "write": {
          const data = Buffer.alloc(operation.bytes, operation.fill);
          return await this.#withFile(node, (file) => this.files.write(file, data, operation.at));
        }
        case "punch":
          return await this.#withFile(node, (file) => this.files.fallocate(file, 3, operation.at, operation.bytes));
        case "fsync":
          return await this.#withFile(node, (file) => this.files.fsync(file, false));
        case "link":
        case "rename":
        case "exchange":
          return await this.#onTwo(operation, node, directory, name);
        default:
          return assert.fail(operation.kind);
      }
    } finally {
      this.tree.unpin(node);
    }
  }

  async #onTwo(
    operation: Operation & { readonly to: string },
    node: TreeNode,
    directory: TreeNode,
    name: string,
  ): Promise<number> {
    const names = operation.to.split("/").filter((part) => part !== "");
    const toName = names.pop() ?? "";
    const to = await this.#find(names);
    if (typeof to === "number") return to;
    const there = await this.#child(to, toName);
    try {
      // The kernel refuses to move a directory into itself.
      for (let at: TreeNode | null = to; at !== null; at = at.parent) if (at === node) return -22;
      for (let at: TreeNode | null = directory; at !== null; at = at.parent) if (at === there) return -39;
      if (operation.kind === "link") {
        if (typeof there !== "number") return -17;
        if ((node.type & S_IFMT) === 0o040000) return -1;
        const attr = new FileAttr();
        const result = await start(this.names.link(node, to, toName, false, attr));
        if (result < 0) return result;
        this.tree.link(node, to, toName);
        this.#know(node, attr);
        return result;
      }
      if (node === there) return 0;
      if (operation.kind === "exchange" && typeof there === "number") return there;
      const flags = operation.kind === "exchange" ? 2 : 0;
      return await start(this.names.rename(directory, name, to, toName, flags, false, noMemo));
    } finally {
      if (typeof there !== "number") this.tree.unpin(there);
      this.tree.unpin(to);
    }
  }

  async #setattr(node: TreeNode, change: AttrChange): Promise<number> {
    return await start(this.attributes.setattr(node, change, new FileAttr()));
  }

  async #withFile(node: TreeNode, call: (file: ReturnType<Files["use"]>) => Op<number>): Promise<number> {
    if ((node.type & S_IFMT) !== 0o100000) return -22;
    const file = this.files.use(node);
    const result = await start(call(file));
    await start(this.files.release(file));
    return result;
  }

  /** The directory of this path, pinned. */
  async #find(path: readonly string[]): Promise<TreeNode | number> {
    let at = this.tree.root;
    at.pins++;
    for (const name of path) {
      const next = await this.#child(at, name);
      this.tree.unpin(at);
      if (typeof next === "number") return next;
      at = next;
    }
    return at;
  }

  /** A lookup: the node, pinned, one and the same for all names of a file. */
  async #child(directory: TreeNode, name: string): Promise<TreeNode | number> {
    const attr = new FileAttr();
    const result = await start(this.names.lookup(directory, name, attr));
    if (result < 0) return result;
    if (!isDirectory(attr.mode) && attr.nlink > 1) {
      const known = this.#linked.get(attr.ino);
      if (known !== undefined && known !== this.tree.get(directory, name)) this.tree.link(known, directory, name);
    }
    const node = this.tree.pin(directory, name);
    this.#know(node, attr);
    return node;
  }

  #know(node: TreeNode, attr: FileAttr): void {
    node.type = attr.mode & S_IFMT;
    if (node.id === 0) node.id = this.#nextId++;
    if (isDirectory(attr.mode)) return;
    if (attr.nlink < 2 || this.#linked.has(attr.ino)) return;
    this.#linked.set(attr.ino, node);
    node.pins++; // kept as long as the test lasts, as a kernel may do
  }
}
