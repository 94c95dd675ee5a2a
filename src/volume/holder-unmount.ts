/**
 * Taking a mount out of the tree, and waiting for its volume to be in order: the kernel writes its cache back and ends the
 * session, unless somebody has a copy of the mount; the volume process settles and releases; then it is over.
 */
import { MNT_DETACH, MNT_FORCE, UMOUNT_NOFOLLOW } from "../posix/constants.ts";
import { EBUSY, EINVAL, ENOENT, errnoName } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { FailureError } from "./failure.ts";
import type { MountOperations } from "./holder-mount.ts";

/** Unmounted, the kernel ends the session at once, unless somebody has a copy of the mount. */
const COPIES_DELAY_MS = 1000;
/** Out of the tree: mostly nothing is open and it is over in a moment; if not, the caller need not wait for it. */
const LAZY_DELAY_MS = 1000;

export interface UnmountForm {
  /** Out of the tree now, over when the last file is closed. */
  readonly lazy: boolean;
  /** Pending requests and open files get errors. */
  readonly force: boolean;
}

/** What this needs of the holder. */
export interface MountInUse {
  readonly mountpoint: string;
  readonly mounts: Pick<MountOperations, "device" | "users">;
  readonly log: Logger;
  umount2(flags: number): Promise<number>;
  /** Everything is settled and released. */
  isOver(): boolean;
  /** There is a volume process, or will be one. */
  canSettle(): boolean;
  /** It is out of the tree. */
  outOfTree(): void;
  endsWithin(timeoutMs: number): Promise<boolean>;
  /** Puts the replicas in order as far as that works quickly, and ends; open files get errors. */
  endNow(): Promise<void>;
}

/**
 * Takes the mount out of the tree, and waits for the volume to be settled and released. Rejects with "busy", the mount
 * being as before, if it is in use.
 */
export async function unmountInOrder(
  mount: MountInUse,
  how: UnmountForm,
  settleTimeoutMs: number,
): Promise<"ended" | "detached"> {
  const { mountpoint, log } = mount;
  const device = mount.mounts.device(mountpoint); // as long as it is in the mount table
  const flags = UMOUNT_NOFOLLOW | (how.force ? MNT_FORCE : 0);
  let result = await mount.umount2(how.lazy && !how.force ? flags | MNT_DETACH : flags);
  if (result === -EBUSY && how.force) result = await mount.umount2(UMOUNT_NOFOLLOW | MNT_DETACH);
  if (result === -EBUSY) {
    throw new FailureError(
      "busy",
      `${mountpoint} is in use: close what is open there (\`fuser -vm ${mountpoint}\` lists it), or use --lazy`,
    );
  }
  const elsewhere = result === -EINVAL || result === -ENOENT; // somebody else took it out of the tree
  if (result < 0 && !elsewhere) throw new FailureError("busy", `Cannot unmount ${mountpoint}: ${errnoName(-result)}`);
  if (mount.isOver()) return "ended"; // the volume process was quicker than this call
  mount.outOfTree();
  if (how.lazy && !how.force) return (await mount.endsWithin(LAZY_DELAY_MS)) ? "ended" : "detached";
  if (await mount.endsWithin(Math.min(COPIES_DELAY_MS, settleTimeoutMs))) return "ended";
  const { copies, users } = device === null ? { copies: 0, users: [] } : mount.mounts.users(device);
  if (copies > 0 && users.length > 0 && !how.force) {
    log.warn("Unmounted, but other mount namespaces use a copy of the mount", { copies, users });
    return "detached";
  }
  if (copies > 0) {
    log.info("Other mount namespaces have a copy of the mount: it is ended there, too", { copies, users });
    await mount.endNow();
    return "ended";
  }
  if (await mount.endsWithin(mount.canSettle() ? settleTimeoutMs : 0)) return "ended";
  if (elsewhere && !how.force) {
    throw new FailureError(
      "busy",
      `Files of ${mountpoint} are still open, though it is out of the tree: close them, or use --force`,
    );
  }
  log.error("The volume did not settle in time: what is left is made alike at the next mount");
  await mount.endNow();
  return "ended";
}

/** umount2(2), which may take as long as it takes to write cached data back. */
export async function umountWithin(
  mounts: Pick<MountOperations, "unmount">,
  mountpoint: string,
  flags: number,
  timeoutMs: number,
): Promise<number> {
  const late = new Promise<null>((resolve) => setTimeout(() => resolve(null), timeoutMs).unref());
  const result = await Promise.race([mounts.unmount(mountpoint, flags), late]);
  if (result !== null) return result;
  throw new FailureError(
    "busy",
    `Unmounting ${mountpoint} takes too long (cached data are being written): wait, or use --force`,
  );
}
