/** `chiron unmount` */
import { MNT_DETACH, UMOUNT_NOFOLLOW } from "../posix/constants.ts";
import { umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { errnoName } from "../util/errno.ts";
import { FailureError } from "../volume/failure.ts";
import { canonicalMountpoint } from "../volume/registry.ts";
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
    const ours = readMountTable().some((mount) => mount.point === path && mount.type === "fuse.chiron");
    if (!ours || !(error instanceof FailureError) || error.failure.code !== "not-mounted") throw error;
    // Nobody holds it any more, so there is nothing to lose.
    const result = await umount2Later(byteString(path), MNT_DETACH | UMOUNT_NOFOLLOW);
    if (result < 0) throw new FailureError("busy", `Cannot unmount ${path}: ${errnoName(result)}`);
    console.log(`${path} was a dead mount; it is out of the tree.`);
  }
}
