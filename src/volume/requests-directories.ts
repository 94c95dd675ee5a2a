/** Requests on directories, and on the volume as a whole. */
import {
  type Answer,
  type DirectoryOut,
  type EntryOut,
  type FileHandle,
  type NodeId,
  type OpenOut,
  type Request,
  ROOT_NODE,
  type StatfsOut,
} from "../fuse/filesystem.ts";
import type { DirectoryEntries } from "../replica/replica.ts";
import type { TreeNode } from "../replication/tree.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EBADF, ESTALE } from "../util/errno.ts";
import { FileAttr, S_IFDIR } from "../util/file-attr.ts";
import { type Eventual, type Op, start, wait } from "../util/op.ts";
import { DirectoryListing } from "./directory-listing.ts";

import type { VolumeContext } from "./requests.ts";

const FOPEN_KEEP_CACHE = 1 << 1;
const FOPEN_CACHE_DIR = 1 << 3;
/** How many lookups of a READDIRPLUS are under way at once on replicas that answer later. */
const READ_AHEAD = 32;

export class DirectoryRequests {
  readonly #c: VolumeContext;

  constructor(context: VolumeContext) {
    this.#c = context;
  }

  opendir(_request: Request, id: NodeId, _flags: number, out: OpenOut): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined) return -ESTALE;
    out.handle = this.#c.deps.table.openDirectory(node);
    out.openFlags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR;
    return 0;
  }

  readdir(
    _request: Request,
    _node: NodeId,
    handle: FileHandle,
    cookie: bigint,
    plus: boolean,
    out: DirectoryOut,
  ): Answer {
    const entry = this.#c.deps.table.directories.get(handle);
    if (entry === undefined) return -EBADF;
    return start(this.#readdir(entry, cookie, plus, out));
  }

  *#readdir(
    entry: { readonly node: TreeNode; listing: DirectoryListing | null },
    cookie: bigint,
    plus: boolean,
    out: DirectoryOut,
  ): Op<number> {
    const { names, table } = this.#c.deps;
    const { node } = entry;
    if (node.detached) return 0;
    if (entry.listing === null || cookie === 0n) {
      const entries: DirectoryEntries = { names: [], types: [], inos: [] };
      const result = yield* names.readdir(node, entries);
      if (result < 0) return result;
      entry.listing = new DirectoryListing(entries);
    }
    const listing = entry.listing;
    const parent = node.parent ?? node;
    const dot = (name: string, of: TreeNode, next: bigint): boolean => {
      if (!plus) return out.add(name, of.ino || ROOT_NODE, S_IFDIR, next);
      const entry: EntryOut = { nodeId: 0, attr: new FileAttr(), entryValidSeconds: 0, attrValidSeconds: 0 };
      entry.attr.ino = of.ino || ROOT_NODE;
      return out.addPlus(name, entry, S_IFDIR, next);
    };
    if (cookie < 1n && !dot(".", node, 1n)) return 0;
    if (cookie < 2n && !dot("..", parent, 2n)) return 0;
    let place = listing.placeAfter(cookie);
    if (plus) return yield* this.#readdirPlus(node, listing, place, out);
    for (; place < listing.length; place++) {
      const i = listing.at(place);
      const name = listing.names[i] as ByteString;
      if (this.#c.reserved(node, name)) continue;
      const ino = table.tree.get(node, name)?.ino || (listing.inos[i] as number);
      if (!out.add(name, ino, listing.types[i] as number, listing.cookieAt(place))) break;
    }
    return 0;
  }

  *#readdirPlus(directory: TreeNode, listing: DirectoryListing, from: number, out: DirectoryOut): Op<number> {
    const { names, table } = this.#c.deps;
    const batch: { place: number; name: ByteString; entry: EntryOut; answer: Eventual<number> }[] = [];
    for (let place = from; place < listing.length; ) {
      batch.length = 0;
      for (; place < listing.length && batch.length < READ_AHEAD; place++) {
        const name = listing.names[listing.at(place)] as ByteString;
        if (this.#c.reserved(directory, name)) continue;
        const entry: EntryOut = { nodeId: 0, attr: new FileAttr(), entryValidSeconds: 0, attrValidSeconds: 0 };
        batch.push({ place, name, entry, answer: start(names.lookup(directory, name, entry.attr)) });
      }
      for (const { place: at, name, entry, answer } of batch) {
        const result = yield* wait(answer);
        if (result < 0) continue; // gone since the listing
        const type = listing.types[listing.at(at)] as number;
        const node = this.#c.enter(directory, name, entry);
        if (!out.addPlus(name, entry, type, listing.cookieAt(at))) {
          table.forget(node.id, 1);
          return 0;
        }
      }
    }
    return 0;
  }

  releasedir(_request: Request, _node: NodeId, handle: FileHandle): Answer {
    this.#c.deps.table.closeDirectory(handle);
    return 0;
  }

  fsyncdir(_request: Request, id: NodeId): Answer {
    const node = this.#c.deps.table.get(id);
    if (node === undefined) return -ESTALE;
    if (node.detached) return 0;
    return start(this.#fsyncdir(node));
  }

  *#fsyncdir(node: TreeNode): Op<number> {
    const { times, fanOut } = this.#c.deps;
    const settled = yield* times.settle(node);
    if (settled < 0) return settled;
    return yield* fanOut.change({ call: (replica) => replica.fsyncdir(node), follows: () => false });
  }

  statfs(_request: Request, _node: NodeId, out: StatfsOut): Answer {
    return start(this.#c.deps.statfs(out));
  }

  syncfs(): Answer {
    return start(this.#syncfs());
  }

  *#syncfs(): Op<number> {
    const { times, fanOut } = this.#c.deps;
    yield* times.settleAll();
    return yield* fanOut.change({ call: (replica) => replica.sync(), follows: () => false });
  }
}
