/**
 * Compares one object on two replicas: type, mode, owner, size, modification time, links, device, target, extended
 * attributes, contents and holes. What is told apart here is what the volume promises to be the same everywhere.
 */
import type { ReplicaHandle } from "../replica/replica.ts";
import { printable } from "../util/byte-string.ts";
import { type FileAttr, isDirectory, isRegular, S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT } from "../util/file-attr.ts";
import { attributesOf, type Copy, must, readLink, xattrsOf } from "./replica-call.ts";
import { SegmentReader } from "./segments.ts";
import type { Throttle } from "./throttle.ts";

export type DifferenceKind =
  | "missing"
  | "extra"
  | "type"
  | "mode"
  | "owner"
  | "size"
  | "mtime"
  | "links"
  | "device"
  | "target"
  | "xattrs"
  | "content"
  | "holes";

export interface Difference {
  readonly kind: DifferenceKind;
  /** For people: what the first and the second have. */
  readonly detail: string;
}

export interface CompareOptions {
  readonly throttle: Throttle;
  readonly signal: AbortSignal;
  /** Contents of files whose attributes are the same: "never", "always", or by the caller's reasons. */
  readonly contents: boolean;
  /** Whether holes are where they should be; only where both backends tell. */
  readonly holes: boolean;
  /** Times coarser than this many nanoseconds are not told apart. */
  readonly timeGranularityNsec?: number;
}

export const compareChunkBytes = 256 * 1024;
/** File systems round holes and preallocate; less than this is not worth a word. */
const holeToleranceBytes = 64 * 1024;

/** What two sets of attributes say; without contents, targets and extended attributes. Pure. */
export function compareAttributes(a: FileAttr, b: FileAttr, timeGranularityNsec = 1): Difference[] {
  const differences: Difference[] = [];
  const tell = (kind: DifferenceKind, first: string, second: string): void => {
    if (first !== second) differences.push({ kind, detail: `${first} and ${second}` });
  };
  const type = a.mode & S_IFMT;
  tell("type", type.toString(8), (b.mode & S_IFMT).toString(8));
  if (differences.length > 0) return differences;
  if (type !== S_IFLNK) tell("mode", (a.mode & 0o7777).toString(8), (b.mode & 0o7777).toString(8));
  tell("owner", `${a.uid}:${a.gid}`, `${b.uid}:${b.gid}`);
  if (isRegular(type)) tell("size", String(a.size), String(b.size));
  if (!isDirectory(type)) tell("links", String(a.nlink), String(b.nlink));
  if (type === S_IFCHR || type === S_IFBLK) tell("device", String(a.rdev), String(b.rdev));
  tell("mtime", timeText(a, timeGranularityNsec), timeText(b, timeGranularityNsec));
  return differences;
}

function timeText(attr: FileAttr, granularityNsec: number): string {
  const nsec = attr.mtimeNsec - (attr.mtimeNsec % granularityNsec);
  return `${granularityNsec >= 1e9 ? attr.mtime - (attr.mtime % (granularityNsec / 1e9)) : attr.mtime}.${String(nsec).padStart(9, "0")}`;
}

/** Everything that is different between two copies of one object; a directory's entries are the caller's. */
export async function compareCopies(a: Copy, b: Copy, options: CompareOptions): Promise<Difference[]> {
  const [first, second] = [await attributesOf(a), await attributesOf(b)];
  if (first === null || second === null) {
    if (first === second) return [];
    const has = first === null ? b : a;
    return [{ kind: first === null ? "extra" : "missing", detail: `only on "${has.replica.name}"` }];
  }
  const differences = compareAttributes(first, second, options.timeGranularityNsec);
  if (differences.some(({ kind }) => kind === "type")) return differences;
  if ((first.mode & S_IFMT) === S_IFLNK) {
    const [x, y] = [await readLink(a), await readLink(b)];
    if (x !== y) differences.push({ kind: "target", detail: `"${printable(x)}" and "${printable(y)}"` });
  }
  const xattrs = await compareXattrs(a, b);
  if (xattrs !== null) differences.push(xattrs);
  if (isRegular(first.mode) && first.size === second.size && (options.contents || options.holes) && first.size > 0) {
    differences.push(...(await compareFiles(a, b, first.size, options)));
  }
  return differences;
}

async function compareXattrs(a: Copy, b: Copy): Promise<Difference | null> {
  const [first, second] = [await xattrsOf(a), await xattrsOf(b)];
  for (const name of new Set([...first.keys(), ...second.keys()])) {
    const [x, y] = [first.get(name), second.get(name)];
    if (x !== undefined && y !== undefined && Buffer.compare(x, y) === 0) continue;
    const how =
      x === undefined ? `only on "${b.replica.name}"` : y === undefined ? `only on "${a.replica.name}"` : "value";
    return { kind: "xattrs", detail: `${printable(name)}: ${how}` };
  }
  return null;
}

async function compareFiles(a: Copy, b: Copy, sizeBytes: number, options: CompareOptions): Promise<Difference[]> {
  const handleA = await must(a, "open", a.replica.open(a.object, "read"));
  try {
    const handleB = await must(b, "open", b.replica.open(b.object, "read"));
    try {
      const differences: Difference[] = [];
      if (options.contents) {
        const at = await firstDifference(a, handleA, b, handleB, sizeBytes, options);
        if (at !== null) differences.push({ kind: "content", detail: `from byte ${at} on` });
      }
      if (options.holes && differences.length === 0) {
        const [x, y] = [await dataBytes(a, handleA, sizeBytes), await dataBytes(b, handleB, sizeBytes)];
        if (Math.abs(x - y) > holeToleranceBytes)
          differences.push({ kind: "holes", detail: `${x} and ${y} bytes of data` });
      }
      return differences;
    } finally {
      await b.replica.close(handleB);
    }
  } finally {
    await a.replica.close(handleA);
  }
}

async function dataBytes(copy: Copy, handle: ReplicaHandle, sizeBytes: number): Promise<number> {
  let bytes = 0;
  for await (const { start, end, isData } of new SegmentReader(copy, handle).between(0, sizeBytes))
    if (isData) bytes += end - start;
  return bytes;
}

/** Where two files begin to differ, or null. Bytes that are holes on both are not read. */
async function firstDifference(
  a: Copy,
  handleA: ReplicaHandle,
  b: Copy,
  handleB: ReplicaHandle,
  sizeBytes: number,
  options: CompareOptions,
): Promise<number | null> {
  const x = Buffer.alloc(Math.min(compareChunkBytes, sizeBytes));
  const y = Buffer.alloc(x.length);
  const [nextA, nextB] = [nextData(a, handleA, sizeBytes), nextData(b, handleB, sizeBytes)];
  for (let at = 0; at < sizeBytes; ) {
    at = Math.min(await nextA(at), await nextB(at));
    if (at >= sizeBytes) break;
    const length = Math.min(x.length, sizeBytes - at);
    const answers = [
      a.replica.read(handleA, x.subarray(0, length), at),
      b.replica.read(handleB, y.subarray(0, length), at),
    ] as const;
    const m = await must(a, "read", answers[0]);
    const n = await must(b, "read", answers[1]);
    if (m !== n || x.compare(y, 0, n, 0, m) !== 0) {
      for (let i = 0; i < Math.min(m, n); i++) if (x[i] !== y[i]) return at + i;
      return at + Math.min(m, n);
    }
    if (m < length) break; // cut short meanwhile, on both
    at += length;
    await options.throttle.pace(2 * length, options.signal);
  }
  return null;
}

/** A function that tells where the data go on, asking the replica only once for each segment. */
function nextData(copy: Copy, handle: ReplicaHandle, sizeBytes: number): (at: number) => Promise<number> {
  const segments = new SegmentReader(copy, handle).between(0, sizeBytes);
  let current: { readonly start: number; readonly end: number } | null = null;
  let ended = false;
  return async (at) => {
    while (!ended && (current === null || current.end <= at)) {
      const next = await segments.next();
      if (next.done === true) ended = true;
      else if (next.value.isData) current = next.value;
    }
    if (ended && (current === null || current.end <= at)) return sizeBytes;
    return Math.max(at, current?.start ?? sizeBytes);
  };
}
