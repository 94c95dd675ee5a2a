/** What is mounted where, from /proc/self/mountinfo: read without touching any mount, so that a hung one hangs nobody. */
import { readFileSync } from "node:fs";

export interface MountEntry {
  readonly mountpoint: string;
  /** Directory of the file system that is mounted there, "/" mostly. */
  readonly root: string;
  /** `major:minor`, the same for a file system and its binds. */
  readonly device: string;
  readonly type: string;
  readonly source: string;
  readonly readOnly: boolean;
}

/** Our mounts' type in the table. */
export const fuseType = "fuse.chiron";

/** Lines are `id parent dev root mountpoint options [optional…] - type source superoptions` (proc(5)). */
export function parseMountTable(text: string): MountEntry[] {
  return text.split("\n").flatMap((line) => {
    const [left = "", right = ""] = line.split(" - ");
    const [, , device, root, mountpoint, options] = left.split(" ");
    const [type, source] = right.split(" ");
    if (!device || !root || !mountpoint || !options || !type) return [];
    const readOnly = options.split(",").includes("ro");
    return [
      {
        mountpoint: unescapeOctal(mountpoint),
        root: unescapeOctal(root),
        device,
        type,
        source: unescapeOctal(source ?? ""),
        readOnly,
      },
    ];
  });
}

/** Blank, tab, newline and backslash are octal there. */
function unescapeOctal(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** The uppermost mount there, which is the one that counts. */
export function mountAt(table: readonly MountEntry[], path: string): MountEntry | null {
  return table.findLast(({ mountpoint }) => mountpoint === path) ?? null;
}

export function readMountTable(): MountEntry[] {
  return parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"));
}
