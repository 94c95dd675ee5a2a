/**
 * Snapshots of a volume that is in use: plain trees in each backend's own `.chiron/snapshots`, the same on all replicas
 * that were in sync, consistent at one moment.
 *
 * - The moment is fixed while changes wait (`FanOut.barrier`): directories are made, and each file gets a second name, a
 *   hard link, in the snapshot. That costs one call for each name and no copying; if it takes longer than `maxPauseMs`,
 *   the snapshot is given up and changes go on.
 * - Then every link is replaced by a copy that is the snapshot's own: a reflink where the file system has them. A change
 *   to a file that has no copy yet waits for that (`BeforeImages`).
 * - `<id>.part` becomes `<id>`, and then `<id>.json` beside it says that it is whole. Anything without that is litter,
 *   which `tidy` removes: an interrupted snapshot is begun anew, at a later moment.
 * - A replica that fails meanwhile just has no snapshot. When it is in sync again it is given a copy (`joined`), and what
 *   was removed while it was away is removed there too: `<id>.gone` on the others remembers that.
 */
import { type CopyMethod, copyAttributes, copyObject, must, type Spot } from "../replica/copy-object.ts";
import { copyTree } from "../replica/copy-tree.ts";
import type { DirectoryEntries, Replica, TreeObject } from "../replica/replica.ts";
import { removeSubtree } from "../replica/subtree.ts";
import { ReplicaControlFiles } from "../replication/control-files.ts";
import { CONTROL_DIRECTORY } from "../replication/orphans.ts";
import { Throttle } from "../replication/throttle.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, EMLINK, EOPNOTSUPP, EPERM, errnoName } from "../util/errno.ts";
import { FileAttr, S_IFDIR, S_IFMT } from "../util/file-attr.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { BeforeImages } from "./before-image.ts";
import { FailureError } from "./failure.ts";
import type { SnapshotReport } from "./protocol.ts";
import type { Volume } from "./volume.ts";

const SNAPSHOTS = "snapshots";
const PART = ".part";
const RECORD = ".json";
const GONE = ".gone";
const ID = /^[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?$/;
const RECORD_MAX_BYTES = 64 * 1024;
const DEFAULT_MAX_PAUSE_MS = 30_000;
/** Calls under way at a time. */
const LINK_WIDTH = 64;
const COPY_WIDTH = 8;

const owner = { uid: 0, gid: 0 };
const rootObject: TreeObject = { parent: null, name: "" };
const control: TreeObject = { parent: rootObject, name: CONTROL_DIRECTORY };
const home: TreeObject = { parent: control, name: SNAPSHOTS };
const partOf = (id: string): TreeObject => ({ parent: home, name: id + PART });

export interface SnapshotsDeps {
  readonly volume: Volume;
  readonly log: Logger;
  /** Between steps of copying, with the bytes that were moved. */
  readonly throttle: Throttle;
}

interface Record extends Omit<SnapshotReport, "replicas"> {
  readonly formatVersion: 1;
  readonly method: CopyMethod | null;
}

interface Target {
  readonly index: number;
  readonly replica: Replica;
  method: CopyMethod | null;
  /** Why it has no snapshot. */
  failed: string | null;
}

interface MadeDirectory {
  readonly from: TreeObject;
  readonly to: TreeObject;
  readonly attr: FileAttr;
}

export class Snapshots {
  readonly #deps: SnapshotsDeps;
  readonly #stopped = new AbortController();
  /** One at a time: making, removing, giving to a replica that is back. */
  #queue: Promise<unknown> = Promise.resolve();
  #turns = 0;
  #images: BeforeImages | null = null;

  constructor(deps: SnapshotsDeps) {
    this.#deps = deps;
  }

  /** Ends what is under way; resolves when nothing is. */
  async stop(): Promise<void> {
    this.#stopped.abort(new FailureError("busy", "The volume is being unmounted"));
    await this.#queue.catch(() => {});
  }

  /** The snapshot, made now unless it is there already. */
  create(id: string, maxPauseMs: number | null): Promise<SnapshotReport> {
    checkId(id);
    return this.#inTurn(
      async () => (await this.#find(id)) ?? (await this.#make(id, maxPauseMs ?? DEFAULT_MAX_PAUSE_MS)),
    );
  }

  /** Fine if there is none. */
  remove(id: string): Promise<void> {
    checkId(id);
    return this.#inTurn(async () => {
      const { membership, opened } = this.#deps.volume;
      const members = membership.inSync;
      const isAnyoneOut = opened.replicas.some((replica, index) => replica !== null && !members.includes(index));
      for (const index of members) {
        const files = this.#files(index);
        if (isAnyoneOut) await start(files.replace(`${SNAPSHOTS}/${id}${GONE}`, new Uint8Array(0)));
        await this.#discard(index, id);
      }
    });
  }

  async list(): Promise<SnapshotReport[]> {
    return await this.#inTurn(async () => {
      const ids = new Set<string>();
      for (const index of this.#deps.volume.membership.inSync)
        for (const name of await this.#names(index)) if (name.endsWith(RECORD)) ids.add(name.slice(0, -RECORD.length));
      const found = await Promise.all([...ids].sort().map((id) => this.#find(id)));
      return found.filter((report) => report !== null);
    });
  }

  /** Something is being made or removed: files may have links that are ours. */
  get isBusy(): boolean {
    return this.#turns > 0;
  }

  /** Removes what interrupted work has left behind. */
  tidy(): void {
    void this.tidied();
  }

  async tidied(): Promise<void> {
    try {
      await this.#inTurn(async () => {
        for (const index of this.#deps.volume.membership.inSync) await this.#tidy(index);
      });
    } catch (error) {
      this.#warn("Cannot tidy up snapshots", error);
    }
  }

  /** A replica is in sync again, and may lack snapshots or have removed ones. */
  joined(index: number): void {
    void this.#inTurn(() => this.#supply(index)).catch((error: unknown) => {
      this.#warn("Cannot bring a replica's snapshots up to date", error);
    });
  }

  async #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const earlier = this.#queue;
    const turn = earlier.catch(() => {}).then(act);
    this.#queue = turn;
    this.#turns += 1;
    try {
      return await turn;
    } finally {
      this.#turns -= 1;
    }
  }

  #warn(message: string, error: unknown): void {
    if (!this.#stopped.signal.aborted) this.#deps.log.warn(message, { error: errorText(error) });
  }

  #replica(index: number): Replica {
    return this.#deps.volume.fanOut.replica(index);
  }

  #files(index: number): ReplicaControlFiles {
    return new ReplicaControlFiles(this.#replica(index));
  }

  async #names(index: number): Promise<readonly ByteString[]> {
    return await start(this.#files(index).list(SNAPSHOTS));
  }

  async #record(index: number, id: string): Promise<Record | null> {
    const content = await start(this.#files(index).read(`${SNAPSHOTS}/${id}${RECORD}`, RECORD_MAX_BYTES));
    return content === null ? null : (JSON.parse(Buffer.from(content).toString("utf8")) as Record);
  }

  async #find(id: string): Promise<SnapshotReport | null> {
    const { membership, opened } = this.#deps.volume;
    let report: Omit<SnapshotReport, "replicas"> | null = null;
    const replicas: SnapshotReport["replicas"][number][] = [];
    for (const [index, replica] of opened.replicas.entries()) {
      if (replica === null) continue;
      const record = membership.inSync.includes(index) ? await this.#record(index, id) : null;
      if (record !== null) {
        const { createdAt, files, bytes, pauseMs } = record;
        report ??= { id, createdAt, files, bytes, pauseMs };
      }
      replicas.push(
        record === null
          ? { name: replica.name, state: "Missing", method: null, message: null }
          : { name: replica.name, state: "Ready", method: record.method, message: null },
      );
    }
    return report === null ? null : { ...report, replicas };
  }

  async #make(id: string, maxPauseMs: number): Promise<SnapshotReport> {
    const { volume, log, throttle } = this.#deps;
    const { membership, fanOut, table, opened } = volume;
    const members = membership.inSync;
    const [leader] = members;
    if (leader === undefined || membership.quorumLost)
      throw new FailureError("quorum", "Too few replicas are in sync for a snapshot");
    for (const index of members) await this.#tidy(index);
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#stopped.signal, failed.signal]);
    const targets: Target[] = members.map((index) => ({
      index,
      replica: this.#replica(index),
      method: null,
      failed: null,
    }));
    const making = new Making(id, targets, signal, throttle);
    const images = new BeforeImages({
      leader: this.#replica(leader),
      keyOf: (ino) => volume.numbers.shown(leader, ino),
      copy: (names) => making.copyFile(names),
      onFailed: (error) => failed.abort(error),
    });
    this.#images = images;
    try {
      for (const target of targets) await making.begin(target);
      const beganMs = performance.now();
      const createdAt = await fanOut.barrier(async () => {
        const now = new Date();
        fanOut.beforeChange = (node) => images.before(node);
        table.hiddenLinks = (ino) => images.links(ino);
        await making.fixMoment(images, AbortSignal.timeout(maxPauseMs));
        return now.toISOString();
      });
      const pauseMs = Math.round(performance.now() - beganMs);
      if (!membership.inSync.includes(leader)) throw new Error("the replica that it was made from has left");
      await images.copyAll(COPY_WIDTH, signal);
      signal.throwIfAborted();
      await making.finish();
      const { files, bytes } = making;
      for (const target of targets) {
        // Who has left meanwhile may lack a change from before the moment.
        if (!membership.inSync.includes(target.index)) target.failed ??= "it is not in sync any more";
        await making.attempt(target, async ({ index, replica }) => {
          const record: Record = { formatVersion: 1, id, createdAt, files, bytes, pauseMs, method: target.method };
          await must({ replica, object: partOf(id) }, "flush", replica.sync());
          await must({ replica, object: partOf(id) }, "name", replica.rename(home, id + PART, home, id, 0));
          await start(this.#files(index).replace(`${SNAPSHOTS}/${id}${RECORD}`, Buffer.from(JSON.stringify(record))));
        });
      }
      const first = targets[0];
      if (first === undefined || first.failed !== null) throw new Error(first?.failed ?? "no replica is in sync");
      log.info("Snapshot made", { snapshot: id, files, bytes, pauseMs });
      const replicas = opened.replicas.flatMap((replica, index) => {
        if (replica === null) return [];
        const target = targets.find((other) => other.index === index);
        const message = target === undefined ? "it was not in sync" : target.failed;
        const method = message === null ? (target?.method ?? null) : null;
        return [
          { name: replica.name, state: message === null ? ("Ready" as const) : ("Missing" as const), method, message },
        ];
      });
      return { id, createdAt, files, bytes, pauseMs, replicas };
    } catch (error) {
      const cause: unknown = signal.aborted ? signal.reason : error;
      log.warn("No snapshot was made", { snapshot: id, error: errorText(cause) });
      for (const index of members) await this.#tidy(index).catch((left: unknown) => this.#warn("Litter is left", left));
      if (cause instanceof FailureError) throw cause;
      throw new FailureError("replica", `Cannot make the snapshot "${id}": ${errorText(cause)}`, { cause });
    } finally {
      fanOut.beforeChange = null;
      table.hiddenLinks = null;
      this.#images = null;
    }
  }

  /** For tests and status: files that have no copy yet. */
  get pendingFiles(): number {
    return this.#images?.size ?? 0;
  }

  /** The record goes first: from then on the tree is litter. */
  async #discard(index: number, id: string): Promise<void> {
    await start(this.#files(index).remove(`${SNAPSHOTS}/${id}${RECORD}`));
    await this.#removeTree(index, id);
  }

  async #removeTree(index: number, name: ByteString): Promise<void> {
    const replica = this.#replica(index);
    const removed = await removeSubtree(replica, [CONTROL_DIRECTORY, SNAPSHOTS, name], this.#stopped.signal);
    if (removed < 0)
      throw new Error(`Cannot remove ${replica.url}/${CONTROL_DIRECTORY}/${SNAPSHOTS}/${name}: ${errnoName(removed)}`);
  }

  async #tidy(index: number): Promise<void> {
    const names = await this.#names(index);
    const whole = new Set(names.filter((name) => name.endsWith(RECORD)).map((name) => name.slice(0, -RECORD.length)));
    for (const name of names)
      if (!whole.has(name) && !name.endsWith(RECORD) && !name.endsWith(GONE)) await this.#removeTree(index, name);
  }

  async #supply(index: number): Promise<void> {
    const { volume, log, throttle } = this.#deps;
    const { membership, opened } = volume;
    if (!membership.inSync.includes(index)) return;
    await this.#tidy(index);
    const gone = new Set<string>();
    const there = new Map<string, number>();
    for (const other of membership.inSync) {
      for (const name of await this.#names(other)) {
        if (name.endsWith(GONE)) gone.add(name.slice(0, -GONE.length));
        else if (name.endsWith(RECORD) && other !== index) there.set(name.slice(0, -RECORD.length), other);
      }
    }
    const has = new Set((await this.#names(index)).filter((name) => name.endsWith(RECORD)));
    for (const id of gone) if (has.has(id + RECORD)) await this.#discard(index, id);
    for (const [id, source] of there) {
      if (gone.has(id) || has.has(id + RECORD)) continue;
      const record = await this.#record(source, id);
      if (record === null) continue;
      const from: Spot = { replica: this.#replica(source), object: { parent: home, name: id } };
      const to: Spot = { replica: this.#replica(index), object: partOf(id) };
      await makeHome(to.replica);
      await must(to, "make", to.replica.mkdir(home, id + PART, 0o700, owner, null));
      const { signal } = this.#stopped;
      const { method } = await copyTree(from, to, { signal, pace: (bytes) => throttle.pace(bytes, signal) });
      await must(to, "flush", to.replica.sync());
      await must(to, "name", to.replica.rename(home, id + PART, home, id, 0));
      const content = Buffer.from(JSON.stringify({ ...record, method }));
      await start(this.#files(index).replace(`${SNAPSHOTS}/${id}${RECORD}`, content));
      log.info("Snapshot copied to a replica that lacked it", { snapshot: id, replica: to.replica.name });
    }
    const isAnyoneOut = opened.replicas.some((replica, i) => replica !== null && !membership.inSync.includes(i));
    if (isAnyoneOut) return;
    for (const id of gone)
      for (const other of membership.inSync) await start(this.#files(other).remove(`${SNAPSHOTS}/${id}${GONE}`));
  }
}

/** One snapshot in the making: what was made on whom. The first target is the leader, whose names and attributes count. */
class Making {
  files = 0;
  bytes = 0;
  readonly #id: string;
  readonly #targets: readonly Target[];
  readonly #signal: AbortSignal;
  readonly #throttle: Throttle;
  readonly #directories: MadeDirectory[] = [];
  #temporaries = 0;

  constructor(id: string, targets: readonly Target[], signal: AbortSignal, throttle: Throttle) {
    this.#id = id;
    this.#targets = targets;
    this.#signal = signal;
    this.#throttle = throttle;
  }

  get #leader(): Target {
    const [leader] = this.#targets;
    if (leader === undefined || leader.failed !== null) throw new Error(leader?.failed ?? "no replica is in sync");
    return leader;
  }

  /** What fails on one target leaves that one out; on the leader it ends the snapshot. */
  async attempt(target: Target, act: (target: Target) => Promise<void>): Promise<void> {
    if (target.failed !== null) return;
    try {
      await act(target);
    } catch (error) {
      target.failed = errorText(error);
      if (target === this.#targets[0]) throw error;
    }
  }

  async #onAll(act: (target: Target) => Promise<void>): Promise<void> {
    const outcomes = await Promise.allSettled(this.#targets.map((target) => this.attempt(target, act)));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }

  async begin({ replica }: Target): Promise<void> {
    await makeHome(replica);
    const spot = { replica, object: partOf(this.#id) };
    await must(spot, "make", replica.mkdir(home, this.#id + PART, 0o700, owner, null));
  }

  /** While no change is under way. */
  async fixMoment(images: BeforeImages, late: AbortSignal): Promise<void> {
    const slices = new Throttle();
    const root = new FileAttr();
    const { replica } = this.#leader;
    await must({ replica, object: rootObject }, "look at", replica.getattr(rootObject, root));
    const todo: MadeDirectory[] = [{ from: rootObject, to: partOf(this.#id), attr: root }];
    await this.#onAll(async (target) => {
      const spot = { replica: target.replica, object: partOf(this.#id) };
      await copyAttributes({ replica: target.replica, object: rootObject }, root, spot);
    });
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      const directory = next;
      this.#directories.push(directory);
      const entries: DirectoryEntries = { names: [], types: [], inos: [] };
      await must({ replica, object: directory.from }, "list", replica.readdir(directory.from, entries));
      let at = 0;
      const work = async (): Promise<void> => {
        for (let i = at++; i < entries.names.length; i = at++) {
          const name = entries.names[i] as ByteString;
          if (directory.from === rootObject && name === CONTROL_DIRECTORY) continue;
          this.#throwIfLate(late);
          const below = await this.#enter(
            directory,
            name,
            (entries.types[i] ?? 0) & S_IFMT,
            entries.inos[i] ?? 0,
            images,
          );
          if (below !== null) todo.push(below);
          await slices.pace(0, this.#signal);
        }
      };
      await Promise.all(Array.from({ length: Math.min(LINK_WIDTH, entries.names.length) }, work));
    }
  }

  #throwIfLate(late: AbortSignal): void {
    this.#signal.throwIfAborted();
    if (late.aborted)
      throw new FailureError(
        "busy",
        `The snapshot "${this.#id}" was given up: changes to the volume would have waited too long for its ${this.files} files and more; allow a longer pause`,
      );
  }

  /** One name at the moment; answers a directory that is yet to be looked into. */
  async #enter(
    directory: MadeDirectory,
    name: ByteString,
    knownType: number,
    ino: number,
    images: BeforeImages,
  ): Promise<MadeDirectory | null> {
    const { replica } = this.#leader;
    const from: TreeObject = { parent: directory.from, name };
    const to: TreeObject = { parent: directory.to, name };
    const attr = new FileAttr();
    if (knownType === 0 || knownType === S_IFDIR || ino === 0)
      await must({ replica, object: from }, "look at", replica.lookup(directory.from, name, attr));
    if (knownType === S_IFDIR || (attr.mode & S_IFMT) === S_IFDIR) {
      await this.#onAll(async (target) => {
        const spot = { replica: target.replica, object: to };
        await must(spot, "make", target.replica.mkdir(directory.to, name, 0o700, owner, null));
        await copyAttributes({ replica: target.replica, object: from }, attr, spot);
        target.replica.forget(from);
      });
      return { from, to, attr };
    }
    this.files += 1;
    let linked = true;
    await this.#onAll(async (target) => {
      const result = await target.replica.link(from, directory.to, name, null);
      // No hard links, or no more of them: its copy is made at once, while changes wait.
      if (result === -EMLINK || result === -EPERM || result === -EOPNOTSUPP) {
        if (target === this.#targets[0]) linked = false;
        await this.#copyNow(target, from, to);
      } else await must({ replica: target.replica, object: from }, "link", result);
      target.replica.forget(from);
    });
    if (linked) images.add(ino === 0 ? attr.ino : ino, to);
    return null;
  }

  async #copyNow(target: Target, from: TreeObject, to: TreeObject): Promise<void> {
    const { replica } = target;
    const attr = new FileAttr();
    await must({ replica, object: from }, "look at", replica.getattr(from, attr));
    this.#count(
      target,
      attr,
      await copyObject({ replica, object: from }, attr, { replica, object: to }, this.#options),
    );
  }

  get #options() {
    return { signal: this.#signal, pace: (bytes: number) => this.#throttle.pace(bytes, this.#signal) };
  }

  #count(target: Target, attr: FileAttr, method: CopyMethod | null): void {
    if (target === this.#targets[0]) this.bytes += attr.size;
    if (method !== null && attr.size > 0) target.method = method === "copy" ? "copy" : (target.method ?? method);
  }

  /** Replaces the links to one file by a copy of it, with the leader's attributes everywhere. */
  async copyFile(names: readonly TreeObject[]): Promise<void> {
    const [first, ...others] = names;
    if (first === undefined) return;
    const attr = new FileAttr();
    const leader = this.#leader.replica;
    await must({ replica: leader, object: first }, "look at", leader.getattr(first, attr));
    const object = partOf(`${this.#id}.${this.#temporaries++}`);
    await this.#onAll(async (target) => {
      const { replica } = target;
      const spot = { replica, object };
      const from = { replica, object: { parent: first.parent, name: first.name } };
      this.#count(target, attr, await copyObject(from, attr, spot, this.#options));
      replica.forget(from.object);
      for (const other of others) {
        const link: TreeObject = { parent: object.parent, name: `${object.name}.link` };
        await must(spot, "link", replica.link(object, home, link.name, null));
        await must(spot, "name", replica.rename(home, link.name, other.parent ?? home, other.name, 0));
        replica.forget(other);
      }
      await must(spot, "name", replica.rename(home, object.name, first.parent ?? home, first.name, 0));
      replica.forget(object);
      replica.forget(first);
    });
  }

  /** Directories get their times again: what was made in them has changed these. */
  async finish(): Promise<void> {
    for (const { to, attr } of this.#directories.reverse()) {
      const atime = { seconds: attr.atime, nsec: attr.atimeNsec };
      const mtime = { seconds: attr.mtime, nsec: attr.mtimeNsec };
      await this.#onAll(async ({ replica }) => {
        await must({ replica, object: to }, "set the times of", replica.setattr(to, -1, { atime, mtime }, null));
        replica.forget(to);
      });
      await this.#throttle.pace(0, this.#signal);
    }
  }
}

/** `.chiron` is there on every replica of a volume. */
async function makeHome(replica: Replica): Promise<void> {
  const made = await replica.mkdir(control, SNAPSHOTS, 0o700, owner, null);
  if (made !== -EEXIST) await must({ replica, object: home }, "make", made);
}

function checkId(id: string): void {
  if (!ID.test(id)) throw new FailureError("usage", `"${id}" cannot be the name of a snapshot`);
}
