/**
 * The volume process's end of its tie to the holder: messages in and out, and what happens when the holder is gone.
 *
 * - A process that serves outlives its holder: it starts a new one on the same descriptor, which then replaces it as it
 *   would a dead process. So not even `kill -9` of the holder reaches an application.
 * - A spare, and a process whose volume was not mounted yet, end with their holder.
 * - Signals meant for the mount as a whole (a service manager stopping the group) are the holder's to act on.
 */
import { spawn } from "node:child_process";
import { flushCompileCache } from "node:module";
import { fileURLToPath } from "node:url";
import { MNT_DETACH } from "../posix/constants.ts";
import { umount2Later } from "../posix/mount.ts";
import { byteString } from "../util/byte-string.ts";
import type { FromVolume, ToVolume } from "./protocol.ts";

/** Where the holder puts the FUSE device. */
export const FUSE_DESCRIPTOR = 3;

export type StartMessage = Extract<ToVolume, { readonly type: "start" }>;
export type CallMessage = Extract<ToVolume, { readonly type: "call" }>;

export interface HolderHandlers {
  start(message: StartMessage): void;
  mounted(): void;
  call(message: CallMessage): void;
}

export interface HolderLink {
  send(message: FromVolume): void;
  /** The process is about to end by itself: the holder's going away does not matter any more. */
  release(): void;
}

/** Must be called once, early: messages that come before anyone listens are kept by Node, but only for a turn. */
export function linkToHolder(handlers: HolderHandlers): HolderLink {
  let stateDirectory: string | null = null;
  /** There is a mount that would be dead without somebody to hold it. */
  let mounted = false;
  let released = false;
  /** The mount point, where nobody else could hold the mount. */
  let native: string | null = null;
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => {});
  // A process like this one is mostly killed, and Node keeps what it compiled only at an orderly end.
  setTimeout(flushCompileCache, 2000).unref();
  process.on("message", (message: ToVolume) => {
    if (message.type === "start") {
      stateDirectory = message.config.stateDirectory;
      mounted = message.resumed;
      native = message.config.binding === "fuse-native" ? message.config.mountpoint : null;
      handlers.start(message);
    } else if (message.type === "mounted") {
      mounted = true;
      handlers.mounted();
    } else handlers.call(message);
  });
  process.on("disconnect", () => {
    if (released) return;
    if (native !== null) {
      endNative(native);
      return;
    }
    if (stateDirectory === null || !mounted) process.exit(0);
    startRescuer(stateDirectory);
  });
  return {
    send: (message) => {
      if (process.connected) process.send?.(message);
    },
    release: () => {
      released = true;
      if (process.connected) process.disconnect();
    },
  };
}

/** Without its holder nobody looks after the mount, and nobody else can: it is taken away rather than left dead. */
function endNative(mountpoint: string): void {
  setTimeout(() => process.exit(0), 2000);
  void umount2Later(byteString(mountpoint), MNT_DETACH).then(() => process.exit(0));
}

/** A holder that goes on from a dead one. It ends this process when it is ready to replace it. */
function startRescuer(stateDirectory: string): void {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const program = fileURLToPath(new URL(`./holder-main.${extension}`, import.meta.url));
  const rescuer = spawn(process.execPath, [program, "adopt", stateDirectory, String(process.pid)], {
    cwd: "/",
    detached: true,
    stdio: ["ignore", "inherit", "inherit", FUSE_DESCRIPTOR],
  });
  rescuer.unref();
  rescuer.on("error", () => setTimeout(() => startRescuer(stateDirectory), 1000));
  rescuer.on("exit", (code) => {
    // It ends this process before it can fail; if it could not even begin, try again in a while.
    if (code !== 0) setTimeout(() => startRescuer(stateDirectory), 1000);
  });
}
