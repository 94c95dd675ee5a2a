/**
 * While a snapshot is being made: files that it only refers to, by a hard link, and has no copy of yet. A change to one of
 * them waits until it has been copied. They go by the inode number on the replica that led when the snapshot's
 * moment was fixed; the link keeps the number from being given to another file.
 */
import type { Replica, TreeObject } from "../replica/replica.ts";
import type { TreeNode } from "../replication/tree.ts";
import { FileAttr, S_IFDIR } from "../util/file-attr.ts";
import { type Eventual, start, wait } from "../util/op.ts";

export interface BeforeImagesDeps {
  /** The replica whose inode numbers are the keys. */
  readonly leader: Replica;
  /** What a file goes by, from its inode number there. */
  readonly keyOf: (ino: number) => number;
  /** Makes the snapshot's own copy of a file, under all the names that it has there. */
  readonly copy: (names: readonly TreeObject[]) => Promise<void>;
  /** The snapshot cannot be kept apart from changes any more. */
  readonly onFailed: (error: unknown) => void;
}

export class BeforeImages {
  readonly #deps: BeforeImagesDeps;
  readonly #pending = new Map<number, TreeObject[]>();
  readonly #copying = new Map<number, Promise<void>>();
  /** Nodes of which it is known that nothing has to be copied before they change. */
  readonly #free = new WeakSet<TreeNode>();

  constructor(deps: BeforeImagesDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#pending.size;
  }

  add(ino: number, name: TreeObject): void {
    const key = this.#deps.keyOf(ino);
    const names = this.#pending.get(key);
    if (names === undefined) this.#pending.set(key, [name]);
    else names.push(name);
  }

  /** How many of a file's links are the snapshot's: they are not shown to applications. */
  links(key: number): number {
    return this.#pending.get(key)?.length ?? 0;
  }

  /** Before a change to this object: 0, now or when the change may go on. */
  before(node: TreeNode): Eventual<number> {
    if (node.type === S_IFDIR || this.#free.has(node)) return 0;
    return start(this.#before(node));
  }

  *#before(node: TreeNode) {
    const attr = new FileAttr();
    const looked = yield* wait(this.#deps.leader.getattr(node, attr));
    if (looked < 0) this.#deps.onFailed(new Error(`a file that changes cannot be looked at (${looked})`));
    else {
      const key = this.#deps.keyOf(attr.ino);
      if (this.#pending.has(key)) yield this.copy(key);
    }
    this.#free.add(node);
    return 0;
  }

  /** Never rejects: what fails ends the snapshot, not the change. */
  copy(key: number): Promise<void> {
    const under = this.#copying.get(key);
    if (under !== undefined) return under;
    const copying = this.#deps
      .copy(this.#pending.get(key) ?? [])
      .catch((error: unknown) => this.#deps.onFailed(error))
      .finally(() => {
        this.#pending.delete(key);
        this.#copying.delete(key);
      });
    this.#copying.set(key, copying);
    return copying;
  }

  /** Copies everything that is left. */
  async copyAll(width: number, signal: AbortSignal): Promise<void> {
    const keys = this.#pending.keys();
    const work = async (): Promise<void> => {
      for (const key of keys) {
        signal.throwIfAborted();
        await this.copy(key);
      }
    };
    await Promise.all(Array.from({ length: width }, work));
  }
}
