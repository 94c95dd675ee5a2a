/**
 * One volume at work: everything between the FUSE session and the replicas, put together. Opening it is `open-volume.ts`'s.
 */
import type { StatfsOut } from "../fuse/filesystem.ts";
import type { FileSystemStats } from "../replica/replica.ts";
import { Attributes } from "../replication/attributes.ts";
import { FanOut } from "../replication/fan-out.ts";
import { Files } from "../replication/files.ts";
import { expelFailed, IntentLog } from "../replication/intent-log.ts";
import { RangeLocks } from "../replication/locks.ts";
import { type MembershipEvent, VolumeMembership } from "../replication/membership.ts";
import { MissedChangesLog } from "../replication/missed-changes.ts";
import { Namespace } from "../replication/namespace.ts";
import type { OpenFile } from "../replication/open-file.ts";
import { Times } from "../replication/times.ts";
import { EEXIST } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { type Op, start } from "../util/op.ts";
import { commonAbilities, type VolumeAbilities } from "./abilities.ts";
import { VolumeFileSystem } from "./filesystem.ts";
import { NodeTable } from "./node-table.ts";
import type { OpenedVolume } from "./open-volume.ts";
import { exchangeMemo, saveNegotiated } from "./state-facts.ts";
import type { StateLog } from "./state-log.ts";

export const MAX_REPLICAS = 8;
const SETTLE_AFTER_MS = 20;
const SETTLE_AT_ONCE = 256;
const CACHE_SECONDS = 3600;
const RECORD_RETRY_MS = 1_000;

export interface VolumeDeps {
  readonly stateLog: StateLog;
  readonly log: Logger;
  readonly onMembership: (event: MembershipEvent) => void;
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
  readonly fileSystem: VolumeFileSystem;
  abilities: VolumeAbilities;
  readonly #log: Logger;
  #settling: NodeJS.Timeout | null = null;

  constructor(opened: OpenedVolume, deps: VolumeDeps) {
    this.opened = opened;
    this.#log = deps.log;
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
        recordDeadlineMs: config.deadlineMs,
        retryMs: RECORD_RETRY_MS,
      },
    );
    const { membership, missed, locks } = this;
    this.table = new NodeTable(deps.stateLog, { onDrop: (node) => this.names.forget(node) });
    const { tree, orphans } = this.table;
    this.fanOut = new FanOut(
      { replicas, membership, missed, locks, onSuspect: () => this.#suspect() },
      { fullPolicy: config.fullPolicy },
    );
    const { fanOut } = this;
    this.intents = new IntentLog({
      replica: (index) => fanOut.replica(index),
      inSync: () => membership.inSync,
      onFailed: expelFailed((failed, errno) => membership.expel(failed, "Fault", errno)),
      isDegraded: () => membership.inSync.length < replicas.filter((replica) => replica !== null).length,
      drained: () => this.#drained(),
    });
    const { intents } = this;
    this.times = new Times({
      fanOut,
      membership,
      missed,
      locks,
      tree,
      onNoted: (node, noted) => {
        this.table.noteTimes(node, noted);
        if (noted) this.#settleSoon();
      },
    });
    const { times } = this;
    const slots = MAX_REPLICAS;
    this.names = new Namespace({ fanOut, membership, intents, missed, locks, tree, orphans, times, slots });
    this.attributes = new Attributes({ fanOut, intents, missed, locks, times });
    this.files = new Files({
      fanOut,
      membership,
      intents,
      missed,
      locks,
      times,
      slots,
      chooseReader: (file, not) => this.#chooseReader(file, not),
    });
    this.fileSystem = new VolumeFileSystem(
      {
        table: this.table,
        names: this.names,
        attributes: this.attributes,
        files: this.files,
        fanOut,
        times,
        intents,
        onInit: (negotiated) => saveNegotiated(deps.stateLog, negotiated),
        exchangeMemo: (unique) => exchangeMemo(deps.stateLog, unique),
        abilities: () => this.abilities,
        admit: (bytes) => this.#admit(bytes),
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

  /** The directory for files without a name, on every member. */
  async prepareOrphans(): Promise<void> {
    const { control, directory } = this.table.orphans;
    for (const index of this.membership.inSync) {
      const made = await this.fanOut.replica(index).mkdir(control, directory.name, 0o700, { uid: 0, gid: 0 }, null);
      if (made < 0 && made !== -EEXIST) this.membership.expel([index], "Fault", made);
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
    await this.#drained();
  }

  /** Sticky to the file, and the files spread over the fast in-sync replicas. */
  #chooseReader(file: OpenFile, not: number): number {
    const usable = (index: number): boolean => (not & (1 << index)) === 0;
    if (file.reader >= 0 && usable(file.reader) && this.membership.inSync.includes(file.reader)) return file.reader;
    const all = this.membership.inSync.filter(usable);
    const fast = all.filter((index) => this.opened.config.replicas[index]?.slow !== true);
    const from = fast.length > 0 ? fast : all;
    file.reader = from.length === 0 ? -1 : (from[file.node.id % from.length] as number);
    return file.reader;
  }

  #admit(_bytes: number): number {
    return 0;
  }

  *#statfs(out: StatfsOut): Op<number> {
    const stats: FileSystemStats = {
      blockSizeBytes: 4096,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 255,
    };
    const result = yield* this.fanOut.read((replica) => replica.statfs(stats));
    if (result < 0) return result;
    Object.assign(out, stats);
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

  #suspect(): void {
    this.#log.warn("Replicas that stay in sync may differ in what a failed change touched: they are compared");
  }
}
