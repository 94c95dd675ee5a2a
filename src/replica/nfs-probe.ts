/** What an NFS export can do, tried out in its `.chiron` directory. */
import { type FileHandle, Found, NfsError, type NfsProtocol, type OpenState } from "../nfs/protocol.ts";
import { EPERM } from "../util/errno.ts";
import { S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from "../util/file-attr.ts";
import type { Capabilities } from "./replica.ts";

const root = { uid: 0, gid: 0 };

/** Rejects with `NfsError` where the export cannot serve at all. */
export async function probeNfs(protocol: NfsProtocol, top: FileHandle): Promise<Capabilities> {
  const hidden = new Found();
  const looked = await protocol.lookup(top, ".chiron", hidden);
  if (looked < 0) throw new NfsError("its .chiron directory cannot be reached", looked);
  const name = `probe-${process.pid}-${Math.floor(Math.random() * 1e9)}`;
  const directory = new Found();
  const made = await protocol.mkdir(hidden.handle, name, { mode: S_IFDIR | 0o700, ...root }, directory);
  if (made < 0) throw new NfsError("nothing can be made in its .chiron directory: is the export read-only?", made);
  try {
    if (directory.hasAttr && directory.attr.uid !== 0) {
      throw new NfsError("the server squashes root: export it with no_root_squash", -EPERM);
    }
    return await tryAll(protocol, directory.handle);
  } finally {
    for (const entry of ["file", "link", "symlink", "fifo"]) await protocol.unlink(directory.handle, entry);
    await protocol.rmdir(hidden.handle, name);
  }
}

async function tryAll(protocol: NfsProtocol, directory: FileHandle): Promise<Capabilities> {
  const file = new Found();
  const created = await protocol.create(directory, "file", { mode: S_IFREG | 0o600, ...root }, file);
  if (typeof created === "number") throw new NfsError("no file can be made in its .chiron directory", created);
  const found = new Found();
  const time = { seconds: 1_234_567_890, nsec: 123_456_789 };
  const set = await protocol.setattr(file.handle, created, { mtime: time }, found);
  if (set < 0) throw new NfsError("it does not let root set times", set);
  await protocol.getattr(file.handle, found);
  const granularity = granularityOf(found.attr.mtimeNsec, time.nsec);
  const link = await protocol.link(file.handle, directory, "link");
  const symlink = await protocol.symlink(directory, "symlink", "x", { mode: S_IFLNK | 0o777, ...root }, found);
  const fifo = await protocol.mknod(directory, "fifo", 0, { mode: S_IFIFO | 0o600, ...root }, new Found());
  const userXattrs = protocol.xattrs && (await protocol.setxattr(file.handle, "user.probe", Buffer.from("1"), 0)) === 0;
  const holes = protocol.holes && (await keepsHoles(protocol, file.handle, created));
  const stats = {
    blockSizeBytes: 0,
    blocks: 0,
    freeBlocks: 0,
    availableBlocks: 0,
    files: 0,
    freeFiles: 0,
    maxNameBytes: 255,
  };
  await protocol.statfs(directory, stats);
  if (created !== null) await protocol.closeFile(file.handle, created);
  return {
    userXattrs,
    rootXattrs: false,
    acls: false,
    hardLinks: link === 0,
    symlinks: symlink === 0,
    specialFiles: fifo === 0,
    holes,
    fallocate: false,
    renameFlags: false,
    timeGranularityNsec: granularity,
    maxNameBytes: stats.maxNameBytes,
  };
}

/** A quarter MiB of data with a hole punched into it, and found again. */
async function keepsHoles(protocol: NfsProtocol, file: FileHandle, state: OpenState | null): Promise<boolean> {
  const block = Buffer.alloc(64 * 1024, 1);
  const written = { stable: false, verifier: "" };
  for (let at = 0; at < 4; at++) {
    if ((await protocol.write(file, state, block, at * block.length, written)) !== block.length) return false;
  }
  if ((await protocol.deallocate(file, state, block.length, 2 * block.length)) !== 0) return false;
  const hole = await protocol.seek(file, state, 0, true);
  const data = await protocol.seek(file, state, block.length, false);
  return hole === block.length && data === 3 * block.length;
}

function granularityOf(kept: number, asked: number): number {
  for (const unit of [1, 100, 1_000, 1_000_000]) if (kept === asked - (asked % unit)) return unit;
  return 1_000_000_000;
}
