/**
 * Where the calls of a directory run: on the loop if its file system is a local one, on threads if it may hang, told by
 * the mount table, without touching a mount that may hang already.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { posix } from "node:path";
import { byteString } from "../util/byte-string.ts";

export type Run = "loop" | "threads";

/** File systems whose calls wait for another process or machine. Whatever is not listed counts as local. */
const remote =
  /^(fuse|fuseblk|fuse\..*|nfs|nfs4|cifs|smb3|smbfs|ceph|9p|afs|glusterfs|lustre|gfs2|ocfs2|beegfs|orangefs|virtiofs|gpfs|autofs|acfs|panfs|vboxsf|vmhgfs|coda|davfs)$/;

const maxLinks = 40;

/** By the type of the file system that holds `path`, an absolute path, or any on the way to it. */
export function chooseRun(path: string): Run {
  const mounts = parseMountInfo(readFileSync("/proc/self/mountinfo", "latin1"));
  let rest = path.split("/");
  let at = "/";
  let links = 0;
  while (rest.length > 0) {
    const next = posix.join(at, rest.shift() as string);
    if (remote.test(fileSystemOf(next, mounts))) return "threads";
    const target = linkTarget(next);
    if (target === null) {
      at = next;
    } else {
      if (++links > maxLinks) return "loop"; // connect says what is wrong
      rest = [...posix.resolve(at, target).split("/"), ...rest];
      at = "/";
    }
  }
  return "loop";
}

/** null for what is no link, or is not there. */
function linkTarget(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}

export interface Mount {
  /** Latin1, unescaped. */
  readonly point: string;
  readonly type: string;
  /** Where the file system lies, as `/proc` has it: "/dev/sda1". */
  readonly source: string;
  /** "8:1"; of a file system without a device, a number of its own. */
  readonly device: string;
}

/** `proc_pid_mountinfo(5)`: later mounts lie on top of earlier ones. */
export function parseMountInfo(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    const [type, source = ""] = fields.slice(fields.indexOf("-") + 1);
    const [device = "", , point] = fields.slice(2);
    if (point === undefined || type === undefined) continue;
    mounts.push({ point: unescapeOctal(point), type, source: unescapeOctal(source), device });
  }
  return mounts;
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** File systems without symbolic links. */
const withoutLinks = /^(vfat|msdos|exfat|hfs|adfs|affs|cramfs)$/;

/** Can a directory hold symbolic links? Told by the type of its file system, before anything is written to it. */
export function mayHoldLinks(path: string): boolean {
  if (chooseRun(path) === "threads") return true; // its probe says
  return !withoutLinks.test(fileSystemOf(path, parseMountInfo(readFileSync("/proc/self/mountinfo", "latin1"))));
}

/** Type of the mount that a path without links lies on. */
export function fileSystemOf(path: string, mounts: readonly Mount[]): string {
  return mountOf(path, mounts).type;
}

/** The mount that a path without links lies on. */
export function mountOf(path: string, mounts: readonly Mount[]): Mount {
  const place = byteString(posix.normalize(path));
  let best: Mount = { point: "", type: "", source: "", device: "" };
  for (const mount of mounts) {
    const holds = mount.point === "/" || place === mount.point || place.startsWith(`${mount.point}/`);
    if (holds && mount.point.length >= best.point.length) best = mount;
  }
  return best;
}
