/**
 * The part of the tree that somebody is interested in: what the kernel has looked up, what is open, what a resync works
 * on. A node is identified by the JavaScript object; renames move it, so everyone who holds it follows.
 *
 * - A node stays while it is pinned (`pins`): each lookup of the kernel, each open file, each worker and each child
 *   node in the tree holds one pin. The last `unpin` drops it, and tells `onDrop`.
 * - `parent` and `name` are one way from the root to it; a file with several names has the others in `aliases`.
 * - A node whose last known name is gone is `detached` (its parent is the root then): it has no place, and path-based calls on it cannot work. Open files
 *   are therefore moved to the orphan directory instead of being removed (see `orphans.ts`).
 */
import type { TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import type { OpenFile } from "./open-file.ts";

export class TreeNode implements TreeObject {
  parent: TreeNode | null;
  name: ByteString;
  children: Map<ByteString, TreeNode> | null = null;
  aliases: Place[] | null = null;
  pins = 0;
  /** The owner's number for it: the volume's node id, 0 until it has one. */
  id = 0;
  /** The inode number that applications see; 0 until known. */
  ino = 0;
  /** The intent generation in which its entries, attributes and new children are covered, and the one for its data. */
  coveredIn = 0;
  dataCoveredIn = 0;
  /** Type bits of the mode, 0 until known. */
  type = 0;
  detached = false;
  /** Names that the replicas have for it in the orphan directory, which applications must not count (`st_nlink`). */
  orphanLinks = 0;
  /** The owner's record of it (the volume's state log). */
  record = 0;
  /** Set while the file is open; the descriptors belong to the file, not to each handle. */
  open: OpenFile | null = null;

  constructor(parent: TreeNode | null, name: ByteString) {
    this.parent = parent;
    this.name = name;
  }
}

export interface Place {
  readonly parent: TreeNode;
  readonly name: ByteString;
}

export interface TreeHooks {
  /** The node was dropped; it still knows its parent and name. */
  onDrop(node: TreeNode): void;
  /** Its place, or one of its places, has changed, or it has none any more. */
  onMove(node: TreeNode): void;
}

export class Tree {
  readonly root = new TreeNode(null, "");
  readonly #hooks: TreeHooks;

  constructor(hooks: TreeHooks) {
    this.root.pins = 1;
    this.#hooks = hooks;
  }

  get(directory: TreeNode, name: ByteString): TreeNode | undefined {
    return directory.children?.get(name);
  }

  /** The node of this name with one pin more; made if there is none yet. */
  pin(directory: TreeNode, name: ByteString): TreeNode {
    let node = directory.children?.get(name);
    if (node === undefined) {
      node = new TreeNode(null, name);
      this.#attach(node, directory, name);
    }
    node.pins++;
    return node;
  }

  /** Gives pins back; a node without pins is dropped, and so, upwards, are directories that only it kept. */
  unpin(node: TreeNode, count = 1): void {
    node.pins -= count;
    if (node.pins > 0 || node.parent === null) return;
    if (node.pins < 0) throw new Error(`Tree node "${node.name}" has ${node.pins} pins`);
    const { parent, aliases } = node;
    this.#unhook(parent, node.name, node);
    node.aliases = null;
    this.#hooks.onDrop(node);
    this.unpin(parent);
    if (aliases !== null) {
      for (const place of aliases) {
        this.#unhook(place.parent, place.name, node);
        this.unpin(place.parent);
      }
    }
  }

  /** Another name of a node that is in the tree. */
  link(node: TreeNode, directory: TreeNode, name: ByteString): void {
    const there = directory.children?.get(name);
    if (there === node) return;
    if (there !== undefined) this.remove(directory, name);
    if (node.detached) {
      const old = node.parent as TreeNode;
      node.detached = false;
      this.#attach(node, directory, name);
      this.unpin(old);
    } else {
      directory.pins++;
      directory.children ??= new Map();
      directory.children.set(name, node);
      node.aliases ??= [];
      node.aliases.push({ parent: directory, name });
    }
    this.#hooks.onMove(node);
  }

  /** The name is gone. The node, if the tree has one, goes on with another name, or is detached. */
  remove(directory: TreeNode, name: ByteString): TreeNode | undefined {
    const node = directory.children?.get(name);
    if (node === undefined) return undefined;
    this.#unhook(directory, name, node);
    const aliases = node.aliases;
    if (node.parent === directory && node.name === name) {
      const next = aliases?.pop();
      if (next === undefined) {
        node.detached = true;
        node.parent = this.root; // it has no place; its former directory need not stay for it
        this.root.pins++;
        this.#hooks.onMove(node);
        this.unpin(directory);
        return node;
      }
      node.parent = next.parent;
      node.name = next.name;
    } else {
      aliases?.splice(
        aliases.findIndex((place) => place.parent === directory && place.name === name),
        1,
      );
    }
    if (aliases?.length === 0) node.aliases = null;
    this.#hooks.onMove(node);
    this.unpin(directory);
    return node;
  }

  /** A rename that has happened. What was at the new place is gone (the caller has seen to its open files). */
  rename(from: TreeNode, fromName: ByteString, to: TreeNode, toName: ByteString): void {
    if (from === to && fromName === toName) return;
    const node = from.children?.get(fromName);
    const target = to.children?.get(toName);
    if (node !== undefined && node === target) return; // two names of one file: rename(2) does nothing
    if (target !== undefined) this.remove(to, toName);
    if (node === undefined) return;
    this.#unhook(from, fromName, node);
    this.#move(node, from, fromName, to, toName);
    this.unpin(from);
  }

  /** A RENAME_EXCHANGE that has happened. */
  exchange(from: TreeNode, fromName: ByteString, to: TreeNode, toName: ByteString): void {
    const a = from.children?.get(fromName);
    const b = to.children?.get(toName);
    if (a === b) return;
    if (a !== undefined) this.#unhook(from, fromName, a);
    if (b !== undefined) this.#unhook(to, toName, b);
    if (a !== undefined) this.#move(a, from, fromName, to, toName);
    if (b !== undefined) this.#move(b, to, toName, from, fromName);
    if (a !== undefined) this.unpin(from);
    if (b !== undefined) this.unpin(to);
  }

  #move(node: TreeNode, from: TreeNode, fromName: ByteString, to: TreeNode, toName: ByteString): void {
    to.pins++;
    to.children ??= new Map();
    to.children.set(toName, node);
    if (node.parent === from && node.name === fromName) {
      node.parent = to;
      node.name = toName;
    } else {
      const index = node.aliases?.findIndex((place) => place.parent === from && place.name === fromName) ?? -1;
      node.aliases?.splice(index, 1, { parent: to, name: toName });
    }
    this.#hooks.onMove(node);
  }

  #attach(node: TreeNode, directory: TreeNode, name: ByteString): void {
    directory.pins++;
    directory.children ??= new Map();
    directory.children.set(name, node);
    node.parent = directory;
    node.name = name;
  }

  #unhook(directory: TreeNode, name: ByteString, node: TreeNode): void {
    const children = directory.children;
    if (children?.get(name) !== node) return;
    children.delete(name);
    if (children.size === 0) directory.children = null;
  }
}
