/**
 * From objects of the tree to NFS file handles. What was looked up or made is kept in two places: by object, and, until
 * an object asks for it, by name under its directory. Both are bounded; whatever was dropped is found again by its names
 * from the root. Changes of names go through here, so that a name never leads to what it led to before.
 */
import type { FileHandle, Found, NfsProtocol } from "../nfs/protocol.ts";
import { Found as FoundObject } from "../nfs/protocol.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EIO, EXDEV } from "../util/errno.ts";
import type { FileAttr } from "../util/file-attr.ts";
import type { TreeObject } from "./replica.ts";

const maxObjects = 100_000;
const maxNames = 16_384;

export class KnownObject {
  readonly handle: FileHandle;
  /** With type bits; 0 while the server has not told. */
  mode = 0;
  gid = 0;
  /** Used since it was last considered for dropping. */
  used = true;
  /** Its name was removed: what object had it is to be found again. */
  gone = false;
  names: Map<ByteString, KnownObject> | null = null;

  constructor(handle: FileHandle) {
    this.handle = handle;
  }

  /** Remembers of the attributes what later calls depend on. */
  learn(attr: FileAttr): void {
    this.mode = attr.mode;
    this.gid = attr.gid;
  }
}

export class NfsHandles {
  readonly #root: KnownObject;
  readonly #fsidMajor: number;
  readonly #fsidMinor: number;
  readonly #objects = new Map<TreeObject, KnownObject>();
  /** The names that are kept, as a ring: a new one takes the place of the oldest. */
  readonly #ring: { directory: KnownObject; name: ByteString; known: KnownObject }[] = [];
  #ringAt = 0;

  constructor(root: Found) {
    this.#root = new KnownObject(root.handle);
    this.#root.learn(root.attr);
    this.#fsidMajor = root.fsidMajor;
    this.#fsidMinor = root.fsidMinor;
  }

  get root(): KnownObject {
    return this.#root;
  }

  /** What is known of an object, without asking the server. */
  known(object: TreeObject): KnownObject | undefined {
    if (object.parent === null) return object.name === "" ? this.#root : undefined;
    const known = this.#objects.get(object);
    if (known !== undefined && !known.gone) {
      known.used = true;
      return known;
    }
    const parent = object.parent.parent === null ? this.#root : this.#objects.get(object.parent);
    const named = parent?.gone === false ? parent.names?.get(object.name) : undefined;
    return named === undefined ? undefined : this.#keep(object, named);
  }

  /** Finds an object by its names, from the nearest directory that is known; a negative errno if it is not there. */
  async find(protocol: NfsProtocol, object: TreeObject): Promise<KnownObject | number> {
    const known = this.known(object);
    if (known !== undefined) return known;
    const missing: TreeObject[] = [object];
    let at = object.parent;
    let directory = at === null ? undefined : this.known(at);
    while (directory === undefined && at !== null) {
      missing.push(at);
      at = at.parent;
      directory = at === null ? undefined : this.known(at);
    }
    if (directory === undefined) return -EIO; // an object that hangs nowhere: the caller's mistake
    for (const next of missing.reverse()) {
      const found = new FoundObject();
      const result = await protocol.lookup(directory.handle, next.name, found);
      if (result < 0) return result;
      if (this.isElsewhere(found)) return -EXDEV;
      directory = this.#keep(next, this.named(directory, next.name, found));
    }
    return directory;
  }

  /** A name in a directory was looked up or made: the next object of that name need not ask. */
  named(directory: KnownObject, name: ByteString, found: Found): KnownObject {
    return this.#rememberName(directory, name, knownFrom(found));
  }

  listed(directory: KnownObject, name: ByteString, handle: FileHandle, attr: FileAttr | null): void {
    const known = new KnownObject(handle);
    if (attr !== null) known.learn(attr);
    this.#rememberName(directory, name, known);
  }

  /** A name is gone, or may lead elsewhere now. */
  unname(directory: KnownObject, name: ByteString): void {
    const known = directory.names?.get(name);
    if (known === undefined) return;
    known.gone = true;
    directory.names?.delete(name);
  }

  /** A rename has happened. */
  moved(from: KnownObject, fromName: ByteString, to: KnownObject, toName: ByteString): void {
    const known = from.names?.get(fromName);
    if (from === to && fromName === toName) return;
    this.unname(to, toName);
    if (known === undefined) return;
    from.names?.delete(fromName);
    this.#rememberName(to, toName, known);
  }

  /** Below a mount point in the server's tree. */
  isElsewhere(found: Found): boolean {
    return found.hasAttr && (found.fsidMajor !== this.#fsidMajor || found.fsidMinor !== this.#fsidMinor);
  }

  forget(object: TreeObject): void {
    this.#objects.delete(object);
  }

  /** A handle on the way to this object was stale: all of the way is looked up again. */
  distrust(object: TreeObject): void {
    for (let at: TreeObject | null = object; at !== null && at.parent !== null; at = at.parent) {
      const parent = at.parent.parent === null ? this.#root : this.#objects.get(at.parent);
      parent?.names?.delete(at.name);
      this.#objects.delete(at);
    }
  }

  #keep(object: TreeObject, known: KnownObject): KnownObject {
    known.used = true;
    this.#objects.set(object, known);
    if (this.#objects.size > maxObjects) this.#dropOne();
    return known;
  }

  /** Second chance: the oldest that was not used since it was last looked at. */
  #dropOne(): void {
    for (const [object, known] of this.#objects) {
      this.#objects.delete(object);
      if (!known.used) return;
      known.used = false;
      this.#objects.set(object, known);
    }
  }

  #rememberName(directory: KnownObject, name: ByteString, known: KnownObject): KnownObject {
    directory.names ??= new Map();
    directory.names.set(name, known);
    const old = this.#ring[this.#ringAt];
    if (old !== undefined && old.directory.names?.get(old.name) === old.known) old.directory.names.delete(old.name);
    this.#ring[this.#ringAt] = { directory, name, known };
    this.#ringAt = (this.#ringAt + 1) % maxNames;
    return known;
  }
}

function knownFrom(found: Found): KnownObject {
  const known = new KnownObject(found.handle);
  if (found.hasAttr) known.learn(found.attr);
  return known;
}
