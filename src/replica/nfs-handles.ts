/**
 * From objects of the tree to NFS file handles. What was looked up or made is kept in two places: by object, and, until
 * an object asks for it, by name under its directory. Both are bounded; whatever was dropped is found again by its names
 * from the root. Changes of names go through here, so that a name never leads to what it led to before, whoever asks:
 * different objects may stand for one directory (a resync has some of its own), and what is known of its names is theirs
 * together, by its handle.
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
  names: DirectoryNames | null = null;

  constructor(handle: FileHandle) {
    this.handle = handle;
  }

  /** Remembers of the attributes what later calls depend on. */
  learn(attr: FileAttr): void {
    this.mode = attr.mode;
    this.gid = attr.gid;
  }
}

/** What is known of the names in one directory. It lives as long as there are any. */
class DirectoryNames extends Map<ByteString, KnownObject> {
  readonly key: string;
  isDropped = false;

  constructor(key: string) {
    super();
    this.key = key;
  }
}

export class NfsHandles {
  readonly #root: KnownObject;
  readonly #fsidMajor: number;
  readonly #fsidMinor: number;
  readonly #objects = new Map<TreeObject, KnownObject>();
  /** By the directory's handle. */
  readonly #directories = new Map<string, DirectoryNames>();
  /** The names that are kept, as a ring: a new one takes the place of the oldest. */
  readonly #ring: { names: DirectoryNames; name: ByteString; known: KnownObject }[] = [];
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
    const named = parent?.gone === false ? this.#namesOf(parent)?.get(object.name) : undefined;
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
    return this.#learn(directory, name, found.handle, found.hasAttr ? found.attr : null);
  }

  listed(directory: KnownObject, name: ByteString, handle: FileHandle, attr: FileAttr | null): void {
    this.#learn(directory, name, handle, attr);
  }

  #learn(directory: KnownObject, name: ByteString, handle: FileHandle, attr: FileAttr | null): KnownObject {
    const before = this.#namesOf(directory)?.get(name);
    const isSame = before?.handle.equals(handle) === true;
    if (before !== undefined && !isSame) before.gone = true;
    const known = before !== undefined && isSame ? before : new KnownObject(handle);
    if (attr !== null) known.learn(attr);
    return before === known ? known : this.#rememberName(directory, name, known);
  }

  /** A name is gone, or may lead elsewhere now. */
  unname(directory: KnownObject, name: ByteString): void {
    const names = this.#namesOf(directory);
    const known = names?.get(name);
    if (names === null || known === undefined) return;
    known.gone = true;
    this.#drop(names, name);
  }

  /** A rename has happened. */
  moved(from: KnownObject, fromName: ByteString, to: KnownObject, toName: ByteString): void {
    const names = this.#namesOf(from);
    const known = names?.get(fromName);
    if (from.handle.equals(to.handle) && fromName === toName) return;
    this.unname(to, toName);
    if (names === null || known === undefined) return;
    this.#drop(names, fromName);
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
      const names = parent === undefined ? null : this.#namesOf(parent);
      if (names !== null) this.#drop(names, at.name);
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

  /** null while no name in it is known. */
  #namesOf(directory: KnownObject): DirectoryNames | null {
    if (directory.names === null || directory.names.isDropped) {
      directory.names = this.#directories.get(keyOf(directory)) ?? null;
    }
    return directory.names;
  }

  #drop(names: DirectoryNames, name: ByteString): void {
    if (!names.delete(name) || names.size > 0) return;
    names.isDropped = true;
    this.#directories.delete(names.key);
  }

  #rememberName(directory: KnownObject, name: ByteString, known: KnownObject): KnownObject {
    let names = this.#namesOf(directory);
    if (names === null) {
      names = new DirectoryNames(keyOf(directory));
      this.#directories.set(names.key, names);
      directory.names = names;
    }
    names.set(name, known);
    const old = this.#ring[this.#ringAt];
    if (old !== undefined && old.names.get(old.name) === old.known) this.#drop(old.names, old.name);
    this.#ring[this.#ringAt] = { names, name, known };
    this.#ringAt = (this.#ringAt + 1) % maxNames;
    return known;
  }
}

function keyOf({ handle }: KnownObject): string {
  return handle.toString("latin1");
}
