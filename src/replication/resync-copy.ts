/**
 * Makes bytes, attributes and extended attributes of one copy like those of another. Only what is different is written:
 * blocks are compared first, holes stay holes, and attributes are set in the order in which none spoils another.
 */
import type { AttrChange, Replica, ReplicaHandle, TreeObject } from "../replica/replica.ts";
import { EOPNOTSUPP } from "../util/errno.ts";
import { type FileAttr, isRegular, S_IFLNK, S_IFMT } from "../util/file-attr.ts";
import { type Copy, must, xattrsOf } from "./replica-call.ts";
import { SegmentReader } from "./segments.ts";

const blockBytes = 4096;
const PUNCH_HOLE_KEEP_SIZE = 3;

/** A file that is open on a replica, with what is known of its holes, and memory for a part of it. */
export class OpenCopy implements Copy {
  readonly replica: Replica;
  readonly object: TreeObject;
  readonly handle: ReplicaHandle;
  readonly segments: SegmentReader;
  #memory = Buffer.alloc(0);

  constructor(copy: Copy, handle: ReplicaHandle) {
    this.replica = copy.replica;
    this.object = copy.object;
    this.handle = handle;
    this.segments = new SegmentReader(copy, handle);
  }

  memory(bytes: number): Buffer {
    if (this.#memory.length < bytes) this.#memory = Buffer.allocUnsafe(bytes);
    return this.#memory.subarray(0, bytes);
  }
}

/** Makes bytes [start, end) alike, up to the source's size. Answers how many bytes were written. */
export async function copyBytes(
  source: OpenCopy,
  target: OpenCopy,
  start: number,
  end: number,
  sizeBytes: number,
): Promise<number> {
  let written = 0;
  for await (const segment of source.segments.between(start, Math.min(end, sizeBytes))) {
    if (segment.isData) written += await copyData(source, target, segment.start, segment.end);
    // A hole at the end takes the last block whole: only then is it freed.
    else await makeHole(target, segment.start, segment.end, segment.end === sizeBytes);
  }
  return written;
}

async function copyData(source: OpenCopy, target: OpenCopy, start: number, end: number): Promise<number> {
  const wanted = source.memory(end - start);
  const length = await must(source, "read", source.replica.read(source.handle, wanted, start));
  const there = target.memory(length);
  let written = 0;
  // Where the target has a hole, data are written even if they are zeros.
  for await (const segment of target.segments.between(start, start + length)) {
    const from = segment.start - start;
    const to = segment.end - start;
    let known = 0;
    if (segment.isData) {
      known = await must(target, "read", target.replica.read(target.handle, there.subarray(from, to), segment.start));
    }
    written += await writeDifferent(target, start, wanted, there, from, to, from + known);
  }
  return written;
}

/** Writes the blocks of wanted[from, to) that differ from what is there, which is known up to `known`. */
async function writeDifferent(
  target: OpenCopy,
  start: number,
  wanted: Buffer,
  there: Buffer,
  from: number,
  to: number,
  known: number,
): Promise<number> {
  let written = 0;
  let pending = -1;
  const flush = async (until: number): Promise<void> => {
    if (pending < 0) return;
    const data = wanted.subarray(pending, until);
    await must(target, "write", target.replica.write(target.handle, data, start + pending));
    written += data.length;
    pending = -1;
  };
  for (let at = from; at < to; ) {
    const next = Math.min(to, at + blockBytes - ((start + at) % blockBytes));
    if (next <= known && wanted.compare(there, at, next, at, next) === 0) await flush(at);
    else if (pending < 0) pending = at;
    at = next;
  }
  await flush(to);
  return written;
}

/** Frees what the target has there: in one go up to the end, also past its own, so that whole blocks are freed. */
async function makeHole(target: OpenCopy, start: number, end: number, isLast: boolean): Promise<void> {
  const stop = isLast ? Math.ceil(end / blockBytes) * blockBytes : end;
  for await (const segment of target.segments.between(start, end)) {
    if (!segment.isData) continue;
    const { replica, handle } = target;
    const punched = await replica.fallocate(handle, PUNCH_HOLE_KEEP_SIZE, segment.start, stop - segment.start);
    if (punched >= 0) {
      target.segments.forget();
      return;
    }
    if (punched !== -EOPNOTSUPP) await must(target, "punch a hole in", punched);
    await zeroWhereNeeded(target, segment.start, segment.end);
  }
}

/** A backend without holes: zeros, and only where there is something else. */
async function zeroWhereNeeded(target: OpenCopy, start: number, end: number): Promise<void> {
  const there = Buffer.alloc(Math.min(end - start, 256 * 1024));
  for (let at = start; at < end; ) {
    const part = there.subarray(0, Math.min(there.length, end - at));
    const length = await must(target, "read", target.replica.read(target.handle, part, at));
    if (length === 0) return;
    if (!part.subarray(0, length).every((byte) => byte === 0)) {
      await must(target, "write", target.replica.write(target.handle, Buffer.alloc(length), at));
    }
    at += length;
  }
}

/** Makes size, owner, extended attributes, mode and times alike. Answers true if anything was different. */
export async function copyAttributes(source: Copy, wanted: FileAttr, target: Copy, there: FileAttr): Promise<boolean> {
  const isLink = (wanted.mode & S_IFMT) === S_IFLNK;
  const first: { -readonly [K in keyof AttrChange]: AttrChange[K] } = {};
  if (isRegular(wanted.mode) && wanted.size !== there.size) first.size = wanted.size;
  if (wanted.uid !== there.uid) first.uid = wanted.uid;
  if (wanted.gid !== there.gid) first.gid = wanted.gid;
  let changed = await apply(target, first);
  if (await copyXattrs(source, target)) changed = true;
  // Changes of owner, size and ACLs touch the mode and the times, so these come last.
  const last: { -readonly [K in keyof AttrChange]: AttrChange[K] } = {};
  if (!isLink && (changed || (wanted.mode & 0o7777) !== (there.mode & 0o7777))) last.mode = wanted.mode & 0o7777;
  if (changed || wanted.mtime !== there.mtime || wanted.mtimeNsec !== there.mtimeNsec) {
    last.mtime = { seconds: wanted.mtime, nsec: wanted.mtimeNsec };
  }
  if (await apply(target, last)) changed = true;
  return changed;
}

async function apply(target: Copy, change: AttrChange): Promise<boolean> {
  if (Object.keys(change).length === 0) return false;
  await must(target, "change attributes of", target.replica.setattr(target.object, -1, change, null));
  return true;
}

async function copyXattrs(source: Copy, target: Copy): Promise<boolean> {
  const wanted = await xattrsOf(source);
  const there = await xattrsOf(target);
  let changed = false;
  for (const [name, value] of wanted) {
    const old = there.get(name);
    if (old !== undefined && Buffer.compare(old, value) === 0) continue;
    await must(target, "set extended attributes of", target.replica.setxattr(target.object, name, value, 0));
    changed = true;
  }
  for (const name of there.keys()) {
    if (wanted.has(name)) continue;
    await must(target, "remove extended attributes of", target.replica.removexattr(target.object, name));
    changed = true;
  }
  return changed;
}
