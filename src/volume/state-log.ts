/**
 * What the next volume process must find again after this one was killed: node ids with their places and lookup counts,
 * and open handles. A file on tmpfs, mapped into memory: an update is a plain memory write, which survives the process.
 * Append-only records; a record that no longer holds is marked dead in place; when much is dead, the living are
 * copied into a new file. It need not survive the machine: then the mount is gone as well.
 *
 * A record, 8-byte aligned, native byte order:
 *   u32 bytes in all | u8 kind | u8 flags | u16 length of the name
 *   f64 id | f64 parent (node) or node (handle) | f64 lookups (node) or open flags (handle) | f64 inode number
 *   u32 type bits | u32 orphan links | name
 * A record becomes valid by the header's `used` growing past it, which is written last.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, renameSync } from "node:fs";
import { fallocate } from "../posix/files.ts";
import { mapShared, type SharedMemory } from "../posix/memory.ts";
import type { ByteString } from "../util/byte-string.ts";
import { errnoName } from "../util/errno.ts";

export const RECORD_NODE = 1;
export const RECORD_ALIAS = 2;
export const RECORD_FILE_HANDLE = 3;
export const RECORD_DIRECTORY_HANDLE = 4;
const DEAD = 0;

/** Flags of a node: its modification time is still to be made equal. */
export const FLAG_TIMES = 1;
/** Flag of a node: it has several names, or had, of which others may be looked up. */
export const FLAG_LINKED = 2;

const MAGIC = 0x4c535643;
const VERSION = 1;
const HEADER_BYTES = 256;
const RECORD_BYTES = 48;
const GROW_BYTES = 256 * 1024;
const FIRST_CAPACITY_BYTES = 16 * 1024 * 1024;

// Header: u32 magic @0, version @4; f64 used @8, next id @16; facts of the owner from @64 on.
const H_USED = 1;
const H_NEXT_ID = 2;
const FACTS_OFFSET = 64;
const FACTS_BYTES = HEADER_BYTES - FACTS_OFFSET;

export interface StateRecord {
  readonly offset: number;
  readonly kind: number;
  readonly flags: number;
  readonly id: number;
  readonly parent: number;
  readonly value: number;
  readonly ino: number;
  readonly type: number;
  readonly orphanLinks: number;
  readonly name: ByteString;
}

export class StateLogError extends Error {
  override readonly name = "StateLogError";
}

export class StateLog {
  readonly #path: string;
  #fd = -1;
  #memory!: SharedMemory;
  #u8!: Uint8Array;
  #u32!: Uint32Array;
  #f64!: Float64Array;
  #bytes!: Buffer;
  #capacity = 0;
  #reserved = 0;
  #dead = 0;

  private constructor(path: string) {
    this.#path = path;
  }

  /** An empty log; what was at the path is replaced. */
  static create(path: string): StateLog {
    const log = new StateLog(path);
    log.#map(path, FIRST_CAPACITY_BYTES, true);
    return log;
  }

  /** The log that an earlier process left. Throws StateLogError if it is damaged or of another version. */
  static open(path: string): StateLog {
    const log = new StateLog(path);
    log.#map(path, 0, false);
    return log;
  }

  #map(path: string, capacity: number, fresh: boolean): void {
    const fd = openSync(path, fresh ? "w+" : "r+", 0o600);
    let bytes = capacity;
    if (fresh) ftruncateSync(fd, capacity);
    else bytes = fstatSync(fd).size;
    if (bytes < HEADER_BYTES) throw new StateLogError(`State log ${path} is damaged: it has ${bytes} bytes`);
    if (fresh) reserve(fd, 0, GROW_BYTES, path);
    const memory = mapShared(fd, bytes, "read-write");
    if (typeof memory === "number") throw new StateLogError(`Cannot map state log ${path}: ${errnoName(memory)}`);
    if (this.#fd >= 0) {
      this.#memory.unmap();
      closeSync(this.#fd);
    }
    this.#fd = fd;
    this.#memory = memory;
    this.#u8 = new Uint8Array(memory.buffer);
    this.#u32 = new Uint32Array(memory.buffer);
    this.#f64 = new Float64Array(memory.buffer);
    this.#bytes = Buffer.from(memory.buffer);
    this.#capacity = bytes;
    this.#dead = 0;
    if (fresh) {
      this.#reserved = GROW_BYTES;
      this.#u32[1] = VERSION;
      this.#f64[H_USED] = HEADER_BYTES;
      this.#u32[0] = MAGIC;
      return;
    }
    if (this.#u32[0] !== MAGIC) throw new StateLogError(`State log ${path} is damaged: it does not begin as one`);
    if (this.#u32[1] !== VERSION) {
      throw new StateLogError(`State log ${path} has format ${this.#u32[1]}, this program knows ${VERSION}`);
    }
    const used = this.#used;
    if (!(used >= HEADER_BYTES && used <= bytes && used % 8 === 0)) {
      throw new StateLogError(`State log ${path} is damaged: ${used} of ${bytes} bytes used`);
    }
    this.#reserved = Math.ceil(used / GROW_BYTES) * GROW_BYTES;
  }

  get #used(): number {
    return this.#f64[H_USED] as number;
  }

  /** For the owner's own facts, 192 bytes that survive as well (see `state-facts.ts`). */
  facts(): DataView {
    return new DataView(this.#memory.buffer, FACTS_OFFSET, FACTS_BYTES);
  }

  /** Ids are never used twice, by later processes neither. */
  nextId(first: number): number {
    const id = Math.max(this.#f64[H_NEXT_ID] as number, first);
    this.#f64[H_NEXT_ID] = id + 1;
    return id;
  }

  /** Appends a record and answers where it is; -1 where there is no room (compact, and try again). */
  append(
    kind: number,
    id: number,
    parent: number,
    value: number,
    ino: number,
    type: number,
    orphanLinks: number,
    name: ByteString,
  ): number {
    const offset = this.#used;
    const bytes = (RECORD_BYTES + name.length + 7) & ~7;
    if (offset + bytes > this.#reserved && !this.#reserve(offset + bytes)) return -1;
    const at = offset >> 3;
    this.#u32[at * 2] = bytes;
    this.#u32[at * 2 + 1] = kind | (name.length << 16);
    this.#f64[at + 1] = id;
    this.#f64[at + 2] = parent;
    this.#f64[at + 3] = value;
    this.#f64[at + 4] = ino;
    this.#u32[at * 2 + 10] = type;
    this.#u32[at * 2 + 11] = orphanLinks;
    this.#bytes.write(name, offset + RECORD_BYTES, name.length, "latin1");
    this.#f64[H_USED] = offset + bytes;
    return offset;
  }

  #reserve(end: number): boolean {
    if (end > this.#capacity) return false;
    const upTo = Math.min(this.#capacity, Math.ceil(end / GROW_BYTES) * GROW_BYTES);
    reserve(this.#fd, this.#reserved, upTo - this.#reserved, this.#path);
    this.#reserved = upTo;
    return true;
  }

  kill(offset: number): void {
    this.#u8[offset + 4] = DEAD;
    this.#dead += this.#u32[offset >> 2] as number;
  }

  value(offset: number): number {
    return this.#f64[(offset >> 3) + 3] as number;
  }

  setValue(offset: number, value: number): void {
    this.#f64[(offset >> 3) + 3] = value;
  }

  setFlag(offset: number, flag: number, on: boolean): void {
    const flags = this.#u8[offset + 5] as number;
    this.#u8[offset + 5] = on ? flags | flag : flags & ~flag;
  }

  flags(offset: number): number {
    return this.#u8[offset + 5] as number;
  }

  /** Is it time to copy the living into a new file? */
  get wasteful(): boolean {
    return this.#dead > 1024 * 1024 && this.#dead > this.#used / 2;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** All living records, in the order in which they were written. */
  *records(): Generator<StateRecord> {
    const end = this.#used;
    let offset = HEADER_BYTES;
    while (offset < end) {
      const at = offset >> 3;
      const bytes = this.#u32[at * 2] as number;
      const nameLength = (this.#u32[at * 2 + 1] as number) >>> 16;
      if (bytes < RECORD_BYTES + nameLength || bytes % 8 !== 0 || offset + bytes > end) {
        throw new StateLogError(`State log ${this.#path} is damaged: a record of ${bytes} bytes at ${offset}`);
      }
      const kind = this.#u8[offset + 4] as number;
      if (kind !== DEAD) {
        yield {
          offset,
          kind,
          flags: this.#u8[offset + 5] as number,
          id: this.#f64[at + 1] as number,
          parent: this.#f64[at + 2] as number,
          value: this.#f64[at + 3] as number,
          ino: this.#f64[at + 4] as number,
          type: this.#u32[at * 2 + 10] as number,
          orphanLinks: this.#u32[at * 2 + 11] as number,
          name: this.#bytes.toString("latin1", offset + RECORD_BYTES, offset + RECORD_BYTES + nameLength),
        };
      }
      offset += bytes;
    }
  }

  /** Copies the living into a new file with room for as much again; `moved` tells each record's new place. */
  compact(moved: (kind: number, id: number, from: number, to: number) => void): void {
    const living = this.#used - this.#dead;
    const capacity = Math.max(FIRST_CAPACITY_BYTES, 2 ** Math.ceil(Math.log2(living * 2 + HEADER_BYTES)));
    const next = new StateLog(`${this.#path}.new`);
    next.#map(next.#path, capacity, true);
    next.#u8.set(this.#u8.subarray(8, HEADER_BYTES), 8);
    next.#f64[H_USED] = HEADER_BYTES;
    const moves: { kind: number; id: number; from: number; to: number }[] = [];
    for (const r of this.records()) {
      const to = next.append(r.kind, r.id, r.parent, r.value, r.ino, r.type, r.orphanLinks, r.name);
      next.setFlag(to, r.flags, true);
      moves.push({ kind: r.kind, id: r.id, from: r.offset, to });
    }
    renameSync(next.#path, this.#path);
    this.#memory.unmap();
    closeSync(this.#fd);
    this.#fd = next.#fd;
    this.#memory = next.#memory;
    this.#u8 = next.#u8;
    this.#u32 = next.#u32;
    this.#f64 = next.#f64;
    this.#bytes = next.#bytes;
    this.#capacity = next.#capacity;
    this.#reserved = next.#reserved;
    this.#dead = 0;
    for (const { kind, id, from, to } of moves) moved(kind, id, from, to);
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#memory.unmap();
    closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** Pages that are there: a store to a hole of a full tmpfs would kill the process. */
function reserve(fd: number, offset: number, length: number, path: string): void {
  const result = fallocate(fd, 0, offset, length);
  if (result < 0) {
    throw new StateLogError(
      `State log ${path} cannot grow: ${errnoName(result)}; make room on the file system that it is on`,
    );
  }
}
