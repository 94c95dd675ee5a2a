/** The part of fuse-native that is used, and loading it: an optional dependency with a compiled part. */
import { createRequire } from "node:module";
import { ENODEV } from "../util/errno.ts";
import { errorText } from "../util/logger.ts";
import { FuseMountError } from "./device.ts";

/** As `struct stat`, times in milliseconds. */
export interface NativeStat {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly dev: number;
  readonly nlink: number;
  readonly ino: number;
  readonly rdev: number;
  readonly blksize: number;
  readonly blocks: number;
  readonly atime: number;
  readonly mtime: number;
  readonly ctime: number;
}

/** A result >= 0 or a negative errno, and what goes with a success. */
export type NativeDone<T = never> = (result: number, value?: T) => void;

export type NativeOperations = Readonly<Record<string, (...args: never[]) => void>>;

export interface NativeMount {
  open(done: (error: Error | null) => void): void;
}

export type NativeBinding = new (
  mountpoint: string,
  operations: NativeOperations,
  options: Readonly<Record<string, string | number | boolean>>,
) => NativeMount;

export function loadBinding(): NativeBinding {
  try {
    return createRequire(import.meta.url)("fuse-native") as NativeBinding;
  } catch (error) {
    const why = errorText(error).split("\n")[0];
    throw new FuseMountError(
      `Cannot load fuse-native: ${why}; npm install fuse-native (built for x86-64 alone), or use /dev/fuse, the default`,
      ENODEV,
    );
  }
}
