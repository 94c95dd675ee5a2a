/** The open files of an NFS replica. Numbers are never used twice, so that a handle from before means nothing. */
import type { FileHandle, OpenState } from "../nfs/protocol.ts";
import type { ByteString } from "../util/byte-string.ts";
import type { ReplicaHandle, TreeObject } from "./replica.ts";

export class NfsFile {
  readonly object: TreeObject;
  /** `object` is the tree's own, which follows renames: the file may be found again by it. Otherwise it only says
   *  where the file was made. */
  readonly followed: boolean;
  readonly access: "read" | "read-write";
  handle: FileHandle;
  state: OpenState | null;
  /** Nothing was written since a COMMIT of this file was answered. */
  committed = false;

  constructor(
    object: TreeObject,
    followed: boolean,
    handle: FileHandle,
    state: OpenState | null,
    access: "read" | "read-write",
  ) {
    this.object = object;
    this.followed = followed;
    this.handle = handle;
    this.state = state;
    this.access = access;
  }
}

/** Never the same in two connections of one process. */
let nextHandle = 0;

export class NfsFiles {
  readonly #files = new Map<ReplicaHandle, NfsFile>();

  /** A file that was made just now. */
  created(directory: TreeObject, name: ByteString, handle: FileHandle, state: OpenState | null): ReplicaHandle {
    return this.#add(new NfsFile({ parent: directory, name }, false, handle, state, "read-write"));
  }

  opened(
    object: TreeObject,
    handle: FileHandle,
    state: OpenState | null,
    access: "read" | "read-write",
  ): ReplicaHandle {
    return this.#add(new NfsFile(object, true, handle, state, access));
  }

  #add(file: NfsFile): ReplicaHandle {
    this.#files.set(nextHandle, file);
    return nextHandle++;
  }

  get(handle: ReplicaHandle): NfsFile | undefined {
    return this.#files.get(handle);
  }

  remove(handle: ReplicaHandle): NfsFile | undefined {
    const file = this.#files.get(handle);
    this.#files.delete(handle);
    return file;
  }

  values(): IterableIterator<NfsFile> {
    return this.#files.values();
  }
}
