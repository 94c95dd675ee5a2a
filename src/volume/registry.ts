/**
 * Which volumes are mounted on this machine: a directory `/run/chiron/<id>` for each mount, with `mount.json` (what was
 * asked for, and by which process it is held), `control.sock`, the volume process's state log and status page, and
 * `lock`, which the holder keeps locked as long as it lives. A directory whose lock is free is a leftover.
 *
 * Nothing here touches the mount point itself: a mount that hangs must not hang those who look it up.
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { VolumeConfig } from "./protocol.ts";

/** What a holder is started with, and what a successor of it needs to know. */
export interface HolderConfig {
  readonly volume: VolumeConfig;
  /** What the mount table shows as the device. */
  readonly source: string;
  /** Run by a shell for each event. */
  readonly onEvent: string | null;
  /** Where holder and volume process log; null is standard error. */
  readonly logFile: string | null;
}

/** `mount.json`. */
export interface MountRecord {
  readonly formatVersion: 1;
  readonly holderPid: number;
  /** What is started as the volume process. */
  readonly volumeProgram: string;
  readonly programVersion: string;
  readonly startedAt: string;
  /** `detached`: taken out of the tree, but files are still open. */
  readonly state: "starting" | "mounted" | "detached";
  readonly volumeId: string | null;
  readonly config: HolderConfig;
}

export interface RegistryEntry {
  readonly directory: string;
  readonly record: MountRecord;
}

export function runDirectory(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const personal = process.getuid?.() === 0 ? undefined : env["XDG_RUNTIME_DIR"];
  return env["CHIRON_RUN_DIR"] ?? join(personal ?? "/run", "chiron");
}

/** The directory of a mount point: its last name, for people, and a hash of the whole, for uniqueness. Short enough for
 *  the path of a socket (108 bytes), however long the mount point is. */
export function mountDirectory(mountpoint: string, run = runDirectory()): string {
  const slug = basename(mountpoint).replace(/[^A-Za-z0-9_.-]+/g, "-");
  const hash = createHash("sha256").update(mountpoint).digest("hex").slice(0, 8);
  return join(run, `${slug.slice(0, 24) || "root"}-${hash}`);
}

/** An absolute path without symbolic links on the way to it. The last component is never looked at: it may be a dead mount. */
export function canonicalMountpoint(path: string): string {
  const absolute = resolve(path);
  const parent = dirname(absolute);
  if (parent === absolute) return absolute;
  try {
    return join(realpathSync(parent), basename(absolute));
  } catch {
    return absolute;
  }
}

export function controlSocket(directory: string): string {
  return join(directory, "control.sock");
}

/** Every mount on record, leftovers of processes that are gone included. */
export function listMounts(run = runDirectory()): RegistryEntry[] {
  let names: string[];
  try {
    names = readdirSync(run);
  } catch {
    return [];
  }
  return names.sort().flatMap((name) => {
    const directory = join(run, name);
    const record = readRecord(directory);
    return record === null ? [] : [{ directory, record }];
  });
}

/** The mount at this path, or the one of this volume name. */
export function findMount(pathOrVolume: string, run = runDirectory()): RegistryEntry | null {
  const directory = mountDirectory(canonicalMountpoint(pathOrVolume), run);
  const record = readRecord(directory);
  if (record !== null) return { directory, record };
  if (pathOrVolume.includes("/")) return null;
  return listMounts(run).find((entry) => entry.record.config.volume.volume === pathOrVolume) ?? null;
}

export function readRecord(directory: string): MountRecord | null {
  try {
    const record = JSON.parse(readFileSync(join(directory, "mount.json"), "utf8")) as MountRecord;
    return record.formatVersion === 1 ? record : null;
  } catch {
    return null;
  }
}

/** Something is on record there that this version cannot read: what to do; null if not. */
export function recordProblem(directory: string): string | null {
  let text: string;
  try {
    text = readFileSync(join(directory, "mount.json"), "utf8");
  } catch {
    return null;
  }
  let version: unknown;
  try {
    version = (JSON.parse(text) as { readonly formatVersion?: unknown } | null)?.formatVersion;
  } catch {
    version = undefined;
  }
  if (version === 1) return null;
  return typeof version === "number" && version > 1
    ? `${directory}/mount.json was written by a newer version of Chiron: use that one`
    : `${directory}/mount.json is damaged: unmount with umount(8), which the holder follows, and mount again`;
}

/** Whole or not at all: a reader never sees half a record. */
export function writeRecord(directory: string, record: MountRecord): void {
  const temporary = join(directory, `mount.json.${process.pid}`);
  writeFileSync(temporary, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
  renameSync(temporary, join(directory, "mount.json"));
}

/**
 * Takes the directory of a mount: its lock's descriptor, which must stay open, or null if a living holder has it.
 * `keep` leaves what is there, for a holder that goes on from an earlier one; otherwise leftovers are removed.
 */
export function claimDirectory(
  directory: string,
  tryLock: (fd: number) => boolean,
  options: { readonly keep: boolean },
): number | null {
  mkdirSync(dirname(directory), { recursive: true, mode: 0o755 });
  const path = join(directory, "lock");
  for (;;) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") continue; // removed since: its holder has just ended
      throw error;
    }
    if (!tryLock(fd)) {
      closeSync(fd);
      return null;
    }
    if (isStill(path, fd)) {
      if (!options.keep) removeLeftovers(directory);
      return fd;
    }
    closeSync(fd); // we locked a file that its holder was just removing
  }
}

function isStill(path: string, fd: number): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.ino === fstatSync(fd).ino;
}

function removeLeftovers(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (name !== "lock") rmSync(join(directory, name), { recursive: true, force: true });
  }
}

/** The mount has ended; to be called with the lock still held. */
export function releaseDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
