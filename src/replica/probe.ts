/**
 * What a backend can do, found by trying it in a scratch directory `.chiron/probe-…`, through the contract alone, so that
 * it holds for every kind of replica. What an earlier probe left behind, having been killed, is removed as well.
 */
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  SEEK_DATA,
  SEEK_HOLE,
} from "../posix/constants.ts";
import {
  EACCES,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOSYS,
  ENOTTY,
  ENXIO,
  EOPNOTSUPP,
  EPERM,
  EROFS,
  errnoName,
} from "../util/errno.ts";
import { FileAttr, S_IFCHR, S_IFDIR, S_IFIFO } from "../util/file-attr.ts";
import {
  type Answer,
  type Capabilities,
  type DirectoryEntries,
  type FileSystemStats,
  type Replica,
  ReplicaError,
  type ReplicaHandle,
  type TreeObject,
} from "./replica.ts";

const root = { uid: 0, gid: 0 };
const blockBytes = 64 * 1024;
const nullDevice = (1 << 8) | 3;
const probedNsec = 123_456_789;

/** Access list of owner, group and others, as `linux/posix_acl_xattr.h` has it: the same as mode 0640. */
const plainAcl = Uint8Array.of(
  ...[2, 0, 0, 0],
  ...[1, 0, 6, 0, 255, 255, 255, 255],
  ...[4, 0, 4, 0, 255, 255, 255, 255],
  ...[32, 0, 0, 0, 255, 255, 255, 255],
);

/** Rejects with a `ReplicaError` if the backend cannot be written, or has no `.chiron`. */
export async function probeCapabilities(replica: Replica): Promise<Capabilities> {
  const top: TreeObject = { parent: null, name: "" };
  const control: TreeObject = { parent: top, name: ".chiron" };
  await removeLeftOvers(replica, control);
  const name = `probe-${process.pid}-${Date.now()}`;
  const scratch: TreeObject = { parent: control, name };
  const made = await replica.mkdir(control, name, 0o700, root, null);
  if (made < 0) throw new ReplicaError(replica.name, whyNot(made), { errno: made });
  try {
    return await new Probe(replica, scratch).run();
  } finally {
    await removeScratch(replica, control, name);
  }
}

function whyNot(result: number): string {
  if (result === -EROFS) return "the file system is read-only";
  if (result === -ENOENT) return "has no .chiron directory";
  return `cannot be written (${errnoName(result)})`;
}

class Probe {
  readonly #replica: Replica;
  readonly #scratch: TreeObject;

  constructor(replica: Replica, scratch: TreeObject) {
    this.#replica = replica;
    this.#scratch = scratch;
  }

  async run(): Promise<Capabilities> {
    const replica = this.#replica;
    const scratch = this.#scratch;
    const handle = await this.#must(replica.create(scratch, "file", 0o640, root, null));
    try {
      const file = this.#at("file");
      const value = Uint8Array.of(1, 2, 3);
      return {
        userXattrs: await this.#can(replica.setxattr(file, "user.chiron", value, 0)),
        rootXattrs: await this.#can(replica.setxattr(file, "trusted.chiron", value, 0)),
        acls: await this.#can(replica.setxattr(file, "system.posix_acl_access", plainAcl, 0)),
        hardLinks: await this.#can(replica.link(file, scratch, "link", null)),
        symlinks: await this.#can(replica.symlink(scratch, "symlink", "target", root, null)),
        specialFiles: await this.#specialFiles(),
        fallocate: await this.#can(replica.fallocate(handle, 0, 0, blockBytes)),
        holes: await this.#holes(handle),
        renameFlags: await this.#renameFlags(),
        timeGranularityNsec: await this.#timeGranularity(),
        maxNameBytes: await this.#maxNameBytes(),
      };
    } finally {
      await replica.close(handle);
    }
  }

  #at(name: string): TreeObject {
    return { parent: this.#scratch, name };
  }

  async #must(answer: Answer): Promise<number> {
    const result = await answer;
    if (result < 0)
      throw new ReplicaError(this.#replica.name, `probing failed (${errnoName(result)})`, { errno: result });
    return result;
  }

  /** False where the backend refuses on principle; anything else that fails is a failure of the probe. */
  async #can(answer: Answer): Promise<boolean> {
    const result = await answer;
    if ([-EOPNOTSUPP, -ENOSYS, -EPERM, -EINVAL, -EACCES, -ENOTTY].includes(result)) return false;
    await this.#must(result);
    return true;
  }

  async #specialFiles(): Promise<boolean> {
    const replica = this.#replica;
    if (!(await this.#can(replica.mknod(this.#scratch, "fifo", S_IFIFO | 0o600, 0, root, null)))) return false;
    return this.#can(replica.mknod(this.#scratch, "device", S_IFCHR | 0o600, nullDevice, root, null));
  }

  async #holes(handle: ReplicaHandle): Promise<boolean> {
    const replica = this.#replica;
    await this.#must(replica.write(handle, new Uint8Array(blockBytes).fill(1), 0));
    await this.#must(replica.write(handle, new Uint8Array(blockBytes).fill(1), 2 * blockBytes));
    const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (!(await this.#can(replica.fallocate(handle, punch, 0, blockBytes)))) return false;
    const data = await replica.seek(handle, 0, SEEK_DATA);
    if (data === -EINVAL || data === -ENXIO || data === -EOPNOTSUPP) return false;
    const hole = await replica.seek(handle, 2 * blockBytes, SEEK_HOLE);
    return data >= blockBytes && hole === 3 * blockBytes;
  }

  async #renameFlags(): Promise<boolean> {
    const replica = this.#replica;
    const scratch = this.#scratch;
    for (const name of ["a", "b"]) {
      await this.#must(replica.close(await this.#must(replica.create(scratch, name, 0o600, root, null))));
    }
    const refused = await replica.rename(scratch, "a", scratch, "b", RENAME_NOREPLACE);
    if (refused !== -EEXIST) return false;
    return this.#can(replica.rename(scratch, "a", scratch, "b", RENAME_EXCHANGE));
  }

  async #timeGranularity(): Promise<number> {
    const attr = new FileAttr();
    const mtime = { seconds: 1_700_000_000, nsec: probedNsec };
    await this.#must(this.#replica.setattr(this.#at("file"), -1, { mtime }, null));
    await this.#must(this.#replica.getattr(this.#at("file"), attr));
    for (let step = 1; step < 1e9; step *= 10) {
      if (attr.mtimeNsec === probedNsec - (probedNsec % step)) return step;
    }
    return 1e9;
  }

  async #maxNameBytes(): Promise<number> {
    const stats: FileSystemStats = {
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    };
    await this.#must(this.#replica.statfs(stats));
    return stats.maxNameBytes > 0 ? Math.min(stats.maxNameBytes, 255) : 255;
  }
}

async function removeLeftOvers(replica: Replica, control: TreeObject): Promise<void> {
  const entries: DirectoryEntries = { names: [], types: [], inos: [] };
  await replica.readdir(control, entries);
  for (const [i, name] of entries.names.entries()) {
    const type = entries.types[i] as number;
    if (name.startsWith("probe-") && (type === S_IFDIR || type === 0)) await removeScratch(replica, control, name);
  }
}

/** A scratch directory holds no directories. What cannot be removed stays for the next time. */
async function removeScratch(replica: Replica, control: TreeObject, name: string): Promise<void> {
  const scratch: TreeObject = { parent: control, name };
  const entries: DirectoryEntries = { names: [], types: [], inos: [] };
  await replica.readdir(scratch, entries);
  for (const entry of entries.names) await replica.unlink(scratch, entry);
  await replica.rmdir(control, name);
  replica.forget(scratch);
}
