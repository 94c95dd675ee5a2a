/**
 * Descriptors of directories below one root, by the object that they belong to. Invariants:
 *
 * - A descriptor is opened from the root, or from the nearest directory above that is open, by `openat2` that follows
 *   no link, leaves no directory upwards and crosses no mount point.
 * - At most `capacity` are kept; those not used since the last round go first. All are O_PATH, so they cost the backend
 *   nothing and need no permission to read.
 * - They follow the object through renames, as the object's identity does.
 */
import {
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  RESOLVE_BENEATH,
  RESOLVE_CACHED,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
} from "../posix/constants.ts";
import { close, openat2 } from "../posix/files.ts";
import { statxFd } from "../posix/statx.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EAGAIN, ELOOP, EMFILE, ENFILE, ENOENT, ENOTCONN, ENOTDIR, ESTALE } from "../util/errno.ts";
import { FileAttr, S_ISGID } from "../util/file-attr.ts";
import type { TreeObject } from "./replica.ts";

export const RESOLVE_BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
const DIRECTORY = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
/** The kernel takes paths below 4,096 bytes; deeper places are reached in several steps. */
const maxPathBytes = 4000;

interface Descriptor {
  readonly fd: number;
  /** Needed since the last round of eviction; a new one counts as needed, so that two can be open at a time. */
  used: boolean;
  /** Answered from here at least once since it was opened, so it may be out of date. */
  old: boolean;
  /** Whether new entries take the directory's group; null until asked. */
  setGroupId: boolean | null;
}

export class DirectoryDescriptors {
  readonly #open = new Map<TreeObject, Descriptor>();
  readonly #capacity: number;
  #rootFd: number;
  #rootSetGroupId: boolean | null = null;

  /** Takes over `rootFd`. */
  constructor(rootFd: number, capacity: number) {
    this.#rootFd = rootFd;
    this.#capacity = capacity;
  }

  get rootFd(): number {
    return this.#rootFd;
  }

  /** The descriptor of a directory, or a negative errno. Good until two other directories have been asked for. */
  get(directory: TreeObject): number {
    const there = this.#open.get(directory);
    if (there !== undefined) {
      there.used = true;
      there.old = true;
      return there.fd;
    }
    return directory.parent === null ? this.#rootFd : this.#openNow(directory);
  }

  /** The same without waiting for a disk: EAGAIN if it is not open, and what is on the way to it is not all in memory. */
  getCached(directory: TreeObject): number {
    if (directory.parent === null || this.#open.has(directory)) return this.get(directory);
    const result = this.#walk(directory, RESOLVE_CACHED);
    return result < 0 ? -EAGAIN : this.#keep(directory, result);
  }

  #openNow(directory: TreeObject): number {
    let result = this.#walk(directory);
    if (result < 0 && mayHelp.has(-result) && this.#open.size > 0) {
      this.clear();
      result = this.#walk(directory);
    }
    return result < 0 ? result : this.#keep(directory, result);
  }

  #keep(directory: TreeObject, fd: number): number {
    if (this.#open.size >= this.#capacity) this.#evict();
    this.#open.set(directory, { fd, used: true, old: false, setGroupId: null });
    return fd;
  }

  #walk(directory: TreeObject, cached = 0): number {
    const names: ByteString[] = [];
    let above: TreeObject = directory;
    let from = -1;
    while (from < 0) {
      if (above.parent === null) {
        from = this.#rootFd;
        if (from < 0) return from;
        break;
      }
      names.push(above.name);
      above = above.parent;
      from = this.#open.get(above)?.fd ?? -1;
    }
    let at = from;
    while (names.length > 0) {
      let path = names.pop() as ByteString;
      while (names.length > 0 && path.length + 1 + (names.at(-1) as ByteString).length < maxPathBytes) {
        path += `/${names.pop()}`;
      }
      const next = openat2(at, path, DIRECTORY, 0, RESOLVE_BELOW | cached);
      if (at !== from) close(at);
      if (next < 0) return next === -ELOOP ? -ENOTDIR : next;
      at = next;
    }
    return at;
  }

  /** Second chance: whoever was used since the last round goes to the end of the line. */
  #evict(): void {
    for (const [object, descriptor] of this.#open) {
      this.#open.delete(object);
      if (descriptor.used) {
        descriptor.used = false;
        this.#open.set(object, descriptor);
      } else {
        close(descriptor.fd);
        return;
      }
    }
  }

  /**
   * After a call relative to `directory` answered `result`: true if its descriptor was an old one of a directory that is
   * gone, and another try finds its way by the names. (ENOENT alone is what a lookup answers most of the time.)
   */
  isStale(directory: TreeObject, result: number): boolean {
    if (result !== -ENOENT && result !== -ESTALE) return false;
    const descriptor = this.#open.get(directory);
    if (descriptor === undefined || !descriptor.old) return false;
    if (result === -ENOENT && statxFd(descriptor.fd, scratch) === 0 && scratch.nlink > 0) return false;
    this.clear();
    return true;
  }

  setGroupId(directory: TreeObject): boolean {
    const descriptor = this.#open.get(directory);
    const known = descriptor === undefined ? this.#rootSetGroupId : descriptor.setGroupId;
    if (known !== null) return known;
    const is = statxFd(this.get(directory), scratch) === 0 && (scratch.mode & S_ISGID) !== 0;
    if (directory.parent === null) this.#rootSetGroupId = is;
    else if (descriptor !== undefined) descriptor.setGroupId = is;
    return is;
  }

  /** The object's mode has changed. */
  modeChanged(object: TreeObject): void {
    if (object.parent === null) this.#rootSetGroupId = null;
    const descriptor = this.#open.get(object);
    if (descriptor !== undefined) descriptor.setGroupId = null;
  }

  forget(object: TreeObject): void {
    const descriptor = this.#open.get(object);
    if (descriptor === undefined) return;
    this.#open.delete(object);
    close(descriptor.fd);
  }

  /** The directory of this name is gone, or another has come in its place. */
  forgetName(parent: TreeObject, name: ByteString): void {
    for (const object of this.#open.keys()) {
      if (object.parent === parent && object.name === name) this.forget(object);
    }
  }

  clear(): void {
    for (const { fd } of this.#open.values()) close(fd);
    this.#open.clear();
    this.#rootSetGroupId = null;
  }

  /** Closes everything; `get` answers ENOTCONN from now on. */
  close(): void {
    this.clear();
    if (this.#rootFd >= 0) close(this.#rootFd);
    this.#rootFd = -ENOTCONN;
  }
}

/** Errors of opening that may come from too many descriptors, or from one on the way that is out of date. */
const mayHelp = new Set([EMFILE, ENFILE, ENOENT, ESTALE]);
const scratch = new FileAttr();
