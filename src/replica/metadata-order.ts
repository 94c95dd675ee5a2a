/**
 * Does the file system of a directory persist metadata operations in their order? Intents rest on that: an intent that was
 * recorded first is then on the disk before the change that it names. Where the answer is no, or not known, each intent
 * has to be flushed before its change.
 *
 * - ext4 does with a journal and without fast commits, which log single files beside it; xfs does. What is in memory alone
 *   has nothing to lose. On a server's file systems what was answered is the server's to keep.
 * - btrfs and f2fs persist a file that is flushed, and what belongs to it, ahead of what came before.
 */
import { closeSync, openSync, readFileSync, readlinkSync, readSync, realpathSync } from "node:fs";
import { posix } from "node:path";
import { chooseRun, type Mount, mountOf, parseMountInfo } from "./choose-run.ts";

// The superblock of ext4 (`struct ext4_super_block`).
const superblockOffset = 1024;
const compatOffset = 0x5c;
const hasJournal = 0x4;
const fastCommit = 0x400;

/** Touches nothing that may hang. */
export function keepsMetadataOrder(path: string): boolean {
  try {
    if (chooseRun(path) === "threads") return true; // a server's
    return isOrdered(mountOf(realpathSync(path), parseMountInfo(readFileSync("/proc/self/mountinfo", "latin1"))));
  } catch {
    return false;
  }
}

function isOrdered(mount: Mount): boolean {
  if (mount.type === "ext4" || mount.type === "ext3") {
    const compat = ext4Features(mount);
    return compat !== null && (compat & hasJournal) !== 0 && (compat & fastCommit) === 0;
  }
  return ["xfs", "tmpfs", "ramfs"].includes(mount.type);
}

/** The compatible features of the file system on this device; null if that cannot be read. */
function ext4Features({ source, device }: Mount): number | null {
  for (const path of [source, `/dev/block/${device}`, `/dev/${deviceName(device)}`]) {
    try {
      const fd = openSync(path, "r");
      try {
        const bytes = Buffer.alloc(superblockOffset);
        if (readSync(fd, bytes, 0, bytes.length, superblockOffset) < bytes.length) continue;
        if (bytes.readUInt16LE(0x38) === 0xef53) return bytes.readUInt32LE(compatOffset);
      } finally {
        closeSync(fd);
      }
    } catch {
      // another name of it
    }
  }
  return null;
}

function deviceName(device: string): string {
  try {
    return posix.basename(readlinkSync(`/sys/dev/block/${device}`));
  } catch {
    return device;
  }
}
