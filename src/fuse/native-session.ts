/**
 * Serves a `FileSystem` through fuse-native instead of `session.ts`: for hosts where this process may not open
 * /dev/fuse itself, but libfuse gets it through the set-uid helper `fusermount`. What is lost is in `native-limits.ts`.
 *
 * libfuse runs threads of its own, which wait for the main thread with each request.
 */
import { umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import { EIO } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { FuseMountError, findMount } from "./device.ts";
import type { FileSystem } from "./filesystem.ts";
import { loadBinding } from "./native-binding.ts";
import { type NativeWishes, refuseNative } from "./native-limits.ts";
import { NativeRequests } from "./native-operations.ts";

export interface NativeSessionDeps {
  readonly mountpoint: string;
  readonly source: string;
  readonly subtype: string;
  readonly fileSystem: FileSystem;
  readonly logger: Logger;
}

/** libfuse says nothing when it is unmounted by others, so the table of mounts is looked at. */
const lookMs = 500;
/** How long the kernel believes attributes and names: nothing can be invalidated. */
const validSeconds = 1;

export class NativeSession {
  /** When the mount is gone. */
  readonly ended: Promise<"unmounted">;
  readonly #mountpoint: string;

  private constructor(mountpoint: string, fileSystem: FileSystem) {
    this.#mountpoint = mountpoint;
    this.ended = new Promise((resolve) => {
      const timer = setInterval(() => {
        if (findMount(mountpoint) !== null) return;
        clearInterval(timer);
        fileSystem.destroy?.();
        resolve("unmounted");
      }, lookMs);
    });
  }

  /** Mounts. Throws `FuseMountError` where what is wished for cannot be had, or the binding cannot be loaded. */
  static async start(deps: NativeSessionDeps, wishes: NativeWishes): Promise<NativeSession> {
    const refusal = refuseNative(wishes);
    if (refusal !== null) throw new FuseMountError(refusal, EIO);
    const Binding = loadBinding();
    const requests = new NativeRequests(deps.fileSystem, deps.logger);
    const mount = new Binding(deps.mountpoint, requests.operations(), {
      allowOther: process.getuid?.() === 0, // others need `user_allow_other` in /etc/fuse.conf
      defaultPermissions: true,
      fsname: deps.source,
      // its list of options is short, but what stands behind the subtype passes through to libfuse
      subtype: `${deps.subtype},big_writes,use_ino`,
      entryTimeout: validSeconds,
      attrTimeout: validSeconds,
      // on a timeout it frees a buffer that is still in use
      timeout: false,
    });
    await new Promise<void>((resolve, reject) => {
      mount.open((error) => {
        if (error === null) resolve();
        else
          reject(new FuseMountError(`Cannot mount on ${deps.mountpoint} through fuse-native: ${error.message}`, EIO));
      });
    });
    return new NativeSession(deps.mountpoint, deps.fileSystem);
  }

  /** Unmounts; EBUSY while files are open. Answers 0 or a negative errno. */
  stop(): Promise<number> {
    return umount2Later(byteString(this.#mountpoint), 0);
  }
}
