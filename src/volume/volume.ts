/**
 * One volume at work: everything between the FUSE session and the replicas, put together. Opening it is `open-volume.ts`'s.
 */
import type { FileSystem, StatfsOut } from "../fuse/filesystem.ts";
import { keepsMetadataOrder } from "../replica/metadata-order.ts";
import type { FileSystemStats } from "../replica/replica.ts";
import { Attributes } from "../replication/attributes.ts";
import { FanOut } from "../replication/fan-out.ts";
import { Files } from "../replication/files.ts";
import { FullGuard, type FullPolicyDeps, type Space } from "../replication/full-policy.ts";
import { InodeNumbers } from "../replication/inode-numbers.ts";
import { expelFailed, IntentLog } from "../replication/intent-log.ts";
import { IntentPolicy } from "../replication/intent-policy.ts";
import { RangeLocks } from "../replication/locks.ts";
import { type MembershipEvent, VolumeMembership } from "../replication/membership.ts";
import { MissedChangesLog } from "../replication/missed-changes.ts";
import type { VolumeSpace } from "../replication/model.ts";
import { Namespace } from "../replication/namespace.ts";
import { ReadChoice } from "../replication/read-choice.ts";
import { Times } from "../replication/times.ts";
import { treeUse } from "../replication/tree-use.ts";
import { EEXIST, EIO } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import type { Logger } from "../util/logger.ts";
import { type Op, start, wait } from "../util/op.ts";
import { commonAbilities, type VolumeAbilities } from "./abilities.ts";
import { volumeFileSystem } from "./filesystem.ts";
import { NodeTable } from "./node-table.ts";
import type { OpenedVolume } from "./open-volume.ts";
import { isRemoteUrl } from "./replica-kinds.ts";
import { SpareMemory } from "./spare-memory.ts";
import { exchangeMemo, loadNegotiated, loadNumbers, saveNegotiated, saveNumbers } from "./state-facts.ts";
import type { StateLog } from "./state-log.ts";

export const MAX_REPLICAS = 8;
const SETTLE_AFTER_MS = 20;
const SETTLE_AT_ONCE = 256;
const CACHE_SECONDS = 3600;
const RECORD_RETRY_MS = 1_000;
const STATFS_BLOCK_BYTES = 4096;

export interface VolumeDeps {
  readonly stateLog: StateLog;
  readonly log: Logger;
  readonly onMembership: (event: MembershipEvent) => void;
  /** A change may have left replicas different that all stay in sync. */
  readonly onSuspect: () => void;
  readonly isSuspect: () => boolean;
  readonly onFull: FullPolicyDeps["onFull"];
}

export class Volume {
  readonly opened: OpenedVolume;
  readonly membership: VolumeMembership;
  readonly table: NodeTable;
  readonly fanOut: FanOut;
  readonly locks = new RangeLocks();
  readonly missed: MissedChangesLog;
  readonly intents: IntentLog;
  readonly times: Times;
  readonly names: Namespace;
  readonly attributes: Attributes;
  readonly files: Files;
  readonly numbers: InodeNumbers;
  readonly fileSystem: FileSystem;
  abilities: VolumeAbilities;
  readonly #readChoice: ReadChoice;
  readonly #guard: FullGuard;
  readonly #policy: IntentPolicy;
  readonly #isSuspect: () => boolean;
  readonly #stateLog: StateLog;
  /** Replicas that persist metadata in any order. */
  readonly #unordered = new Set<number>();
  readonly #memory = new SpareMemory();
  #settling: NodeJS.Timeout | null = null;
  readonly #stopped = new AbortController();

  constructor(opened: OpenedVolume, deps: VolumeDeps) {
    this.opened = opened;
    this.#isSuspect = deps.isSuspect;
    this.#stateLog = deps.stateLog;
    this.numbers = new InodeNumbers(loadNumbers(deps.stateLog));
    const { config, replicas, arbiter, recorded } = opened;
    this.abilities = commonAbilities(opened.capabilities);
    this.missed = new MissedChangesLog({
      onFailed: (replica, errno) => this.membership.stopSync(replica, "ResyncFailed", String(errno)),
    });
    this.membership = new VolumeMembership(
      recorded,
      {
        arbiter,
        now: () => new Date(),
        onEvent: deps.onMembership,
        resumePoint: () => null,
      },
      {
        replicas: config.replicas.map((replica) => replica.name),
        minInSync: config.minInSyncReplicas,
        recordDeadlineMs: config.arbiter?.waitMs ?? config.deadlineMs,
        retryMs: RECORD_RETRY_MS,
      },
    );
    const { membership, missed, locks, numbers } = this;
    this.table = new NodeTable(deps.stateLog, {
      onDrop: (node) => {
        this.names.forget(node);
        this.#memory.dropped(this.table.size);
      },
    });
    const { tree, orphans } = this.table;
    this.fanOut = new FanOut(
      { replicas, membership, missed, locks, numbers, onSuspect: deps.onSuspect },
      { fullPolicy: config.fullPolicy },
    );
    const { fanOut } = this;
    this.intents = new IntentLog(
      {
        replica: (index) => fanOut.replica(index),
        inSync: () => membership.inSync,
        onFailed: expelFailed((failed, errno) => membership.expel(failed, "Fault", errno)),
        isDegraded: () =>
          deps.isSuspect() || membership.inSync.length < replicas.filter((replica) => replica !== null).length,
        drained: () => this.#drained(),
      },
      { isOrdered: () => this.#unordered.size === 0 },
    );
    for (const index of config.replicas.keys()) this.noteOrder(index);
    const { intents } = this;
    this.#policy = new IntentPolicy({ intents, changes: () => fanOut.changes, log: deps.log });
    this.times = new Times({
      fanOut,
      membership,
      missed,
      intents,
      locks,
      tree,
      onNoted: (node, noted) => {
        this.table.noteTimes(node, noted);
        if (noted) this.#settleSoon();
      },
    });
    const { times } = this;
    const slots = MAX_REPLICAS;
    this.names = new Namespace({ fanOut, membership, intents, missed, locks, tree, orphans, times, numbers, slots });
    this.attributes = new Attributes({ fanOut, intents, missed, locks, times });
    this.#readChoice = new ReadChoice({
      policy: config.readPolicy,
      replicas: config.replicas.map(({ slow, url }) => ({ slow, distance: isRemoteUrl(url) ? 1 : 0 })),
    });
    this.#guard = new FullGuard(
      {
        space: (index) => start(this.#space(index)),
        inSync: () => membership.inSync,
        measureUse: () => this.#measureUse(),
        onFull: deps.onFull,
        nowMs: () => performance.now(),
      },
      { fullPolicy: config.fullPolicy, capacityBytes: config.capacityBytes },
    );
    this.files = new Files({
      fanOut,
      membership,
      intents,
      missed,
      locks,
      times,
      slots,
      onRead:
        config.readPolicy === "LowestLatency"
          ? (replica, microseconds) => this.#readChoice.observe(replica, microseconds)
          : null,
      chooseReader: (file, failed) => this.#readChoice.choose(file, membership.inSync, failed),
    });
    this.fileSystem = volumeFileSystem(
      {
        table: this.table,
        names: this.names,
        attributes: this.attributes,
        files: this.files,
        fanOut,
        times,
        intents,
        onInit: (negotiated) => saveNegotiated(deps.stateLog, negotiated),
        negotiated: () => loadNegotiated(deps.stateLog),
        exchangeMemo: (unique) => exchangeMemo(deps.stateLog, unique),
        abilities: () => this.abilities,
        admit: (bytes) => this.#guard.admit(bytes),
        statfs: (out) => this.#statfs(out),
      },
      { cacheSeconds: CACHE_SECONDS, readOnly: config.options.includes("ro") },
    );
  }

  /** What an earlier process of this mount had: nodes, handles, and times that were to be made equal. */
  restore(): void {
    this.table.restore((node) => this.files.use(node));
    for (const node of [...this.table.notedNodes()]) this.times.note(node);
    this.table.sweep();
  }

  /** A replica's file system is known now, or is another one: do intents on it have to be flushed? */
  noteOrder(index: number): void {
    const replica = this.opened.replicas[index];
    if (replica === null || replica === undefined) return;
    if (isRemoteUrl(replica.url) || keepsMetadataOrder(replica.url)) this.#unordered.delete(index);
    else this.#unordered.add(index);
  }

  /** A replica has left or is back: what was made anew there has other numbers, and old numbers mean other files. */
  renumber(replica: number): void {
    this.table.forgetNumbers(replica);
    this.numbers.renew(replica);
    saveNumbers(this.#stateLog, this.numbers.steps);
  }

  /** Another leader numbers its files otherwise: those with several names are to be recognised under its numbers too. */
  async leaderChanged(): Promise<void> {
    for (const node of this.table.linkedNodes()) {
      const attr = new FileAttr();
      if (!node.detached && (await start(this.attributes.getattr(node, attr))) >= 0) {
        this.table.alsoKnownAs(node, attr.ino);
      }
    }
  }

  /**
   * Empty directories that become a volume may differ in their own attributes, and in the `lost+found` that mkfs made in
   * some of them: now they are alike.
   */
  async alignNew(): Promise<void> {
    const [leader, ...others] = this.membership.inSync.map((index) => this.fanOut.replica(index));
    if (leader === undefined) return;
    const { root } = this.table.tree;
    const lost = { parent: root, name: "lost+found" };
    const all = [leader, ...others];
    const found = await Promise.all(all.map(async (replica) => (await replica.lookup(root, lost.name, null)) >= 0));
    if (found.includes(true)) {
      for (const [i, replica] of all.entries()) {
        if (found[i] === false) await replica.mkdir(root, lost.name, 0o700, { uid: 0, gid: 0 }, null);
      }
    }
    for (const object of found.includes(true) ? [lost, root] : [root]) {
      const attr = new FileAttr();
      if ((await leader.getattr(object, attr)) < 0) continue; // the first request tells
      const { mode, uid, gid, atime, atimeNsec, mtime, mtimeNsec } = attr;
      const times = { atime: { seconds: atime, nsec: atimeNsec }, mtime: { seconds: mtime, nsec: mtimeNsec } };
      for (const replica of others)
        await replica.setattr(object, -1, { mode: mode & 0o7777, uid, gid, ...times }, null);
    }
    for (const replica of all) replica.forget(lost);
  }

  /** The directory for files without a name, on every member. */
  async prepareOrphans(): Promise<void> {
    const { control, directory } = this.table.orphans;
    for (const index of this.membership.inSync) {
      const made = await this.fanOut.replica(index).mkdir(control, directory.name, 0o700, { uid: 0, gid: 0 }, null);
      if (made < 0 && made !== -EEXIST) this.membership.expel([index], "Fault", made);
    }
  }

  get capacityBytes(): number | null {
    return this.#guard.capacityBytes;
  }

  /** It may hold so much from now on. */
  resize(capacityBytes: number | null): void {
    this.#guard.resize(capacityBytes);
  }

  /** Sizes and free space as applications see them; null if no replica tells. */
  async space(): Promise<VolumeSpace | null> {
    const out: StatfsOut = {
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      blockSizeBytes: STATFS_BLOCK_BYTES,
      maxNameBytes: 255,
    };
    if ((await start(this.#statfs(out))) < 0) return null;
    const { blockSizeBytes, blocks, freeBlocks, availableBlocks, files, freeFiles } = out;
    return {
      totalBytes: blocks * blockSizeBytes,
      freeBytes: freeBlocks * blockSizeBytes,
      availableBytes: availableBlocks * blockSizeBytes,
      files,
      freeFiles,
    };
  }

  /** Measures space, so that nothing is written beyond it; clears intents from time to time. */
  start(): void {
    this.#guard.start();
    this.#policy.start();
    this.#memory.soon();
  }

  /**
   * Everything is on stable storage on all members, as after an unmount in order; with a replica out, the intents stay and
   * say what it lacks. False if a member failed.
   */
  async persist(): Promise<boolean> {
    this.#policy.stop();
    if (this.#isSuspect()) return false;
    await this.#discardOrphans();
    if (await this.intents.checkpoint()) return true;
    const members = this.membership.inSync;
    for (const index of members) if ((await this.fanOut.replica(index).sync()) < 0) return false;
    return members === this.membership.inSync;
  }

  /** After an unmount nothing is open any more, though the kernel has not said so of files that were closed just before. */
  async #discardOrphans(): Promise<void> {
    const { orphans } = this.table;
    for (const node of [...(orphans.directory.children?.values() ?? [])]) {
      if (orphans.holds(node)) await start(this.names.discard(node));
    }
  }

  /** Every change so far has ended, and its times are equal everywhere. */
  async #drained(): Promise<void> {
    await this.fanOut.drained();
    await start(this.times.settleAll());
    await this.fanOut.drained();
  }

  /** Before the volume is given up, or looked at from outside: nothing is under way, nothing is left to do. */
  async settle(): Promise<void> {
    this.#stopped.abort();
    await this.#drained();
  }

  *#space(index: number): Op<Space | null> {
    const stats = noStats();
    const result = yield* wait(this.fanOut.replica(index).statfs(stats));
    if (result < 0) return null;
    const { blockSizeBytes, blocks, availableBlocks } = stats;
    return { totalBytes: blocks * blockSizeBytes, availableBytes: availableBlocks * blockSizeBytes };
  }

  #measureUse(): Promise<number> {
    const leader = this.membership.inSync[0];
    if (leader === undefined) throw new Error("No replica is in sync");
    return treeUse(this.fanOut.replica(leader), { signal: this.#stopped.signal });
  }

  /** What the tightest in-sync replica has, within the volume's capacity. */
  *#statfs(out: StatfsOut): Op<number> {
    const all: FileSystemStats[] = [];
    for (const index of this.membership.inSync) {
      const stats = noStats();
      if ((yield* wait(this.fanOut.replica(index).statfs(stats))) >= 0) all.push(stats);
    }
    if (all.length === 0) return -EIO;
    const least = (of: (stats: FileSystemStats) => number): number => Math.min(...all.map(of));
    const { capacityBytes } = this.#guard;
    const total = least(({ blocks, blockSizeBytes }) => blocks * blockSizeBytes);
    const free = least(({ freeBlocks, blockSizeBytes }) => freeBlocks * blockSizeBytes);
    const available = least(({ availableBlocks, blockSizeBytes }) => availableBlocks * blockSizeBytes);
    const room = capacityBytes === null ? Number.POSITIVE_INFINITY : Math.max(0, capacityBytes - this.#guard.usedBytes);
    const inBlocks = (bytes: number): number => Math.floor(bytes / STATFS_BLOCK_BYTES);
    out.blockSizeBytes = STATFS_BLOCK_BYTES;
    out.blocks = inBlocks(capacityBytes ?? total);
    out.freeBlocks = inBlocks(Math.min(free, room));
    out.availableBlocks = inBlocks(Math.min(available, room));
    out.files = least(({ files }) => files);
    out.freeFiles = least(({ freeFiles }) => freeFiles);
    out.maxNameBytes = this.abilities.maxNameBytes;
    return 0;
  }

  #settleSoon(): void {
    this.#settling ??= setTimeout(() => {
      this.#settling = null;
      void this.#settleSome();
    }, SETTLE_AFTER_MS);
  }

  async #settleSome(): Promise<void> {
    const left = await start(this.times.settleSome(SETTLE_AT_ONCE));
    if (left > 0) this.#settleSoon();
  }
}

function noStats(): FileSystemStats {
  const counts = { blocks: 0, freeBlocks: 0, availableBlocks: 0, files: 0, freeFiles: 0 };
  return { blockSizeBytes: STATFS_BLOCK_BYTES, maxNameBytes: 255, ...counts };
}
