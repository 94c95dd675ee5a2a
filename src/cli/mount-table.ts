/** /proc/self/mountinfo (proc_pid_mountinfo(5)): what is mounted where. */
import { readFileSync } from "node:fs";
import { posix } from "node:path";

export interface MountEntry {
  /** "8:1" */
  readonly device: string;
  /** The directory of the file system that is mounted. */
  readonly root: string;
  readonly point: string;
  readonly type: string;
  readonly readOnly: boolean;
}

export function readMountTable(): MountEntry[] {
  return parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"));
}

export function parseMountTable(text: string): MountEntry[] {
  return text.split("\n").flatMap((line) => {
    const fields = line.split(" ");
    const dash = fields.indexOf("-");
    const [, , device, root, point, options] = fields;
    const type = fields[dash + 1];
    const superOptions = fields[dash + 3];
    if (dash < 0 || device === undefined || root === undefined || point === undefined || type === undefined) return [];
    const readOnly = `${options},${superOptions}`.split(",").includes("ro");
    return [{ device, root: unescapeField(root), point: unescapeField(point), type, readOnly }];
  });
}

/** Space, tab, newline and backslash are three octal digits there. */
function unescapeField(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Where a path is: the mount that holds it (a later one lies on top), and its place in that file system. */
export function locate(path: string, table: readonly MountEntry[]): { mount: MountEntry; inside: string } | null {
  let best: MountEntry | null = null;
  for (const mount of table) {
    if (contains(mount.point, path) && (best === null || mount.point.length >= best.point.length)) best = mount;
  }
  if (best === null) return null;
  return { mount: best, inside: posix.join(best.root, path.slice(best.point === "/" ? 0 : best.point.length)) };
}

/** `path` is `directory`, or below it. Both absolute and normal. */
export function contains(directory: string, path: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}
