/**
 * A disk in memory with a journaling file system on it, that can lose power at any moment.
 *
 * It keeps what happened since the last `sync`, as metadata operations and as written pages. `crash` makes the state that
 * a power cut may leave (ext4, data=ordered, delayed allocation):
 *
 * - a prefix of the metadata operations: at least those that an fsync, fsyncdir or sync waited for;
 * - of each page that was written since its file was fsynced, any version, or none;
 * - the size that an append gives a file is a metadata operation of its own, which reaches the journal when the data are
 *   written back: at any time, so it is not in the prefix's order, but never before its data;
 * - pages whose place on disk was made by a metadata operation (the file's creation, a truncate before it was written
 *   again, fallocate) are only there if that operation is.
 *
 * `crash` changes nothing: many states can be drawn from one moment.
 */
import type { ByteString } from "../../util/byte-string.ts";
import { S_IFDIR } from "../../util/file-attr.ts";
import type { TimeSpec } from "../replica.ts";
import { Image, Inode, pageBytes, rootIno } from "./memory-image.ts";
import type { Choose } from "./random.ts";

type Change = (image: Image) => void;

interface MetaRecord {
  readonly kind: "meta";
  /** Its place among the metadata operations, from 1. */
  readonly index: number;
  readonly change: Change;
}
interface PageRecord {
  readonly kind: "page";
  readonly seq: number;
  readonly ino: number;
  readonly page: number;
  readonly content: Uint8Array;
  /** The metadata operation that made its place on disk; 0 if that is older than the last sync. */
  readonly needs: number;
}
interface SizeRecord {
  readonly kind: "size";
  readonly seq: number;
  readonly ino: number;
  readonly size: number;
  readonly needs: number;
  /** What must be on disk before it. */
  readonly pages: readonly PageRecord[];
}
type LogRecord = MetaRecord | PageRecord | SizeRecord;

/** What is known of an inode's changes since the last sync. */
interface InodeLog {
  lastMeta: number;
  lastMetaBesideTimes: number;
  /** The last operation that freed or made room: creation, truncate, punch, fallocate. */
  lastStructural: number;
  /** What was logged up to here has been fsynced. */
  syncedSeq: number;
  /** For each page, the operation that its place on disk needs. */
  readonly pageNeeds: Map<number, number>;
}

export interface MemoryDiskOptions {
  readonly capacityBytes?: number;
  /** When its clock begins; it goes on by a microsecond at each change, so no two changes have the same ctime. */
  readonly startSeconds?: number;
}

export class MemoryDisk {
  readonly capacityPages: number;
  #live: Image;
  #base: Image;
  #log: LogRecord[] = [];
  #inodeLogs = new Map<number, InodeLog>();
  #seq = 0;
  #metaCount = 0;
  #minPrefix = 0;
  #nextIno: number;
  #nowUsec: number;
  #usedPages = 0;
  readonly #opened = new Map<number, number>();
  readonly #options: MemoryDiskOptions;

  constructor(options: MemoryDiskOptions = {}) {
    this.#options = options;
    this.capacityPages = Math.floor((options.capacityBytes ?? 2 ** 40) / pageBytes);
    this.#nowUsec = (options.startSeconds ?? 1_700_000_000) * 1e6;
    this.#live = new Image();
    this.#live.inodes.set(rootIno, new Inode(rootIno, S_IFDIR | 0o755, 0, 0, this.now()));
    this.#base = this.#live.clone();
    this.#nextIno = rootIno + 1;
  }

  /** The tree as a running system sees it. To be read; changes go through the methods below. */
  get image(): Image {
    return this.#live;
  }

  get usedPages(): number {
    return this.#usedPages;
  }

  /** Later than ever before. */
  now(): TimeSpec {
    this.#nowUsec++;
    const seconds = Math.floor(this.#nowUsec / 1e6);
    return { seconds, nsec: (this.#nowUsec - seconds * 1e6) * 1000 };
  }

  newIno(): number {
    return this.#nextIno++;
  }

  /** A metadata operation that concerns these inodes. */
  change(inos: readonly number[], change: Change, kind: "structural" | "times" | "other" = "other"): void {
    const index = ++this.#metaCount;
    this.#log.push({ kind: "meta", index, change });
    for (const ino of inos) {
      const log = this.#inodeLog(ino);
      log.lastMeta = index;
      if (kind !== "times") log.lastMetaBesideTimes = index;
      if (kind === "structural") log.lastStructural = index;
    }
    const pagesBefore = this.#pagesOf(inos);
    change(this.#live);
    this.#usedPages += this.#pagesOf(inos) - pagesBefore;
    if (kind === "structural") for (const ino of inos) this.#settlePages(ino);
    for (const ino of inos) this.#dropIfGone(ino);
  }

  /** Writes bytes to a file, page by page, as far as there is room; answers how many. */
  write(ino: number, data: Uint8Array, position: number): number {
    const inode = this.#live.get(ino);
    if (inode === undefined || data.length === 0) return 0;
    const log = this.#inodeLog(ino);
    const pages: PageRecord[] = [];
    let done = 0;
    while (done < data.length) {
      const page = Math.floor((position + done) / pageBytes);
      const at = position + done - page * pageBytes;
      const part = data.subarray(done, done + pageBytes - at);
      const fresh = !inode.pages.has(page);
      if (fresh && this.#usedPages >= this.capacityPages) break;
      const content = inode.page(page)?.slice() ?? new Uint8Array(pageBytes);
      content.set(part, at);
      const needs = fresh ? log.lastStructural : (log.pageNeeds.get(page) ?? 0);
      if (fresh) {
        this.#usedPages++;
        if (needs > 0) log.pageNeeds.set(page, needs);
      }
      const record: PageRecord = { kind: "page", seq: ++this.#seq, ino, page, content, needs };
      this.#log.push(record);
      pages.push(record);
      this.#live.putPage(ino, page, content);
      done += part.length;
    }
    if (done === 0) return 0;
    const end = position + done;
    if (end > inode.size) {
      this.#log.push({ kind: "size", seq: ++this.#seq, ino, size: end, needs: log.lastStructural, pages });
      this.#live.growTo(ino, end);
    }
    const now = this.now();
    this.change([ino], (image) => image.touch(ino, now), "times");
    return done;
  }

  /** This file's data, and the metadata operations up to its last one, are on stable storage. */
  fsync(ino: number, dataOnly: boolean): void {
    const log = this.#inodeLogs.get(ino);
    if (log === undefined) return;
    this.#minPrefix = Math.max(this.#minPrefix, dataOnly ? log.lastMetaBesideTimes : log.lastMeta);
    log.syncedSeq = this.#seq;
  }

  /** Everything is on stable storage. */
  sync(): void {
    if (this.#log.length === 0) return;
    this.#base = this.#live.clone();
    this.#log = [];
    this.#inodeLogs.clear();
    this.#metaCount = this.#minPrefix = 0;
  }

  /** An inode without a name lives on while it is open. */
  opened(ino: number): void {
    this.#opened.set(ino, (this.#opened.get(ino) ?? 0) + 1);
  }

  closed(ino: number): void {
    const left = (this.#opened.get(ino) ?? 0) - 1;
    if (left > 0) {
      this.#opened.set(ino, left);
      return;
    }
    this.#opened.delete(ino);
    this.#dropIfGone(ino);
  }

  /** How many metadata operations and page writes a crash could lose now. */
  get atRisk(): number {
    let risk = this.#metaCount - this.#minPrefix;
    for (const record of this.#log) if (record.kind === "page" && !this.#isSynced(record)) risk++;
    return risk;
  }

  /**
   * The disk after a power cut. `choose` draws first how many metadata operations are left, then for each append
   * whether its size is, then for each page which version: the first alternative is always what loses most.
   */
  crash(choose: Choose): MemoryDisk {
    const prefix = this.#minPrefix + choose(this.#metaCount - this.#minPrefix + 1);
    const possible = (record: PageRecord | SizeRecord) => record.needs <= prefix;

    const versions = new Map<string, { list: PageRecord[]; least: number }>();
    const keyOf = (record: PageRecord) => `${record.ino} ${record.page} ${record.needs}`;
    for (const record of this.#log) {
      if (record.kind !== "page" || !possible(record)) continue;
      const key = keyOf(record);
      const entry = versions.get(key) ?? { list: [], least: -1 };
      versions.set(key, entry);
      entry.list.push(record);
      if (this.#isSynced(record)) entry.least = entry.list.length - 1;
    }
    const kept = new Set<LogRecord>();
    for (const record of this.#log) {
      if (record.kind !== "size" || !possible(record)) continue;
      if (!this.#isSynced(record) && choose(2) === 0) continue;
      kept.add(record);
      for (const page of record.pages) {
        const entry = versions.get(keyOf(page));
        if (entry !== undefined) entry.least = Math.max(entry.least, entry.list.indexOf(page));
      }
    }
    for (const { list, least } of versions.values()) {
      const version = list[least + choose(list.length - least)];
      if (version !== undefined) kept.add(version);
    }

    const image = this.#base.clone();
    for (const record of this.#log) {
      if (record.kind === "meta") {
        if (record.index <= prefix) record.change(image);
      } else if (kept.has(record)) {
        if (record.kind === "page") image.putPage(record.ino, record.page, record.content);
        else image.growTo(record.ino, record.size);
      }
    }
    image.recover();
    return this.#successor(image);
  }

  /** The same disk after a clean shutdown. */
  copy(): MemoryDisk {
    const image = this.#live.clone();
    image.recover();
    return this.#successor(image);
  }

  #successor(image: Image): MemoryDisk {
    const disk = new MemoryDisk(this.#options);
    disk.#live = image;
    disk.#base = image.clone();
    disk.#nextIno = this.#nextIno;
    disk.#nowUsec = this.#nowUsec + 1e6;
    for (const inode of image.inodes.values()) disk.#usedPages += inode.pages.size;
    return disk;
  }

  #isSynced(record: PageRecord | SizeRecord): boolean {
    return record.seq <= (this.#inodeLogs.get(record.ino)?.syncedSeq ?? 0);
  }

  #inodeLog(ino: number): InodeLog {
    let log = this.#inodeLogs.get(ino);
    if (log === undefined) {
      log = { lastMeta: 0, lastMetaBesideTimes: 0, lastStructural: 0, syncedSeq: 0, pageNeeds: new Map() };
      this.#inodeLogs.set(ino, log);
    }
    return log;
  }

  #pagesOf(inos: readonly number[]): number {
    let pages = 0;
    for (const ino of inos) pages += this.#live.get(ino)?.pages.size ?? 0;
    return pages;
  }

  /** Pages that the last operation freed have no place any more; those that it made need it. */
  #settlePages(ino: number): void {
    const pages = this.#live.get(ino)?.pages;
    const log = this.#inodeLog(ino);
    for (const page of log.pageNeeds.keys()) if (!pages?.has(page)) log.pageNeeds.delete(page);
    for (const [page, content] of pages ?? []) {
      if (content === null && !log.pageNeeds.has(page)) log.pageNeeds.set(page, log.lastStructural);
    }
  }

  #dropIfGone(ino: number): void {
    const inode = this.#live.get(ino);
    if (inode === undefined || inode.nlink > 0 || this.#opened.has(ino)) return;
    this.#usedPages -= inode.pages.size;
    this.#live.drop(ino);
  }
}

/** One line for each object, sorted by name, with everything but inode numbers and the times of access and change: two
 *  trees are alike if these are. `.chiron` in the root is left out. */
export function describeDisk(disk: MemoryDisk, options: { readonly times?: boolean } = {}): string[] {
  const lines: string[] = [];
  const firstName = new Map<number, ByteString>();
  const walk = (directory: Inode, path: ByteString) => {
    for (const name of [...(directory.entries?.keys() ?? [])].sort()) {
      if (path === "" && name === ".chiron") continue;
      const inode = disk.image.child(directory, name);
      if (inode === undefined) throw new Error(`Entry "${path}/${name}" has no inode`);
      const place = `${path}/${name}`;
      const known = firstName.get(inode.ino);
      if (known !== undefined) {
        lines.push(`${place} = ${known}`);
        continue;
      }
      firstName.set(inode.ino, place);
      lines.push(`${place} ${describeInode(inode, options.times ?? true)}`);
      if (inode.entries !== null) walk(inode, place);
    }
  };
  const top = disk.image.get(rootIno) as Inode;
  lines.push(`/ ${describeInode(top, options.times ?? true)}`);
  walk(top, "");
  return lines;
}

function describeInode(inode: Inode, times: boolean): string {
  const words = [inode.mode.toString(8), `${inode.uid}:${inode.gid}`];
  if (inode.entries === null) words.push(`links ${inode.nlink}`, `size ${inode.size}`);
  if (inode.rdev !== 0) words.push(`rdev ${inode.rdev}`);
  if (inode.target !== "") words.push(`-> ${inode.target}`);
  if (times) words.push(`mtime ${inode.mtime.seconds}.${inode.mtime.nsec}`);
  for (const name of [...inode.xattrs.keys()].sort()) {
    words.push(`${name}=${Buffer.from(inode.xattrs.get(name) ?? []).toString("hex")}`);
  }
  for (const [page, content] of [...inode.pages].sort(([a], [b]) => a - b)) {
    if (content !== null) words.push(`${page}:${fingerprint(content)}`);
  }
  return words.join(" ");
}

function fingerprint(content: Uint8Array): string {
  let hash = 0x811c9dc5;
  for (const byte of content) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16);
}
