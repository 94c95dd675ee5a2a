/**
 * One mount at a time on this machine, and none while an earlier process can still write: a lock on `.chiron/lock` of
 * a local replica. The kernel drops it only when the process that holds it is really gone, out of uninterruptible
 * sleep too. The file is closed on exec, so no child keeps it.
 *
 * It works on the directory itself and may therefore hang with it: not for a replica on which a call hangs already.
 */
import { LOCK_EX, LOCK_NB, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_RDWR } from "../posix/constants.ts";
import { close, flock, open } from "../posix/files.ts";
import { byteString } from "../util/byte-string.ts";
import { EAGAIN, errnoName } from "../util/errno.ts";

export interface LocalLock extends Disposable {
  /** Ends with the process at the latest. */
  release(): void;
}

/** null if another process holds it; the replica's `.chiron` has to be there. */
export function lockLocalReplica(root: string): LocalLock | null {
  const path = `${root}/.chiron/lock`;
  const fd = open(byteString(path), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600);
  if (fd < 0) throw new Error(`Cannot open "${path}": ${errnoName(fd)}`);
  const locked = flock(fd, LOCK_EX | LOCK_NB);
  if (locked < 0) {
    close(fd);
    if (locked === -EAGAIN) return null;
    throw new Error(`Cannot lock "${path}": ${errnoName(locked)}`);
  }
  let held = true;
  const release = (): void => {
    if (held) close(fd);
    held = false;
  };
  return { release, [Symbol.dispose]: release };
}
