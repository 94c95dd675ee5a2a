/** `chiron unmount` */
import { closeSync } from "node:fs";
import { LOCK_EX, LOCK_NB, MNT_DETACH, UMOUNT_NOFOLLOW } from "../posix/constants.ts";
import { flock } from "../posix/files.ts";
import { umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { errnoName } from "../util/errno.ts";
import { FailureError } from "../volume/failure.ts";
import { canonicalMountpoint, claimDirectory, findMount, releaseDirectory } from "../volume/registry.ts";
import { connectTo } from "./connection.ts";
import { readMountTable } from "./mount-table.ts";

export async function unmount(given: string, options: { lazy?: boolean; force?: boolean }): Promise<void> {
  const params = { lazy: options.lazy ?? false, force: options.force ?? false };
  try {
    await using connection = await connectTo(given);
    const outcome = await connection.client.call("unmount", { params });
    if (outcome === "detached") console.log("It is out of the tree, and ends when the last file is closed.");
  } catch (error) {
    const path = canonicalMountpoint(given);
    forget(given);
    const ours = readMountTable().some((mount) => mount.point === path && mount.type === "fuse.chiron");
    if (!ours || !(error instanceof FailureError) || error.failure.code !== "not-mounted") throw error;
    // Nobody holds it any more, so there is nothing to lose.
    const result = await umount2Later(byteString(path), MNT_DETACH | UMOUNT_NOFOLLOW);
    if (result < 0) throw new FailureError("busy", `Cannot unmount ${path}: ${errnoName(result)}`);
    console.log(`${path} was a dead mount; it is out of the tree.`);
  }
}

/** What a holder that was killed has left in the registry. */
function forget(mountpoint: string): void {
  const directory = findMount(mountpoint)?.directory;
  if (directory === undefined) return;
  const lock = claimDirectory(directory, (fd) => flock(fd, LOCK_EX | LOCK_NB) === 0, { keep: true });
  if (lock === null) return; // it lives, and does not answer
  releaseDirectory(directory);
  closeSync(lock);
}
