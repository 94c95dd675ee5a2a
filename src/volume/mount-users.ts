/**
 * Who still has a file system that was unmounted here: other mount namespaces (containers, services with private mounts)
 * got a copy of the mount when they were made, and the kernel ends the file system only with the last copy. All of it is
 * read from /proc, so that a file system which does not answer is never touched.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface MountUsers {
  /** Mount namespaces that have the file system mounted. */
  readonly copies: number;
  /** Processes with an open file, a mapped file or a working directory on it. */
  readonly users: readonly { readonly pid: number; readonly name: string }[];
}

/** Mounts of a device ("0:53") in a /proc/PID/mountinfo: the mounts' ids and where they are. */
export function mountsOfDevice(mountinfo: string, device: string): { readonly id: string; readonly point: string }[] {
  return mountinfo.split("\n").flatMap((line) => {
    const [id, , dev, , point] = line.split(" ");
    return dev === device && id !== undefined && point !== undefined ? [{ id, point }] : [];
  });
}

/** Does a /proc/PID/maps show memory of a file on this device? It writes device numbers in hexadecimal. */
export function mapsDevice(maps: string, device: string): boolean {
  const [major = 0, minor = 0] = device.split(":").map(Number);
  const hex = `${major.toString(16).padStart(2, "0")}:${minor.toString(16).padStart(2, "0")}`;
  return maps.split("\n").some((line) => line.split(/\s+/)[3] === hex);
}

export function findMountUsers(device: string): MountUsers {
  const namespaces = new Map<string, readonly { readonly id: string; readonly point: string }[]>();
  const users: { pid: number; name: string }[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const namespace = attempt(() => readlinkSync(`/proc/${pid}/ns/mnt`));
    if (namespace === null) continue; // a kernel thread, or it has ended
    let mounts = namespaces.get(namespace);
    if (mounts === undefined) {
      mounts = mountsOfDevice(attempt(() => readFileSync(`/proc/${pid}/mountinfo`, "utf8")) ?? "", device);
      namespaces.set(namespace, mounts);
    }
    if (uses(pid, mounts, device)) {
      users.push({ pid: Number(pid), name: (attempt(() => readFileSync(`/proc/${pid}/comm`, "utf8")) ?? "?").trim() });
    }
  }
  return { copies: [...namespaces.values()].filter((mounts) => mounts.length > 0).length, users };
}

function uses(
  pid: string,
  mounts: readonly { readonly id: string; readonly point: string }[],
  device: string,
): boolean {
  if (mapsDevice(attempt(() => readFileSync(`/proc/${pid}/maps`, "utf8")) ?? "", device)) return true;
  if (mounts.length === 0) return false;
  const cwd = attempt(() => readlinkSync(`/proc/${pid}/cwd`));
  if (cwd !== null && mounts.some(({ point }) => cwd === point || cwd.startsWith(`${point}/`))) return true;
  const ids = new Set(mounts.map(({ id }) => id));
  return (attempt(() => readdirSync(`/proc/${pid}/fdinfo`)) ?? []).some((fd) => {
    const info = attempt(() => readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8")) ?? "";
    return ids.has(/^mnt_id:\s*(\d+)$/m.exec(info)?.[1] ?? "");
  });
}

/** null for what has ended in the meantime, or may not be looked at. */
function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
