/**
 * One replica under test and the short words that contract rules are written in. Each rule gets a fresh, connected
 * replica and works in a directory of its own (`work`), beside the `.chiron` that every replica has.
 */
import assert from "node:assert/strict";
import type { ByteString } from "../../util/byte-string.ts";
import { EEXIST, errnoName } from "../../util/errno.ts";
import { FileAttr } from "../../util/file-attr.ts";
import type {
  Answer,
  AttrChange,
  Capabilities,
  DirectoryEntries,
  Owner,
  Replica,
  ReplicaHandle,
  TreeObject,
} from "../replica.ts";

/** What a kind of replica gives to its contract tests. */
export interface Made {
  /** On an empty tree, not connected yet. */
  readonly replica: Replica;
  /** A second replica on the same tree, not connected: another client, for what happens behind the first one's back. */
  readonly another?: () => Replica | Promise<Replica>;
  /** Puts another file system, or nothing, where the tree was. */
  readonly vanish?: () => void | Promise<void>;
  /** Called when the replica has been disconnected. */
  readonly dispose: () => void | Promise<void>;
}
export type Make = () => Promise<Made>;

/** A place in the tree; tests move it after a rename, as the volume moves its nodes. */
export class Place implements TreeObject {
  parent: Place | null;
  name: ByteString;

  constructor(parent: Place | null, name: ByteString) {
    this.parent = parent;
    this.name = name;
  }

  child(name: ByteString): Place {
    return new Place(this, name);
  }

  move(parent: Place, name: ByteString): void {
    this.parent = parent;
    this.name = name;
  }
}

export const root: Owner = { uid: 0, gid: 0 };

/** Fails unless the answer is a result. */
export async function ok(answer: Answer): Promise<number> {
  const result = await answer;
  if (result < 0) assert.fail(`answered ${errnoName(result)}`);
  return result;
}

/** Fails unless the answer is one of these errors; without any, unless it is an error at all. */
export async function refused(answer: Answer, ...errnos: number[]): Promise<void> {
  const result = await answer;
  const expected = errnos.length === 0 ? "an error" : errnos.map(errnoName).join(" or ");
  const fits = errnos.length === 0 ? result < 0 : errnos.includes(-result);
  if (!fits) assert.fail(`expected ${expected}, answered ${result < 0 ? errnoName(result) : result}`);
}

export function bytes(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

export class Subject {
  readonly replica: Replica;
  readonly capabilities: Capabilities;
  readonly made: Made;
  readonly top: Place;
  readonly work: Place;

  private constructor(made: Made, replica: Replica, capabilities: Capabilities, work: Place) {
    this.made = made;
    this.replica = replica;
    this.capabilities = capabilities;
    this.work = work;
    this.top = work.parent as Place;
  }

  static async start(make: Make): Promise<Subject> {
    const made = await make();
    const { replica } = made;
    try {
      await replica.connect({ signal: AbortSignal.timeout(60_000) });
      const top = new Place(null, "");
      const marker = await replica.mkdir(top, ".chiron", 0o700, root, null);
      if (marker !== -EEXIST) await ok(marker);
      const capabilities = await replica.probe();
      await ok(replica.mkdir(top, "work", 0o755, root, null));
      return new Subject(made, replica, capabilities, top.child("work"));
    } catch (error) {
      await replica.disconnect();
      await made.dispose();
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.replica.disconnect();
    await this.made.dispose();
  }

  /** The same tree through another client, for as long as `use` runs. */
  async behindTheBack(use: (other: Subject) => Promise<void>): Promise<void> {
    const { another } = this.made;
    if (another === undefined) return;
    const replica = await another();
    await replica.connect({ signal: AbortSignal.timeout(60_000) });
    try {
      await use(new Subject(this.made, replica, this.capabilities, new Place(new Place(null, ""), "work")));
    } finally {
      await replica.disconnect();
    }
  }

  async directory(parent: Place, name: ByteString, mode = 0o755): Promise<Place> {
    await ok(this.replica.mkdir(parent, name, mode, root, null));
    return parent.child(name);
  }

  async file(parent: Place, name: ByteString, content: string | Uint8Array = ""): Promise<Place> {
    const handle = await ok(this.replica.create(parent, name, 0o644, root, null));
    const data = typeof content === "string" ? bytes(content) : content;
    if (data.length > 0) assert.equal(await ok(this.replica.write(handle, data, 0)), data.length);
    await ok(this.replica.close(handle));
    return parent.child(name);
  }

  async symlink(parent: Place, name: ByteString, target: ByteString): Promise<Place> {
    await ok(this.replica.symlink(parent, name, target, root, null));
    return parent.child(name);
  }

  /** Opens the file for the time of `use`. */
  async using(
    object: TreeObject,
    access: "read" | "read-write",
    use: (handle: ReplicaHandle) => Promise<void>,
  ): Promise<void> {
    const handle = await ok(this.replica.open(object, access));
    try {
      await use(handle);
    } finally {
      await ok(this.replica.close(handle));
    }
  }

  async attr(object: TreeObject): Promise<FileAttr> {
    const attr = new FileAttr();
    await ok(this.replica.getattr(object, attr));
    return attr;
  }

  async change(object: TreeObject, change: AttrChange): Promise<FileAttr> {
    const attr = new FileAttr();
    await ok(this.replica.setattr(object, -1, change, attr));
    return attr;
  }

  async lookup(directory: TreeObject, name: ByteString): Promise<FileAttr> {
    const attr = new FileAttr();
    await ok(this.replica.lookup(directory, name, attr));
    return attr;
  }

  /** The whole content, one byte a character. */
  async content(object: TreeObject): Promise<string> {
    const { size } = await this.attr(object);
    const into = new Uint8Array(size);
    await this.using(object, "read", async (handle) => {
      assert.equal(await ok(this.replica.read(handle, into, 0)), size);
    });
    return Buffer.from(into).toString("latin1");
  }

  async overwrite(object: TreeObject, content: string | Uint8Array, position = 0): Promise<void> {
    const data = typeof content === "string" ? bytes(content) : content;
    await this.using(object, "read-write", async (handle) => {
      assert.equal(await ok(this.replica.write(handle, data, position)), data.length);
    });
  }

  async readHandle(handle: ReplicaHandle, position: number, length: number): Promise<string> {
    const into = Buffer.alloc(length);
    return into.toString("latin1", 0, await ok(this.replica.read(handle, into, position)));
  }

  async target(object: TreeObject): Promise<ByteString> {
    const into = Buffer.alloc(4096);
    return into.toString("latin1", 0, await ok(this.replica.readlink(object, into)));
  }

  async entries(directory: TreeObject): Promise<DirectoryEntries> {
    const into: DirectoryEntries = { names: [], types: [], inos: [] };
    await ok(this.replica.readdir(directory, into));
    return into;
  }

  async names(directory: TreeObject): Promise<ByteString[]> {
    return (await this.entries(directory)).names.sort();
  }

  async xattr(object: TreeObject, name: ByteString): Promise<string> {
    const into = Buffer.alloc(await ok(this.replica.getxattr(object, name, new Uint8Array(0))));
    return into.toString("latin1", 0, await ok(this.replica.getxattr(object, name, into)));
  }

  async xattrNames(object: TreeObject): Promise<ByteString[]> {
    const into = Buffer.alloc(await ok(this.replica.listxattr(object, new Uint8Array(0))));
    const list = into.toString("latin1", 0, await ok(this.replica.listxattr(object, into)));
    if (list === "") return [];
    assert.ok(list.endsWith("\0"), "each name ends with NUL");
    return list.slice(0, -1).split("\0").sort();
  }
}
