/**
 * Small durable files in a replica's `.chiron` directory: markers, terms, membership records.
 *
 * - What these methods have written is on stable storage when they return, or they throw `ControlFileError`.
 * - A file is there whole or not at all: written under another name, flushed, then renamed.
 * - Nothing that is read is trusted: only regular files of a bounded size are opened, and damage is the caller's to judge.
 * - `.chiron` itself is made by `create` alone. Everything else fails with ENOENT where it is missing, so a directory
 *   that is only the place where an export should be mounted is never written.
 *
 * A path is relative to `.chiron`: a name, or a directory's name and a name.
 */
import type { Answer, DirectoryEntries, Owner, Replica, TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EEXIST, EFBIG, EINVAL, EIO, ENOENT, ENOTDIR } from "../util/errno.ts";
import { FileAttr, isRegular } from "../util/file-attr.ts";
import { type Op, wait } from "../util/op.ts";
import { ControlFileError } from "./errors.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";

export interface ControlFiles {
  /** Makes `.chiron`, if it is not there. */
  create(): Op<void>;
  /** null if there is no such file; EFBIG if it is longer than `maxBytes`. */
  read(path: ByteString, maxBytes: number): Op<Uint8Array | null>;
  /** Puts a file there, instead of an earlier one if there is one. */
  replace(path: ByteString, content: Uint8Array): Op<void>;
  /** False if the name is taken, by whomever. */
  createExclusive(path: ByteString, content: Uint8Array): Op<boolean>;
  /** Names in a directory of `.chiron` ("" for itself); none if it does not exist. */
  list(directory: ByteString): Op<readonly ByteString[]>;
  /** Nothing happens if there is none. */
  remove(path: ByteString): Op<void>;
}

interface Place extends TreeObject {
  readonly parent: Place | null;
}

const owner: Owner = { uid: 0, gid: 0 };
const NEW = ".new";

export class ReplicaControlFiles implements ControlFiles {
  readonly #replica: Replica;
  readonly #root: Place = { parent: null, name: "" };
  readonly #control: Place = { parent: this.#root, name: CONTROL_DIRECTORY };
  readonly #directories = new Map<ByteString, Place>([["", this.#control]]);

  constructor(replica: Replica) {
    this.#replica = replica;
  }

  *create(): Op<void> {
    const made = yield* wait(this.#replica.mkdir(this.#root, CONTROL_DIRECTORY, 0o700, owner, null));
    if (made === -EEXIST) return;
    yield* this.#must("", "create", made);
    yield* this.#must("", "flush", this.#replica.fsyncdir(this.#root));
  }

  *read(path: ByteString, maxBytes: number): Op<Uint8Array | null> {
    const place = this.#place(path);
    try {
      const attr = new FileAttr();
      const found = yield* wait(this.#replica.getattr(place, attr));
      if (found === -ENOENT || found === -ENOTDIR) return null;
      yield* this.#must(path, "read", found);
      if (!isRegular(attr.mode)) throw this.#error(path, "read", -EINVAL);
      const handle = yield* wait(this.#replica.open(place, "read"));
      if (handle === -ENOENT) return null;
      yield* this.#must(path, "read", handle);
      try {
        const into = new Uint8Array(Math.min(attr.size, maxBytes) + 1);
        const length = yield* this.#must(path, "read", this.#replica.read(handle, into, 0));
        if (length > maxBytes) throw this.#error(path, "read", -EFBIG);
        return into.subarray(0, length);
      } finally {
        yield* wait(this.#replica.close(handle));
      }
    } finally {
      this.#replica.forget(place);
    }
  }

  *replace(path: ByteString, content: Uint8Array): Op<void> {
    const place = this.#place(path);
    const temporary = place.name + NEW;
    if (!(yield* this.#write(place.parent, temporary, path, content))) {
      // Left by a process that did not get further.
      yield* this.#unlink(place.parent, temporary, path);
      if (!(yield* this.#write(place.parent, temporary, path, content))) throw this.#error(path, "write", -EEXIST);
    }
    const renamed = this.#replica.rename(place.parent, temporary, place.parent, place.name, 0);
    yield* this.#must(path, "write", renamed);
    yield* this.#must(path, "flush", this.#replica.fsyncdir(place.parent));
  }

  *createExclusive(path: ByteString, content: Uint8Array): Op<boolean> {
    const place = this.#place(path);
    if (!(yield* this.#write(place.parent, place.name, path, content))) return false;
    yield* this.#must(path, "flush", this.#replica.fsyncdir(place.parent));
    return true;
  }

  *list(directory: ByteString): Op<readonly ByteString[]> {
    const into: DirectoryEntries = { names: [], types: [], inos: [] };
    const listed = yield* wait(this.#replica.readdir(this.#directory(directory), into));
    if (listed === -ENOENT) return [];
    yield* this.#must(directory, "list", listed);
    return into.names;
  }

  *remove(path: ByteString): Op<void> {
    const place = this.#place(path);
    yield* this.#unlink(place.parent, place.name, path);
  }

  /** Creates and fills a file; false if there is one. A directory of `.chiron` is made when it is needed. */
  *#write(directory: Place, name: ByteString, path: ByteString, content: Uint8Array): Op<boolean> {
    let handle = yield* wait(this.#replica.create(directory, name, 0o600, owner, null));
    if (handle === -ENOENT && directory !== this.#control) {
      const made = yield* wait(this.#replica.mkdir(this.#control, directory.name, 0o700, owner, null));
      if (made !== -EEXIST) yield* this.#must(path, "create the directory of", made);
      yield* this.#must(path, "flush the directory of", this.#replica.fsyncdir(this.#control));
      handle = yield* wait(this.#replica.create(directory, name, 0o600, owner, null));
    }
    if (handle === -EEXIST) return false;
    yield* this.#must(path, "create", handle);
    let written = -EIO;
    try {
      written = content.length === 0 ? 0 : yield* wait(this.#replica.write(handle, content, 0));
      if (written >= 0 && written < content.length) written = -EIO;
      if (written >= 0) written = yield* wait(this.#replica.fsync(handle, false));
    } finally {
      yield* wait(this.#replica.close(handle));
    }
    if (written < 0) {
      yield* wait(this.#replica.unlink(directory, name)); // as well as it goes; the first error is the one to tell
      throw this.#error(path, "write", written);
    }
    return true;
  }

  *#unlink(directory: Place, name: ByteString, path: ByteString): Op<void> {
    const gone = yield* wait(this.#replica.unlink(directory, name));
    if (gone !== -ENOENT) yield* this.#must(path, "remove", gone);
  }

  *#must(path: ByteString, doing: string, answer: Answer): Op<number> {
    const result = yield* wait(answer);
    if (result < 0) throw this.#error(path, doing, result);
    return result;
  }

  #error(path: ByteString, doing: string, errno: number): ControlFileError {
    const below = path === "" ? "" : `/${path}`;
    return new ControlFileError(`${this.#replica.url}/${CONTROL_DIRECTORY}${below}`, doing, errno);
  }

  #directory(name: ByteString): Place {
    let place = this.#directories.get(name);
    if (place === undefined) {
      place = { parent: this.#control, name };
      this.#directories.set(name, place);
    }
    return place;
  }

  #place(path: ByteString): { readonly parent: Place; readonly name: ByteString } {
    const slash = path.indexOf("/");
    return { parent: this.#directory(slash < 0 ? "" : path.slice(0, slash)), name: path.slice(slash + 1) };
  }
}
