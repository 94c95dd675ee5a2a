/**
 * Hard links while a replica is brought up to date: which inode of the source is which on the target, as far as names
 * of both have been met, and inodes on the target of which a stale name may be left somewhere.
 */
import { type FileAttr, isDirectory } from "../util/file-attr.ts";
import type { TreeNode } from "./tree.ts";

interface Known {
  readonly node: TreeNode;
  targetIno: number;
  readonly met: Set<string>;
  /** Of the source, when the first name was met. */
  readonly ctime: number;
  readonly ctimeNsec: number;
  readonly metAtMs: number;
}

/** A change in the same tick of a file system's clock could not be seen. */
const settledAfterMs = 15_000;

export class LinkTable {
  readonly #bySource = new Map<number, Known>();
  /** Kept when all names were met: another file of the source must not be written to the same inode. */
  readonly #byTarget = new Map<number, number>();
  /** Inodes of the target that were changed or lost a name, with how many are left: those may be stale. */
  readonly suspects: Map<number, number>;
  readonly #release: (node: TreeNode) => void;

  /** `release` gives back the pin of a node that the table holds; `suspects` outlives the table. */
  constructor(release: (node: TreeNode) => void, suspects: Map<number, number>) {
    this.#release = release;
    this.suspects = suspects;
  }

  /** A name of the source's inode under which the target already has the file. */
  find(sourceIno: number): { readonly node: TreeNode; readonly targetIno: number } | null {
    return this.#bySource.get(sourceIno) ?? null;
  }

  /** Has the source's file been the same since its first name was met? Its contents were looked at after that. */
  isUnchanged(source: FileAttr): boolean {
    const known = this.#bySource.get(source.ino);
    if (known === undefined || known.ctime !== source.ctime || known.ctimeNsec !== source.ctimeNsec) return false;
    return known.metAtMs - known.ctime * 1000 > settledAfterMs;
  }

  /** Does the target's inode stand for another one of the source? */
  isTaken(targetIno: number, sourceIno: number): boolean {
    const owner = this.#byTarget.get(targetIno);
    return owner !== undefined && owner !== sourceIno;
  }

  /** Both have this name for it. Takes over one pin of the node. */
  met(node: TreeNode, path: string, source: FileAttr, targetIno: number): void {
    let known = this.#bySource.get(source.ino);
    if (known === undefined) {
      const { ctime, ctimeNsec } = source;
      known = { node, targetIno, met: new Set(), ctime, ctimeNsec, metAtMs: Date.now() };
      this.#bySource.set(source.ino, known);
      this.#byTarget.set(targetIno, source.ino);
    } else this.#release(node);
    known.met.add(path);
    if (known.met.size >= source.nlink) this.forget(source.ino);
  }

  forget(sourceIno: number): void {
    const known = this.#bySource.get(sourceIno);
    if (known === undefined) return;
    this.#bySource.delete(sourceIno);
    this.#release(known.node);
  }

  /** One of several names of a target's inode is removed, or its contents are changed without knowing the others. */
  suspect(attr: FileAttr, removed: boolean): void {
    if (isDirectory(attr.mode) || attr.nlink < 2) return;
    const left = (this.suspects.get(attr.ino) ?? attr.nlink) - (removed ? 1 : 0);
    if (left > 0) this.suspects.set(attr.ino, left);
    else this.suspects.delete(attr.ino);
  }

  /** Source inodes of which not all names have been met. */
  get unmet(): ReadonlySet<number> {
    return new Set(this.#bySource.keys());
  }

  /** The name under which each of these was met first. */
  get unmetNodes(): readonly TreeNode[] {
    return [...this.#bySource.values()].map(({ node }) => node);
  }

  clear(): void {
    for (const ino of [...this.#bySource.keys()]) this.forget(ino);
    this.#byTarget.clear();
  }
}
