/** A replica whose calls by names keep clear of names that move or go (`moves.ts`). What answers at once costs a comparison. */
import type {
  Answer,
  AttrChange,
  Capabilities,
  DirectoryEntries,
  FileSystemStats,
  LateCall,
  Owner,
  Replica,
  ReplicaHandle,
  TreeObject,
} from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { ENOENT, EOPNOTSUPP } from "../util/errno.ts";
import type { FileAttr } from "../util/file-attr.ts";
import type { Moves } from "./moves.ts";
import type { TreeNode } from "./tree.ts";

export function besideMoves(replica: Replica, moves: Moves): Replica {
  return new MovesReplica(replica, moves);
}

class MovesReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly #inner: Replica;
  readonly #moves: Moves;

  constructor(inner: Replica, moves: Moves) {
    this.name = inner.name;
    this.url = inner.url;
    this.#inner = inner;
    this.#moves = moves;
  }

  /** A call by the names of one object. */
  #by(object: TreeObject, call: () => Answer): Answer {
    if (isGone(object)) return -ENOENT;
    if (this.#moves.isActive && this.#moves.over(object) !== null) return this.#held(object, null, call);
    const answer = call();
    if (typeof answer !== "number") this.#moves.note(object, null, answer);
    return answer;
  }

  /** A call by the names of two objects. */
  #byBoth(one: TreeObject, other: TreeObject, call: () => Answer): Answer {
    if (isGone(one) || isGone(other)) return -ENOENT;
    const { isActive } = this.#moves;
    if (isActive && (this.#moves.over(one) ?? this.#moves.over(other)) !== null) return this.#held(one, other, call);
    const answer = call();
    if (typeof answer !== "number") this.#moves.note(one, other, answer);
    return answer;
  }

  async #held(one: TreeObject, other: TreeObject | null, call: () => Answer): Promise<number> {
    for (;;) {
      const move = this.#moves.over(one) ?? (other === null ? null : this.#moves.over(other));
      if (move === null) break;
      await move.ended;
    }
    return other === null ? this.#by(one, call) : this.#byBoth(one, other, call);
  }

  connect(options: { readonly signal: AbortSignal }): Promise<void> {
    return this.#inner.connect(options);
  }

  disconnect(): Promise<void> {
    return this.#inner.disconnect();
  }

  get fences(): boolean {
    return this.#inner.fences ?? false;
  }

  get lateCalls(): readonly LateCall[] {
    return this.#inner.lateCalls ?? [];
  }

  settleLateCalls(calls: readonly LateCall[]): void {
    this.#inner.settleLateCalls?.(calls);
  }

  async takeOver(volumeId: string): Promise<void> {
    await this.#inner.takeOver?.(volumeId);
  }

  check(): Answer {
    return this.#inner.check();
  }

  probe(): Promise<Capabilities> {
    return this.#inner.probe();
  }

  forget(object: TreeObject): void {
    this.#inner.forget(object);
  }

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#by(directory, () => this.#inner.lookup(directory, name, attr));
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#by(directory, () => this.#inner.create(directory, name, mode, owner, attr));
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#by(directory, () => this.#inner.mkdir(directory, name, mode, owner, attr));
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer {
    return this.#by(directory, () => this.#inner.mknod(directory, name, mode, rdev, owner, attr));
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer {
    return this.#by(directory, () => this.#inner.symlink(directory, name, target, owner, attr));
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#byBoth(object, directory, () => this.#inner.link(object, directory, name, attr));
  }

  unlink(directory: TreeObject, name: ByteString): Answer {
    return this.#by(directory, () => this.#inner.unlink(directory, name));
  }

  rmdir(directory: TreeObject, name: ByteString): Answer {
    return this.#by(directory, () => this.#inner.rmdir(directory, name));
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer {
    return this.#byBoth(from, to, () => this.#inner.rename(from, fromName, to, toName, flags));
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Answer {
    return this.#by(directory, () => this.#inner.readdir(directory, into));
  }

  getattr(object: TreeObject, attr: FileAttr): Answer {
    return this.#by(object, () => this.#inner.getattr(object, attr));
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer {
    return this.#by(object, () => this.#inner.setattr(object, handle, change, attr));
  }

  readlink(object: TreeObject, into: Uint8Array): Answer {
    return this.#by(object, () => this.#inner.readlink(object, into));
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer {
    return this.#by(object, () => this.#inner.getxattr(object, name, into));
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer {
    return this.#by(object, () => this.#inner.setxattr(object, name, value, flags));
  }

  listxattr(object: TreeObject, into: Uint8Array): Answer {
    return this.#by(object, () => this.#inner.listxattr(object, into));
  }

  removexattr(object: TreeObject, name: ByteString): Answer {
    return this.#by(object, () => this.#inner.removexattr(object, name));
  }

  fsyncdir(object: TreeObject): Answer {
    return this.#by(object, () => this.#inner.fsyncdir(object));
  }

  open(object: TreeObject, access: "read" | "read-write"): Answer {
    return this.#by(object, () => this.#inner.open(object, access));
  }

  close(handle: ReplicaHandle): Answer {
    return this.#inner.close(handle);
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer {
    return this.#inner.fgetattr(handle, attr);
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): Answer {
    return this.#inner.read(handle, into, position);
  }

  write(handle: ReplicaHandle, data: Uint8Array, position: number): Answer {
    return this.#inner.write(handle, data, position);
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer {
    return this.#inner.fsync(handle, dataOnly);
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer {
    return this.#inner.fallocate(handle, mode, position, length);
  }

  seek(handle: ReplicaHandle, position: number, whence: number): Answer {
    return this.#inner.seek(handle, position, whence);
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer {
    return this.#inner.copyRange(from, fromPosition, to, toPosition, length);
  }

  clone(from: ReplicaHandle, to: ReplicaHandle): Answer {
    return this.#inner.clone?.(from, to) ?? -EOPNOTSUPP;
  }

  statfs(into: FileSystemStats): Answer {
    return this.#inner.statfs(into);
  }

  sync(): Answer {
    return this.#inner.sync();
  }
}

/** Its place among the names is another one's by now, or nobody's. */
function isGone(object: TreeObject): boolean {
  return (object as TreeNode).detached === true;
}
