/**
 * The nodes that the kernel knows, by their ids, and the files and directories that it has open. All of it is in the
 * state log as well, from which the next process restores it.
 *
 * - Ids are never used twice in the life of a mount. 1 is the root; 2 and 3 are ours and never shown.
 * - A file with several names is one node, as it is one inode in the kernel: found by its inode number.
 */

import { replicaOfIno } from "../replication/inode-numbers.ts";
import type { OpenFile } from "../replication/open-file.ts";
import { Orphans } from "../replication/orphans.ts";
import { Tree, TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { type FileAttr, isDirectory, S_IFDIR, S_IFMT } from "../util/file-attr.ts";
import type { DirectoryListing } from "./directory-listing.ts";
import { NodeIndex } from "./node-index.ts";
import {
  FLAG_LINKED,
  FLAG_TIMES,
  RECORD_ALIAS,
  RECORD_DIRECTORY_HANDLE,
  RECORD_FILE_HANDLE,
  RECORD_NODE,
  type StateLog,
  StateLogError,
  type StateRecord,
} from "./state-log.ts";

const ROOT_ID = 1;
const ORPHANS_ID = 2;
const CONTROL_ID = 3;
const FIRST_ID = 16;
const NOWHERE = -1;

export interface FileHandleEntry {
  readonly file: OpenFile;
  readonly flags: number;
  record: number;
}

export interface DirectoryHandleEntry {
  readonly node: TreeNode;
  listing: DirectoryListing | null;
  record: number;
}

export interface NodeTableHooks {
  /** A node is dropped: replicas may forget it. */
  readonly onDrop: (node: TreeNode) => void;
}

export class NodeTable {
  readonly tree: Tree;
  readonly orphans: Orphans;
  /** How many links of a file, by its (tagged) inode number, are ours; while a snapshot is made. */
  hiddenLinks: ((ino: number) => number) | null = null;
  readonly files = new Map<number, FileHandleEntry>();
  readonly directories = new Map<number, DirectoryHandleEntry>();
  readonly #log: StateLog;
  readonly #nodes = new NodeIndex<TreeNode>();
  /** Files with several names, by the inode numbers under which leaders have shown them. */
  readonly #linked = new Map<number, TreeNode>();
  readonly #linkedInos = new Map<TreeNode, readonly number[]>();
  readonly #aliasRecords = new Map<TreeNode, number[]>();
  readonly #hooks: NodeTableHooks;

  constructor(log: StateLog, hooks: NodeTableHooks) {
    this.#log = log;
    this.#hooks = hooks;
    this.tree = new Tree({ onDrop: (node) => this.#dropped(node), onMove: (node) => this.#moved(node) });
    this.orphans = new Orphans(this.tree);
    this.tree.root.id = ROOT_ID;
    this.tree.root.type = S_IFDIR;
    this.orphans.directory.id = ORPHANS_ID;
    this.orphans.directory.type = S_IFDIR;
    this.orphans.control.id = CONTROL_ID;
    this.orphans.control.type = S_IFDIR;
    this.#nodes.set(ROOT_ID, this.tree.root);
    this.#nodes.set(ORPHANS_ID, this.orphans.directory);
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** For the kernel's requests: never one of our own. */
  get(id: number): TreeNode | undefined {
    return id === ORPHANS_ID ? undefined : this.#nodes.get(id);
  }

  /** How deep the directory of this name lies, 1 in the root; null for what is known to be no directory. */
  directoryDepth(parent: number, name: ByteString): number | null {
    const directory = this.get(parent);
    const node = directory === undefined ? undefined : this.tree.get(directory, name);
    if (node !== undefined && node.type !== 0 && node.type !== S_IFDIR) return null;
    let depth = 1;
    for (let at = directory; at !== undefined && at.parent !== null; at = at.parent) depth++;
    return depth;
  }

  /** The node of a name that was looked up or made, with one lookup more. Fills the inode number into `attr`. */
  enter(directory: TreeNode, name: ByteString, attr: FileAttr): TreeNode {
    const severalNames = attr.nlink > 1 && !isDirectory(attr.mode);
    // First by what it is: a worker may have made another node for this name of it.
    let node = severalNames ? this.#linked.get(attr.ino) : undefined;
    const there = this.tree.get(directory, name);
    if (node === undefined) node = there;
    else if (node !== there) this.tree.link(node, directory, name);
    if (node === undefined) node = this.tree.pin(directory, name);
    else node.pins++;
    if (severalNames) this.alsoKnownAs(node, attr.ino);
    this.#identify(node, attr);
    this.#remember(node);
    this.#log.setValue(node.record, this.#log.value(node.record) + 1);
    return node;
  }

  /** Attributes as applications see them: the inode number that the node always had, and no orphan's link. */
  show(node: TreeNode, attr: FileAttr): void {
    if (this.hiddenLinks !== null) attr.nlink -= this.hiddenLinks(attr.ino);
    this.#identify(node, attr);
    attr.nlink -= node.orphanLinks;
    if (node.id === ROOT_ID && attr.nlink > 2) attr.nlink--; // `.chiron` is not shown
  }

  #identify(node: TreeNode, attr: FileAttr): void {
    if (node.ino === 0) node.ino = attr.ino;
    else attr.ino = node.ino;
    if (node.type === 0) node.type = attr.mode & S_IFMT;
  }

  /** The kernel forgets `lookups` of a node. */
  forget(id: number, lookups: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined || id < FIRST_ID) return;
    const left = this.#log.value(node.record) - lookups;
    this.#log.setValue(node.record, Math.max(0, left));
    this.tree.unpin(node, left < 0 ? lookups + left : lookups);
  }

  /** The node of a file with several names, by an inode number that it has on a leader (tagged). */
  linked(ino: number): TreeNode | undefined {
    return this.#linked.get(ino);
  }

  /** A new leader numbers its files otherwise: files with several names are to be found under those numbers too. */
  linkedNodes(): TreeNode[] {
    return [...this.#linkedInos.keys()];
  }
  alsoKnownAs(node: TreeNode, ino: number): void {
    if (this.#linked.get(ino) === node) return;
    this.#linked.set(ino, node);
    this.#linkedInos.set(node, [...(this.#linkedInos.get(node) ?? []), ino]);
    if (node.record !== 0) this.#log.setFlag(node.record, FLAG_LINKED, true);
  }

  /** A replica has left or is back: what was made anew there has other numbers, and old numbers mean other files. */
  forgetNumbers(replica: number): void {
    for (const [ino, node] of this.#linked) {
      if (replicaOfIno(ino) !== replica) continue;
      this.#linked.delete(ino);
      this.#linkedInos.set(node, this.#linkedInos.get(node)?.filter((other) => other !== ino) ?? []);
    }
  }

  /** Its inode number may be another file's from now on. */
  #forgetLinks(node: TreeNode): void {
    for (const ino of this.#linkedInos.get(node) ?? []) if (this.#linked.get(ino) === node) this.#linked.delete(ino);
    this.#linkedInos.delete(node);
  }

  noteTimes(node: TreeNode, noted: boolean): void {
    if (noted) this.#remember(node);
    if (node.record !== 0) this.#log.setFlag(node.record, FLAG_TIMES, noted);
  }

  openFile(file: OpenFile, flags: number): number {
    this.#remember(file.node);
    file.node.pins++;
    const id = this.#log.nextId(FIRST_ID);
    const record = this.#append(RECORD_FILE_HANDLE, id, file.node.id, flags, 0, 0, 0, "");
    this.files.set(id, { file, flags, record });
    return id;
  }

  closeFile(id: number, entry: FileHandleEntry): void {
    this.files.delete(id);
    this.#log.kill(entry.record);
    this.tree.unpin(entry.file.node);
  }

  openDirectory(node: TreeNode): number {
    this.#remember(node);
    node.pins++;
    const id = this.#log.nextId(FIRST_ID);
    const record = this.#append(RECORD_DIRECTORY_HANDLE, id, node.id, 0, 0, 0, 0, "");
    this.directories.set(id, { node, listing: null, record });
    return id;
  }

  closeDirectory(id: number): void {
    const entry = this.directories.get(id);
    if (entry === undefined) return;
    this.directories.delete(id);
    this.#log.kill(entry.record);
    this.tree.unpin(entry.node);
  }

  /** Gives a node an id and a record, and so everything above it, if they have none. */
  #remember(node: TreeNode): void {
    if (node.record !== 0 || (node.id !== 0 && node.id < FIRST_ID)) return;
    if (node.parent !== null) this.#remember(node.parent);
    if (node.id === 0) {
      node.id = this.#log.nextId(FIRST_ID);
      this.#nodes.set(node.id, node);
    }
    this.#write(node, 0, 0);
  }

  /** A node for a file without a name, pinned once, in its place among the orphans. */
  newOrphan(): TreeNode {
    const id = this.#log.nextId(FIRST_ID);
    const node = this.tree.pin(this.orphans.directory, String(id));
    node.id = id;
    this.#nodes.set(id, node);
    this.#write(node, 0, 0);
    return node;
  }

  #write(node: TreeNode, lookups: number, flags: number): void {
    const parent = node.detached ? NOWHERE : (node.parent?.id ?? NOWHERE);
    node.record = this.#append(RECORD_NODE, node.id, parent, lookups, node.ino, node.type, node.orphanLinks, node.name);
    const linked = this.#linkedInos.has(node) ? FLAG_LINKED : 0;
    if ((flags | linked) !== 0) this.#log.setFlag(node.record, flags | linked, true);
    if (node.aliases === null) return;
    const records = node.aliases.map((place) => {
      this.#remember(place.parent);
      return this.#append(RECORD_ALIAS, node.id, place.parent.id, 0, 0, 0, 0, place.name);
    });
    this.#aliasRecords.set(node, records);
  }

  #append(
    kind: number,
    id: number,
    parent: number,
    value: number,
    ino: number,
    type: number,
    orphanLinks: number,
    name: ByteString,
  ): number {
    let offset = this.#log.append(kind, id, parent, value, ino, type, orphanLinks, name);
    if (offset < 0) {
      this.#compact();
      offset = this.#log.append(kind, id, parent, value, ino, type, orphanLinks, name);
    }
    return offset;
  }

  /** The place of a node has changed, or its orphan links: new records, written before the old ones die. */
  #moved(node: TreeNode): void {
    if (node.detached) this.#forgetLinks(node);
    if (node.record === 0) return;
    const old = node.record;
    const oldAliases = this.#aliasRecords.get(node);
    this.#aliasRecords.delete(node);
    if (node.parent !== null) this.#remember(node.parent);
    this.#write(node, this.#log.value(old), this.#log.flags(old));
    this.#log.kill(old);
    for (const record of oldAliases ?? []) this.#log.kill(record);
    if (this.#log.wasteful) this.#compact();
  }

  /** After `orphanLinks` was changed. */
  refresh(node: TreeNode): void {
    this.#moved(node);
  }

  #dropped(node: TreeNode): void {
    if (node.record !== 0) this.#log.kill(node.record);
    for (const record of this.#aliasRecords.get(node) ?? []) this.#log.kill(record);
    this.#aliasRecords.delete(node);
    this.#nodes.delete(node.id);
    this.#forgetLinks(node);
    this.#hooks.onDrop(node);
    if (this.#log.wasteful) this.#compact();
  }

  #compact(): void {
    const aliases = new Map<number, { readonly records: number[]; readonly index: number }>();
    for (const records of this.#aliasRecords.values()) {
      for (const [index, offset] of records.entries()) aliases.set(offset, { records, index });
    }
    this.#log.compact((kind, id, from, to) => {
      if (kind === RECORD_NODE) {
        const node = this.#nodes.get(id);
        if (node !== undefined && node.record === from) node.record = to;
      } else if (kind === RECORD_ALIAS) {
        const place = aliases.get(from);
        if (place !== undefined) place.records[place.index] = to;
      } else {
        const entry = this.files.get(id) ?? this.directories.get(id);
        if (entry !== undefined) entry.record = to;
      }
    });
  }

  /** Rebuilds everything from an earlier process's log. `use` gives a node an open file (once for each handle). */
  restore(use: (node: TreeNode) => OpenFile): void {
    const records = new Map<number, StateRecord>();
    const aliases: StateRecord[] = [];
    const handles: StateRecord[] = [];
    for (const record of this.#log.records()) {
      if (record.kind === RECORD_NODE) {
        const twin = records.get(record.id); // killed between the new record and the end of the old one
        if (twin !== undefined) this.#log.kill(twin.offset);
        records.set(record.id, record);
      } else if (record.kind === RECORD_ALIAS) aliases.push(record);
      else handles.push(record);
    }
    for (const record of records.values()) this.#restoreNode(record, records);
    for (const alias of aliases) this.#restoreAlias(alias);
    for (const record of handles) {
      const node = this.#nodes.get(record.parent);
      if (node === undefined) this.#log.kill(record.offset);
      else {
        node.pins++;
        if (record.kind === RECORD_FILE_HANDLE) {
          this.files.set(record.id, { file: use(node), flags: record.value, record: record.offset });
        } else this.directories.set(record.id, { node, listing: null, record: record.offset });
      }
    }
  }

  #restoreNode(record: StateRecord, records: ReadonlyMap<number, StateRecord>): TreeNode {
    const there = this.#nodes.get(record.id);
    if (there !== undefined) return there;
    let parent = this.tree.root;
    if (record.parent === ORPHANS_ID) parent = this.orphans.directory;
    else if (record.parent > ROOT_ID) {
      const above = records.get(record.parent);
      if (above === undefined) {
        throw new StateLogError(
          `The state log is damaged: node ${record.id} lies in ${record.parent}, which is not there`,
        );
      }
      parent = this.#restoreNode(above, records);
    }
    let node: TreeNode;
    if (record.parent === NOWHERE) {
      node = new TreeNode(parent, record.name);
      node.detached = true;
      parent.pins++;
    } else {
      node = this.tree.pin(parent, record.name);
      node.pins--;
    }
    node.id = record.id;
    node.ino = record.ino;
    node.type = record.type;
    node.orphanLinks = record.orphanLinks;
    node.record = record.offset;
    node.pins += record.value;
    this.#nodes.set(node.id, node);
    if ((record.flags & FLAG_LINKED) !== 0) this.#linkedInos.set(node, []); // `leaderChanged` finds its number
    return node;
  }

  #restoreAlias(alias: StateRecord): void {
    const node = this.#nodes.get(alias.id);
    const parent = this.#nodes.get(alias.parent);
    if (
      node === undefined ||
      parent === undefined ||
      node.detached ||
      this.tree.get(parent, alias.name) !== undefined
    ) {
      this.#log.kill(alias.offset); // of a record that was being replaced
      return;
    }
    const record = node.record;
    node.record = 0; // no new records for what is on record
    this.tree.link(node, parent, alias.name);
    node.record = record;
    const list = this.#aliasRecords.get(node);
    if (list === undefined) this.#aliasRecords.set(node, [alias.offset]);
    else list.push(alias.offset);
    if (!this.#linkedInos.has(node)) this.#linkedInos.set(node, []);
  }

  /** Nodes whose times an earlier process had still to make equal. */
  *notedNodes(): Generator<TreeNode> {
    for (const node of this.#nodes.values()) {
      if (node.record !== 0 && (this.#log.flags(node.record) & FLAG_TIMES) !== 0) yield node;
    }
  }

  /** After a restore: nodes that nothing holds (a crash in the middle of a forget). */
  sweep(): void {
    for (const node of [...this.#nodes.values()]) {
      if (node.id >= FIRST_ID && node.pins === 0) {
        node.pins = 1;
        this.tree.unpin(node);
      }
    }
  }
}
