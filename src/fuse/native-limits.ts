/**
 * What the binding on fuse-native 2.2.6 (libfuse 2.9) cannot do. Read from its sources (`index.js`, `fuse-native.c`) and
 * tried; `docs/fuse-native.md` explains each. Pure.
 */
export type NativeLimitId =
  | "caller"
  | "times"
  | "names"
  | "inodes"
  | "unlinked"
  | "xattrs"
  | "operations"
  | "locks"
  | "acl"
  | "writeback"
  | "restart"
  | "caching";

export interface NativeLimit {
  readonly id: NativeLimitId;
  /**
   * What a program notices: a wrong result without an error, an error, or only time. A mount with wrong results has to
   * be wanted explicitly.
   */
  readonly effect: "wrong" | "error" | "slow";
  readonly text: string;
}

export const nativeLimits: readonly NativeLimit[] = [
  {
    id: "caller",
    effect: "wrong",
    text: "new files belong to who runs Chiron, and set-id bits survive writes by others",
  },
  {
    id: "times",
    effect: "wrong",
    text: "a modification time becomes the access time, in whole ms; one alone is not set",
  },
  { id: "names", effect: "wrong", text: "names that are not UTF-8 are mangled" },
  { id: "inodes", effect: "wrong", text: "inode numbers are cut to 32 bits, so two files may seem to be one" },
  {
    id: "unlinked",
    effect: "wrong",
    text: "a file that is deleted while open stays visible as .fuse_hidden… until closed",
  },
  { id: "xattrs", effect: "error", text: "there are no extended attributes (the library reads past small buffers)" },
  {
    id: "operations",
    effect: "error",
    text: "fallocate, SEEK_HOLE, copy_file_range, O_TMPFILE, syncfs and flags of rename are missing",
  },
  { id: "locks", effect: "error", text: "locks are this kernel's alone" },
  { id: "acl", effect: "error", text: "there are no access control lists" },
  { id: "writeback", effect: "slow", text: "there is no write cache, and requests are of 128 KiB at most" },
  { id: "restart", effect: "error", text: "when the process ends the mount is dead: it cannot be handed over" },
  { id: "caching", effect: "slow", text: "nothing can be invalidated, so nothing is cached for longer than a second" },
];

export interface NativeWishes {
  readonly posixAcl: boolean;
  readonly writebackCache: boolean;
  /** Locks that the file system keeps. */
  readonly locks: boolean;
  /** A restarted process goes on with the mount. */
  readonly restart: boolean;
  /** The limits whose effect is "wrong" are known and taken. */
  readonly acceptWrongResults: boolean;
}

/** Why such a mount is refused, in one line; null if it is not. */
export function refuseNative(wishes: NativeWishes): string | null {
  const wanted: readonly [boolean, NativeLimitId][] = [
    [wishes.posixAcl, "acl"],
    [wishes.writebackCache, "writeback"],
    [wishes.locks, "locks"],
    [wishes.restart, "restart"],
  ];
  const broken = nativeLimits.filter(
    ({ id, effect }) =>
      wanted.some(([wish, limit]) => wish && limit === id) || (effect === "wrong" && !wishes.acceptWrongResults),
  );
  if (broken.length === 0) return null;
  const list = broken.map(({ id, text }) => `${id}: ${text}`).join("; ");
  return `Cannot mount through fuse-native as asked (${list}): use /dev/fuse (the default), or ask for less (--accept-wrong-results takes what is only wrong): docs/fuse-native.md`;
}
