/**
 * What can be wrong with a mount before anything is started, as one line that says what to do. `checkMount` is pure;
 * `gatherFacts` looks, changes nothing, and never waits long for a file system that does not answer.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync, realpathSync, statfsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { chooseRun } from "../replica/choose-run.ts";
import { readProcessState } from "../volume/holder-watch.ts";
import type { Failure, FailureCode } from "../volume/protocol.ts";
import { type HolderConfig, listMounts } from "../volume/registry.ts";
import { contains, locate, type MountEntry, readMountTable } from "./mount-table.ts";

const PROBE_TIMEOUT_MS = 5000;
/** What the records of a new volume need. */
const LEAST_SPACE_BYTES = 1 << 20;
const LEAST_FREE_INODES = 16;
const CAP_SYS_ADMIN = 21n;

export interface Place {
  /** Without symbolic links, as far as that could be told. */
  readonly path: string;
  readonly kind: "directory" | "other" | "missing" | "no-answer";
  readonly readOnly: boolean;
  /** Its file system has no room for a new file. */
  readonly full: boolean;
  /** It has been a replica already. */
  readonly marked: boolean;
  /** The file system, and the place in it: two paths to one directory (bind mounts) have the same. */
  readonly device: string;
  readonly inside: string;
}

export interface MountFacts {
  readonly uid: number;
  /** Has CAP_SYS_ADMIN. */
  readonly mayMount: boolean;
  readonly fuse: boolean;
  readonly mountpoint: Place;
  /** What is mounted exactly there. */
  readonly mountedThere: "nothing" | "something" | "dead";
  /** By replica; null for one that is no directory (nfs://). */
  readonly replicas: readonly (Place | null)[];
  readonly witness: Place | null;
  /** Volumes that Chiron has mounted on this machine. */
  readonly others: readonly {
    readonly volume: string;
    readonly mountpoint: string;
    readonly urls: readonly string[];
  }[];
}

export function checkMount({ volume: config }: HolderConfig, facts: MountFacts): Failure | null {
  const native = config.binding === "fuse-native"; // there the set-uid helper of libfuse mounts
  if (facts.uid !== 0 && !native) return failure("not-root", "Only root can mount: use sudo");
  if (!facts.mayMount && !native) {
    return failure("not-root", "This root may not mount: give it CAP_SYS_ADMIN (a container: `--cap-add SYS_ADMIN`)");
  }
  if (!facts.fuse) {
    return failure("no-fuse", "There is no /dev/fuse: load it with `modprobe fuse`, or give the container the device");
  }
  return (
    checkMountpoint(config.mountpoint, facts) ??
    checkOthers(config, facts) ??
    checkReplicas(config, facts) ??
    checkWitness(config, facts)
  );
}

/** What a person should hear, though it stops nothing. */
export function mountWarnings({ volume: { witness } }: HolderConfig, facts: MountFacts): string[] {
  const kind = facts.witness?.kind;
  if (kind !== "missing" && kind !== "no-answer") return [];
  return [
    `The witness ${witness} ${kind === "missing" ? "does not exist" : "does not answer"}: it has no vote until the next mount`,
  ];
}

function checkMountpoint(path: string, { mountpoint, mountedThere, others }: MountFacts): Failure | null {
  if (others.some((other) => other.mountpoint === path)) {
    return failure("busy", `${path} is already mounted by Chiron: \`chiron status ${path}\` shows it`);
  }
  if (mountedThere === "dead") {
    return failure("mountpoint", `A dead mount is on ${path}: remove it with \`chiron unmount ${path}\``);
  }
  if (mountedThere === "something") {
    return failure("mountpoint", `Something is mounted on ${path} already: unmount it, or choose another directory`);
  }
  if (mountpoint.kind === "missing") return failure("mountpoint", `${path} does not exist: \`mkdir -p ${path}\``);
  if (mountpoint.kind === "other") return failure("mountpoint", `${path} is not a directory: mount on a directory`);
  if (mountpoint.kind === "no-answer") return failure("mountpoint", `${path} does not answer: look at what holds it`);
  return null;
}

function checkOthers(config: HolderConfig["volume"], { others }: MountFacts): Failure | null {
  const same = others.find((other) => other.volume === config.volume);
  if (same !== undefined) {
    return failure(
      "busy",
      `A volume "${config.volume}" is mounted on ${same.mountpoint}: choose another name with --volume`,
    );
  }
  for (const { name, url } of config.replicas) {
    const user = others.find((other) => other.urls.includes(url));
    if (user === undefined) continue;
    return failure(
      "busy",
      `Replica "${name}" (${url}) belongs to the volume that is mounted on ${user.mountpoint}: unmount that first`,
    );
  }
  return null;
}

function checkReplicas(config: HolderConfig["volume"], facts: MountFacts): Failure | null {
  // A volume that exists may be mounted without one of its replicas: its record says whether. A new one may not.
  const exists = isMarked(facts);
  const places = config.replicas.flatMap((replica, index) => {
    const place = facts.replicas[index];
    return place == null ? [] : [{ ...replica, place }];
  });
  const { mountpoint } = facts;
  for (const { name, url, place } of places) {
    const replica = `Replica "${name}" (${url})`;
    if (within(mountpoint, place)) {
      return failure(
        "replica",
        `${replica} lies under the mount point ${mountpoint.path}: it would be hidden; move one of them`,
      );
    }
    if (within(place, mountpoint)) {
      return failure(
        "mountpoint",
        `${mountpoint.path} lies in replica "${name}" (${url}): mount outside of the replicas`,
      );
    }
    if (place.kind === "other") return failure("replica", `${replica} is not a directory: a replica is a directory`);
    if (place.kind === "missing" && !exists) {
      return failure("replica", `${replica} does not exist: create the directory, or mount what it is on`);
    }
    if (place.kind === "no-answer" && !exists) {
      return failure("replica", `${replica} does not answer: look at the file system that it is on`);
    }
    if (place.readOnly && !exists) return failure("replica", `${replica} is read-only: mount its file system writable`);
    if (place.full && !exists)
      return failure("replica", `${replica} has no space left: make room, or take another one`);
  }
  for (const [index, one] of places.entries()) {
    for (const other of places.slice(index + 1)) {
      const pair = `Replicas "${one.name}" (${one.url}) and "${other.name}" (${other.url})`;
      if (same(one.place, other.place)) return failure("replica", `${pair} are one directory: give each its own`);
      if (within(one.place, other.place) || within(other.place, one.place)) {
        return failure("replica", `${pair} lie within each other: give each a directory of its own`);
      }
    }
  }
  return null;
}

function checkWitness({ witness: path, replicas }: HolderConfig["volume"], facts: MountFacts): Failure | null {
  const { witness, mountpoint } = facts;
  if (witness === null) return null;
  const what = `The witness ${path}`;
  if (witness.kind === "other") return failure("replica", `${what} is not a directory: give it one of its own`);
  if (within(mountpoint, witness))
    return failure("replica", `${what} lies under the mount point: choose another place`);
  for (const [index, place] of facts.replicas.entries()) {
    if (place === null || (!within(place, witness) && !within(witness, place))) continue;
    return failure(
      "replica",
      `${what} and replica "${replicas[index]?.name}" lie within each other: a witness is a directory on other hardware`,
    );
  }
  if (isMarked(facts)) return null; // the volume can be mounted without it
  if (witness.kind === "missing")
    return failure("replica", `${what} does not exist: create the directory, or mount it`);
  if (witness.kind === "no-answer") return failure("replica", `${what} does not answer: look at its file system`);
  if (witness.readOnly) return failure("replica", `${what} is read-only: mount its file system writable`);
  return witness.full ? failure("replica", `${what} has no space left: make room`) : null;
}

/** One of them is part of a volume already. */
function isMarked({ replicas }: MountFacts): boolean {
  return replicas.some((place) => place?.marked === true);
}

function same(a: Place, b: Place): boolean {
  return a.path === b.path || (a.device === b.device && a.inside === b.inside);
}

/** `inner` is `outer`, or below it, by path or in the file system. */
function within(outer: Place, inner: Place): boolean {
  return contains(outer.path, inner.path) || (outer.device === inner.device && contains(outer.inside, inner.inside));
}

function failure(code: FailureCode, message: string): Failure {
  return { code, message };
}

export async function gatherFacts({ volume: config }: HolderConfig): Promise<MountFacts> {
  const table = readMountTable();
  const places = config.replicas.map(({ url }) => (url.startsWith("/") ? look(url, table) : Promise.resolve(null)));
  const mountedThere = await mountedAt(config.mountpoint, table);
  // What is mounted there may hang, and matters only by being there.
  const mountpoint =
    mountedThere === "nothing"
      ? await look(config.mountpoint, table)
      : unknownPlace(config.mountpoint, table, "directory");
  return {
    uid: process.getuid?.() ?? 0,
    mayMount: mayMount(),
    fuse: existsSync("/dev/fuse"),
    mountpoint,
    mountedThere,
    replicas: await Promise.all(places),
    witness: config.witness === null ? null : await look(config.witness, table),
    others: listMounts()
      .filter(({ record }) => isAlive(record.holderPid))
      .map(({ record: { config: other } }) => ({
        volume: other.volume.volume,
        mountpoint: other.volume.mountpoint,
        urls: other.volume.replicas.map((replica) => replica.url),
      })),
  };
}

/** A leftover of a holder that was killed is no mount; its parent may not have taken note of its end yet. */
export function isAlive(pid: number): boolean {
  const process = readProcessState(pid);
  return process !== null && process.state !== "Z" && process.state !== "X";
}

async function mountedAt(path: string, table: readonly MountEntry[]): Promise<MountFacts["mountedThere"]> {
  const mount = table.findLast((entry) => entry.point === path);
  if (mount === undefined || path === "/") return "nothing";
  if (!mount.type.startsWith("fuse")) return "something";
  const { stderr } = await run("stat", ["-c", "%F", path]);
  return /not connected|aborted/i.test(stderr) ? "dead" : "something";
}

async function look(url: string, table: readonly MountEntry[]): Promise<Place> {
  if (chooseRun(url) === "threads") return await lookFromAside(resolve(url), table);
  let path = resolve(url);
  try {
    path = realpathSync(path);
  } catch {
    return unknownPlace(path, table, "missing");
  }
  const place = unknownPlace(path, table, statSync(path).isDirectory() ? "directory" : "other");
  const marked = existsSync(join(path, ".chiron", "replica.json"));
  return { ...place, readOnly: isReadOnly(path), full: isFull(statfsSync(path)), marked };
}

/** btrfs counts no inodes: 0 of 0 are free there. */
function isFull({ bsize, bfree, files, ffree }: Record<"bsize" | "bfree" | "files" | "ffree", number>): boolean {
  return bsize * bfree < LEAST_SPACE_BYTES || (files > 0 && ffree < LEAST_FREE_INODES);
}

/** The same by another process, which may hang in our place. */
async function lookFromAside(path: string, table: readonly MountEntry[]): Promise<Place> {
  const { code, stdout } = await run("stat", ["-L", "-c", "%F", path]);
  if (code === null) return unknownPlace(path, table, "no-answer");
  if (code !== 0) return unknownPlace(path, table, "missing");
  const marker = await run("stat", ["-c", "%F", join(path, ".chiron", "replica.json")]);
  const space = await run("stat", ["-f", "-c", "%S %f %c %d", path]);
  const [bsize = 0, bfree = 0, files = 0, ffree = 0] = space.stdout.split(" ").map(Number);
  const full = space.code === 0 && isFull({ bsize, bfree, files, ffree });
  const kind = stdout.trim() === "directory" ? "directory" : "other";
  return { ...unknownPlace(path, table, kind), full, marked: marker.code === 0 };
}

function unknownPlace(path: string, table: readonly MountEntry[], kind: Place["kind"]): Place {
  const location = locate(path, table);
  return {
    path,
    kind,
    readOnly: false,
    full: false,
    marked: false,
    device: location?.mount.device ?? "",
    inside: location?.inside ?? path,
  };
}

function mayMount(): boolean {
  const [, effective] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return effective === undefined || ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 1n;
}

function isReadOnly(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EROFS";
  }
}

/** `code` is null if it did not end in time. */
function run(
  program: string,
  argv: readonly string[],
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolvePromise) => {
    const child = spawn(program, argv, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, LC_ALL: "C" } });
    let stdout = "";
    let stderr = "";
    const end = (code: number | null) => {
      clearTimeout(timer);
      child.unref();
      child.stdout.destroy();
      child.stderr.destroy();
      resolvePromise({ code, stdout, stderr });
    };
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      end(null);
    }, PROBE_TIMEOUT_MS);
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    child.on("error", () => end(127));
    child.on("close", (code) => end(code ?? 127));
  });
}
