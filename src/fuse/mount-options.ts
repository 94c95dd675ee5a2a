/** `-o` options of mount(8) as flags of mount(2). Pure. */
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

const setting: Readonly<Record<string, number>> = {
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

const clearing: Readonly<Record<string, number>> = {
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

/** Words that mount(8), fstab and systemd use among themselves, and those that every mount of ours has anyway. */
const ignored = new Set([
  "defaults",
  "auto",
  "noauto",
  "nofail",
  "_netdev",
  "user",
  "nouser",
  "users",
  "owner",
  "group",
]);
const given = new Set(["allow_other", "default_permissions"]);

export interface MountFlags {
  /** MS_* bits. */
  readonly flags: number;
  /** Options that are not the kernel's, in their order: for whoever reads the rest of the command line. */
  readonly others: readonly string[];
}

/** Later options win over earlier ones, as with mount(8). */
export function parseMountOptions(options: readonly string[]): MountFlags {
  let flags = 0;
  const others: string[] = [];
  for (const option of options.flatMap((list) => list.split(","))) {
    if (option === "" || ignored.has(option) || given.has(option) || option.startsWith("x-")) continue;
    if (setting[option] !== undefined) flags |= setting[option];
    else if (clearing[option] !== undefined) flags &= ~clearing[option];
    else others.push(option);
  }
  return { flags, others };
}
