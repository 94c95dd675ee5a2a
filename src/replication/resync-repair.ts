/**
 * Makes one replica like another wherever its dirty set says that it may differ, one small step after the other. The set
 * is the only state: a repair can be stopped after any step, and another one goes on from there.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT, ENOTDIR, ESTALE } from "../util/errno.ts";
import { isDirectory } from "../util/file-attr.ts";
import { ATTRIBUTES, type DirtyNode, ENTRY, SCAN, TREE } from "./dirty-node.ts";
import type { DirtySet } from "./dirty-set.ts";
import { hasNoPlace, type Path, pathOf } from "./node-path.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";
import { attributesOf, type Copy, listOf, ReplicaCallError } from "./replica-call.ts";
import { Moved, ORPHANS, RepairContext, type RepairDeps, type RepairOptions, rootObject } from "./resync-context.ts";
import { EntryRepair } from "./resync-entries.ts";
import { ObjectRepair } from "./resync-objects.ts";
import { Walk } from "./resync-walk.ts";
import { classify } from "./verdict.ts";

/** An object that cannot be worked on is waited for: longer than any call may take. */
const retryMs = 30_000;
const minRetries = 50;
const doubtAfter = 12;
const maxLinkRounds = 4;

export class Repair {
  readonly #c: RepairContext;
  readonly #names: EntryRepair;
  readonly #walk: Walk;
  readonly #objects: ObjectRepair;
  readonly #retries = new Map<DirtyNode, { count: number; readonly sinceMs: number }>();
  #linkRounds = 0;

  constructor(deps: RepairDeps, index: number, set: DirtySet, options: RepairOptions) {
    this.#c = new RepairContext(deps, index, set, (set.root.flags & TREE) !== 0, options);
    this.#names = new EntryRepair(this.#c);
    this.#walk = new Walk(this.#c);
    this.#objects = new ObjectRepair(this.#c);
  }

  get work(): Pick<RepairContext, "entries" | "bytesWritten" | "seen" | "underWay" | "lastProgressMs" | "isFull"> {
    return this.#c;
  }

  /** See `RepairOptions.since`. */
  get since(): RepairContext["since"] {
    return this.#c.since;
  }

  set since(since: RepairContext["since"]) {
    this.#c.since = since;
  }

  /** What an earlier repair has left in the parking place, and nobody has come for. */
  async clearParking(): Promise<void> {
    await this.#names.clearParking();
  }

  /** Repairs until nothing is marked. `beforeStep` may wait. */
  async run(beforeStep: () => Promise<void> = async () => {}): Promise<void> {
    await this.clearParking();
    do {
      while (!this.#c.set.isEmpty) {
        await beforeStep();
        await this.step();
      }
    } while (await this.findLinks());
    await this.clearParking();
  }

  /** It ends, or is stopped: files of which not all names were met are looked at again by the next one. */
  close(): void {
    const { links, set } = this.#c;
    for (const node of links.unmetNodes) {
      if (hasNoPlace(node)) continue;
      const path = pathOf(node);
      set.entry(path.slice(0, -1), node.name);
      set.tree(path);
    }
    links.clear();
  }

  async step(): Promise<void> {
    const node = this.#c.set.next();
    if (node === null) {
      if (this.#c.set.isEmpty) return;
      throw new Error("Marks are left that nobody can come to");
    }
    await this.#c.options.throttle.pace(0, this.#c.options.signal);
    const source = this.#c.deps.sources()[0];
    if (source === undefined)
      throw new Error(`No replica is in sync that "${this.#c.target.name}" could be filled from`);
    try {
      await this.#workOn(node, source);
      await this.#names.emptyTrash();
      this.#retries.delete(node);
      this.#c.lastProgressMs = performance.now();
    } catch (error) {
      await this.#recover(node, source, error);
    }
  }

  async #workOn(node: DirtyNode, source: number): Promise<void> {
    const path = node.path();
    if (path[0] === CONTROL_DIRECTORY && path[1] !== ORPHANS) {
      this.#stayOutOf(node, path);
      return;
    }
    if ((node.flags & ENTRY) !== 0) await this.#names.repair(node, path, source);
    else if ((node.flags & (TREE | SCAN)) !== 0) await this.#walk.step(node, path, source);
    else if (node.ranges !== null) await this.#objects.data(node, path, source);
    else await this.#objects.attributes(node, path, source);
  }

  /** Of the control directory only the orphans belong to the volume. */
  #stayOutOf(node: DirtyNode, path: Path): void {
    if (path.length > 1) {
      this.#c.set.clearAll(node);
      return;
    }
    if ((node.flags & (TREE | SCAN)) !== 0) {
      this.#c.set.setCursor(node, "");
      this.#c.set.found(node, ORPHANS, TREE);
    }
    this.#c.set.clearFlags(node, ENTRY | ATTRIBUTES | TREE | SCAN);
  }

  /** What became of a step that failed: tried again, with another source, or given up. */
  async #recover(node: DirtyNode, source: number, error: unknown): Promise<void> {
    const retry = this.#retries.get(node) ?? { count: 0, sinceMs: performance.now() };
    retry.count++;
    this.#retries.set(node, retry);
    const isLast = retry.count >= minRetries && performance.now() - retry.sinceMs > retryMs;
    if (!(error instanceof Moved)) {
      if (!(error instanceof ReplicaCallError)) throw error;
      if (error.replica === this.#c.target) {
        // Something is not there that should be: the replica is not what it was taken for.
        const isGone = error.errno === -ENOENT || error.errno === -ENOTDIR || error.errno === -ESTALE;
        if (!isGone || retry.count > 3) throw error;
        await this.#doubt(node);
      } else if (classify(error.errno) === "fault" && error.errno !== -ESTALE) {
        this.#c.deps.onSourceFailed(source, error.errno);
        if (this.#c.deps.sources()[0] === source) throw error;
      }
    }
    // It is on the move: a rename is told when it has ended. Or a mark was wrong about where it is.
    if (isLast) throw error;
    const isStill = this.#c.options.isStill === true;
    if (isStill || retry.count % doubtAfter === 0) await this.#doubtSource(node, source);
    if (isStill && retry.count < doubtAfter) return;
    await sleep(Math.min(retry.count, 100), undefined, { signal: this.#c.options.signal });
  }

  /** The same for the source, where a directory that holds what is marked is gone. */
  async #doubtSource(node: DirtyNode, source: number): Promise<void> {
    const path = node.path();
    for (let length = 1; length < path.length; length++) {
      const part = path.slice(0, length);
      const object = this.#c.pin(part);
      const attr = await attributesOf({ replica: this.#c.deps.replica(source), object });
      this.#c.deps.tree.unpin(object);
      if (attr !== null && isDirectory(attr.mode)) continue;
      this.#c.set.entry(part.slice(0, -1), part[length - 1] as ByteString);
      this.#c.set.tree(part, true);
      return;
    }
  }

  /** Marks the topmost name on the way to a node that the target does not have. */
  async #doubt(node: DirtyNode): Promise<void> {
    const path = node.path();
    for (let length = 1; length <= path.length; length++) {
      const part = path.slice(0, length);
      const place = this.#c.set.placeOf(part);
      if (place === null) return;
      if ((await attributesOf(this.#c.copy(place))) !== null) continue;
      this.#c.set.entry(part.slice(0, -1), part[length - 1] as ByteString);
      this.#c.set.tree(part);
      return;
    }
  }

  /** True if there is something to do again. */
  async findLinks(): Promise<boolean> {
    const source = this.#c.deps.sources()[0];
    const { links } = this.#c;
    const unmet = new Set(links.unmet);
    const suspects = new Set(links.suspects.keys());
    if (unmet.size + suspects.size === 0) return false;
    // Names that come and go meanwhile are marked by the changes themselves, so this need not go on for ever.
    if (source !== undefined && this.#linkRounds++ < maxLinkRounds) {
      if (unmet.size > 0)
        await this.#markNames({ replica: this.#c.deps.replica(source), object: rootObject }, [], unmet);
      if (suspects.size > 0) await this.#markNames(this.#c.copy(this.#c.set.target), [], suspects);
    }
    links.clear();
    links.suspects.clear();
    return !this.#c.set.isEmpty;
  }

  /** Marks every name of these inodes that one replica has. */
  async #markNames(directory: Copy, path: Path, inos: ReadonlySet<number>): Promise<void> {
    const { names, types, inos: numbers } = await listOf(directory);
    await this.#c.options.throttle.pace(0, this.#c.options.signal);
    for (const [i, name] of names.entries()) {
      if (path.length === 1 && path[0] === CONTROL_DIRECTORY && name !== ORPHANS) continue;
      if (inos.has(numbers[i] as number) && !isDirectory(types[i] as number)) {
        this.#c.set.entry(path, name);
        this.#c.set.tree([...path, name]);
      } else if (isDirectory(types[i] as number) || types[i] === 0) {
        const object = { parent: directory.object, name };
        await this.#markNames({ ...directory, object }, [...path, name], inos);
        directory.replica.forget(object);
      }
    }
  }
}
