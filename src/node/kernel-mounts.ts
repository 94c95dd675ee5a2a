/** Bind mounts and unmounting. Directories are only ever removed by rmdir: what is in one is never ours to delete. */
import { chmodSync, mkdirSync, rmdirSync } from "node:fs";
import { MNT_DETACH, MS_BIND, MS_RDONLY, MS_REMOUNT, UMOUNT_NOFOLLOW } from "../posix/constants.ts";
import { mount, umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { EBUSY, EINVAL, ENOENT, errnoName } from "../util/errno.ts";
import { type MountEntry, mountAt, readMountTable } from "./mount-table.ts";

export interface BindRequest {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

/** A directory to be mounted on: of mode 000, so that nothing is written into it while the mount is missing. */
export function prepareMountpoint(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o750 });
  chmodSync(path, 0o000);
}

/** Binds, and verifies that the target shows the same file system then. */
export function bindMount({ source, target, readOnly }: BindRequest): void {
  const from = mountAt(readMountTable(), source);
  if (!from) throw new Error(`nothing is mounted on ${source}`);
  check(mount(byteString(source), byteString(target), "", MS_BIND, ""), `bind ${source} on ${target}`);
  // The kernel ignores MS_RDONLY with MS_BIND: it takes a second call.
  if (readOnly)
    check(mount("", byteString(target), "", MS_BIND | MS_REMOUNT | MS_RDONLY, ""), `make ${target} read-only`);
  const made = mountAt(readMountTable(), target);
  if (made?.device !== from.device || made.type !== from.type)
    throw new Error(`${target} shows another file system than ${source} after the bind mount`);
}

/** Takes away whatever is mounted there, however often, and the directory if it is empty. Fine if nothing is there. */
export async function unmountAndRemove(target: string, isOurs: (entry: MountEntry) => boolean): Promise<void> {
  for (;;) {
    const entry = mountAt(readMountTable(), target);
    if (!entry) break;
    if (!isOurs(entry)) throw new Error(`what is mounted on ${target} (${entry.type}) is not Chiron's; left alone`);
    let result = await umount2Later(byteString(target), UMOUNT_NOFOLLOW);
    // Somebody still looks into it: out of sight now, over when they are done.
    if (result === -EBUSY) result = await umount2Later(byteString(target), UMOUNT_NOFOLLOW | MNT_DETACH);
    if (result === -EINVAL || result === -ENOENT) break;
    check(result, `unmount ${target}`);
  }
  try {
    rmdirSync(target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT") throw new Error(`cannot remove ${target} (it is left as it is)`, { cause: error });
  }
}

function check(result: number, what: string): void {
  if (result < 0) throw new Error(`cannot ${what}: ${errnoName(result)}`);
}
