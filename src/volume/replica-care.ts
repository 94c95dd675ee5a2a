/**
 * What has to be known and done before a replica may be in sync again: is it ours, can it do what the volume offers, is no
 * earlier process at work on it; and its resync.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { OffloadedReplica } from "../replica/offload.ts";
import type { Capabilities, DirectoryEntries } from "../replica/replica.ts";
import { ReplicaError } from "../replica/replica.ts";
import { IdentityError } from "../replication/errors.ts";
import { readMarker, unmounted, writeMarker } from "../replication/identity.ts";
import { LateChanges } from "../replication/late-changes.ts";
import type { ResyncProgress } from "../replication/model.ts";
import { Resync, type ResyncResult } from "../replication/resync.ts";
import { Throttle } from "../replication/throttle.ts";
import type { Logger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { isRemoteUrl } from "./replica-kinds.ts";
import type { ReplicaLocks } from "./replica-locks.ts";
import type { StatePageWriter } from "./state-page.ts";
import type { Volume } from "./volume.ts";

export interface ReplicaCareDeps {
  readonly volume: Volume;
  readonly locks: ReplicaLocks;
  readonly page: StatePageWriter;
  /** How many requests of applications there were so far. */
  readonly requests: () => number;
  readonly log: Logger;
}

export class ReplicaCare {
  readonly throttle: Throttle;
  readonly #deps: ReplicaCareDeps;
  readonly #running = new Map<number, Resync>();
  readonly #late: LateChanges;
  readonly #looking = new Map<number, Promise<void>>();

  constructor(deps: ReplicaCareDeps) {
    this.#deps = deps;
    this.throttle = new Throttle({
      bytesPerSecond: deps.volume.opened.config.resyncBytesPerSecond,
      requests: deps.requests,
    });
    const { volume, log } = deps;
    this.#late = new LateChanges({
      tree: volume.table.tree,
      membership: volume.membership,
      missed: volume.missed,
      replica: (index) => volume.fanOut.replica(index),
      barrier: (act) => volume.fanOut.barrier(act),
      equalizeTimes: (node) => volume.times.note(node),
      log,
    });
  }

  /** Nothing is looked at any more. */
  stop(): void {
    this.#late.stop();
  }

  /** Of a resync that is under way. */
  progress(index: number): ResyncProgress | null {
    return this.#running.get(index)?.progress ?? null;
  }

  /**
   * Looks for the replica's root on a thread. What hangs there stays one stuck thread, however often this is asked, and the
   * status page says whose it is.
   */
  async reach(index: number): Promise<void> {
    const { volume, page } = this.#deps;
    const { name, url } = volume.fanOut.replica(index);
    if (isRemoteUrl(url)) return; // its calls have deadlines of their own
    let looking = this.#looking.get(index);
    if (looking === undefined) {
      const onThreadCalls = (calls: number): void => page.threadCalls(index, calls);
      const look = new OffloadedReplica({ name, path: url, maxThreads: 1, onThreadCalls });
      looking = look.connect({ signal: new AbortController().signal }).finally(() => {
        this.#looking.delete(index);
        void look.disconnect();
      });
      looking.catch(() => {}); // told to whoever still waits
      this.#looking.set(index, looking);
    }
    const { deadlineMs } = volume.opened.config;
    const late = sleep(deadlineMs, "late" as const, { ref: false });
    if ((await Promise.race([looking, late])) !== "late") return;
    throw new ReplicaError(name, `${url} does not answer: see what its file system waits for`);
  }

  /** Takes the lock of a replica that has just answered; should it hang now, the page says whose call it is. */
  #lock(index: number, url: string): boolean {
    const busy = this.#deps.page.loopCalls(index);
    busy[0] = 1;
    try {
      return this.#deps.locks.take(url);
    } finally {
      busy[0] = 0;
    }
  }

  /** Nothing of it is open any more, so that its file system can be unmounted: neither is its lock. */
  disconnected(index: number): void {
    const url = this.#deps.volume.opened.replicas[index]?.url;
    if (url !== undefined && !this.#deps.volume.membership.inSync.includes(index)) this.#deps.locks.release(url);
  }

  /** Of a replica that has just been connected. Rejects, with what to do, if it may not be used. */
  async inspect(index: number): Promise<void> {
    const { volume } = this.#deps;
    const replica = volume.fanOut.replica(index);
    const { name, url } = replica;
    const { reason } = volume.membership.standing(index);
    const files = volume.opened.files(name);
    const reading = await start(readMarker(files));
    if (reading.kind === "none") {
      if (reason !== "New") throw unmounted(name);
      await this.#mayBeFilled(index);
      await start(writeMarker(files, volume.opened.volumeId, name, new Date()));
    } else if (reading.kind !== "marker") {
      throw new IdentityError(
        name,
        "damaged",
        "its marker .chiron/replica.json cannot be used, so nothing is written to it",
      );
    } else if (reading.marker.volumeId !== volume.opened.volumeId || reading.marker.replicaName !== name) {
      const { volumeId, replicaName } = reading.marker;
      throw new IdentityError(
        name,
        "other-volume",
        `it is replica "${replicaName}" of volume ${volumeId}, so nothing is written to it: mount what belongs there`,
      );
    }
    if (!isRemoteUrl(url) && !this.#lock(index, url)) {
      throw new ReplicaError(
        name,
        "an earlier process of this volume still has a call under way on it: it is waited for",
      );
    }
    if (await volume.opened.records?.hasDiverged({ name, files })) {
      throw new ReplicaError(
        name,
        "it was used apart from the others and holds changes that they lack: unmount, and mount again with all of them, " +
          `and these are kept as NAME.conflict-${name}-TIME`,
      );
    }
    if (replica.takeOver !== undefined && replica.fences === true) {
      // A session ends those of whoever has the volume now: asked before, so as not to end a successor's, and after.
      await volume.opened.arbiter.confirm();
      await replica.takeOver(volume.opened.volumeId);
      await volume.opened.arbiter.confirm();
    }
    volume.noteOrder(index);
    const lacks = lacking(await replica.probe(), volume.opened.capabilities);
    if (lacks.length > 0) {
      throw new ReplicaError(
        name,
        `its file system lacks what the volume offers (${lacks.join(", ")}): use another one`,
      );
    }
  }

  /** A replica without a marker: empty, or given up by an administrator who named another one as the source. */
  async #mayBeFilled(index: number): Promise<void> {
    const { volume } = this.#deps;
    const replica = volume.fanOut.replica(index);
    if (volume.opened.config.source !== null) return;
    const entries: DirectoryEntries = { names: [], types: [], inos: [] };
    const listed = await replica.readdir({ parent: null, name: "" }, entries);
    if (listed < 0) throw new ReplicaError(replica.name, "its directory cannot be listed", { errno: listed });
    if (entries.names.every((name) => name === "lost+found")) return;
    throw new IdentityError(
      replica.name,
      "not-ours",
      "the directory holds data and no marker of this volume, so nothing is written to it: empty it, or give another one",
    );
  }

  async resync(
    index: number,
    options: { readonly full: boolean; readonly signal: AbortSignal },
  ): Promise<ResyncResult> {
    const { volume, log } = this.#deps;
    const { membership, missed, fanOut } = volume;
    const { name } = fanOut.replica(index);
    if (missed.of(index) === null) missed.begin(index, { kind: "everything" });
    if (options.full) missed.forgetAll(index);
    this.#late.mark(index);
    const resync = new Resync(
      {
        tree: volume.table.tree,
        orphans: volume.table.orphans,
        locks: volume.locks,
        missed,
        intents: volume.intents,
        replica: (other) => fanOut.replica(other),
        sources: () => membership.inSync,
        onSourceFailed: (source, errno) => membership.expel([source], "Fault", errno),
        barrier: (act) => fanOut.barrier(act),
        admit: (joining) => this.#admit(joining),
        linked: (ino) => volume.table.linked(volume.numbers.shown(membership.inSync[0] ?? 0, ino)),
      },
      index,
      { throttle: this.throttle, signal: options.signal, contents: options.full },
    );
    this.#running.set(index, resync);
    try {
      const result = await resync.run();
      this.#late.joined(index);
      log.info("Resync is done", { replica: name, entries: result.entries, bytesWritten: result.bytesWritten });
      return result;
    } finally {
      this.#running.delete(index);
    }
  }

  async #admit(index: number): Promise<void> {
    const { arbiter, files } = this.#deps.volume.opened;
    const { name } = this.#deps.volume.fanOut.replica(index);
    arbiter.addVoter({ name, files: files(name) });
    if (!(await this.#deps.volume.membership.admit(index))) {
      throw new ReplicaError(name, "it is complete, but that could not be recorded; it is tried again");
    }
  }
}

/** What one backend cannot do, of all that the others can. */
function lacking(one: Capabilities, others: readonly Capabilities[]): string[] {
  const all = (can: (c: Capabilities) => boolean): boolean => others.every(can);
  const wanted: readonly [string, (c: Capabilities) => boolean][] = [
    ["user extended attributes", (c) => c.userXattrs],
    ["trusted and security attributes", (c) => c.rootXattrs],
    ["access control lists", (c) => c.acls],
    ["hard links", (c) => c.hardLinks],
    ["symbolic links", (c) => c.symlinks],
    ["special files", (c) => c.specialFiles],
    ["rename flags", (c) => c.renameFlags],
    ["fallocate", (c) => c.fallocate],
    ["punching holes", (c) => c.holes],
  ];
  return wanted.flatMap(([what, can]) => (all(can) && !can(one) ? [what] : []));
}
