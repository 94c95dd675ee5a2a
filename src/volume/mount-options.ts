/** `-o` options as mount(8) knows them → flags and data of mount(2). Pure. */
import {
  MS_DIRSYNC,
  MS_LAZYTIME,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_RELATIME,
  MS_STRICTATIME,
  MS_SYNCHRONOUS,
} from "../posix/constants.ts";

const flagsOn: Readonly<Record<string, number>> = {
  ro: MS_RDONLY,
  nosuid: MS_NOSUID,
  nodev: MS_NODEV,
  noexec: MS_NOEXEC,
  sync: MS_SYNCHRONOUS,
  dirsync: MS_DIRSYNC,
  noatime: MS_NOATIME,
  nodiratime: MS_NODIRATIME,
  relatime: MS_RELATIME,
  strictatime: MS_STRICTATIME,
  lazytime: MS_LAZYTIME,
};
const flagsOff: Readonly<Record<string, number>> = {
  rw: MS_RDONLY,
  suid: MS_NOSUID,
  dev: MS_NODEV,
  exec: MS_NOEXEC,
  async: MS_SYNCHRONOUS,
  atime: MS_NOATIME,
  diratime: MS_NODIRATIME,
  norelatime: MS_RELATIME,
  nostrictatime: MS_STRICTATIME,
  nolazytime: MS_LAZYTIME,
};
/** For mount(8), systemd and people; nothing for the kernel to do. `allow_other` is always on: this is a root's mount. */
const ignored =
  /^(?:defaults|auto|noauto|user|nouser|users|owner|group|_netdev|nofail|allow_other|comment=.*|x-.*|X-.*)$/;
/** SELinux labels go to the kernel as they are. */
const passedOn = /^(?:context|fscontext|defcontext|rootcontext)=/;

export interface MountPlan {
  readonly flags: number;
  /** Beside what every FUSE mount needs; begins with a comma unless empty. */
  readonly data: string;
}

/** The options that nobody knows are in `unknown`. */
export function planMountOptions(options: readonly string[]): MountPlan & { readonly unknown: readonly string[] } {
  let flags = 0;
  let data = "";
  const unknown: string[] = [];
  for (const option of options) {
    if (option === "" || ignored.test(option)) continue;
    if (flagsOn[option] !== undefined) flags |= flagsOn[option];
    else if (flagsOff[option] !== undefined) flags &= ~flagsOff[option];
    else if (passedOn.test(option)) data += `,${option}`;
    else unknown.push(option);
  }
  return { flags, data, unknown };
}
