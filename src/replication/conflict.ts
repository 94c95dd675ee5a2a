/**
 * Copies that have diverged because an administrator forced a mount: before the losing one is made like the others,
 * each of its files that they have otherwise, or not at all, is kept in the volume as `name.conflict-<replica>-<time>`.
 * Nothing is served meanwhile. Files are never overwritten, and every conflict is listed.
 */
import type { Replica, TreeObject } from "../replica/replica.ts";
import { type ByteString, printable } from "../util/byte-string.ts";
import { type FileAttr, isDirectory, isRegular } from "../util/file-attr.ts";
import { compareCopies } from "./compare.ts";
import { CONTROL_DIRECTORY } from "./orphans.ts";
import { attributesOf, type Copy, must, namesIn } from "./replica-call.ts";
import { copyAttributes, copyBytes, OpenCopy } from "./resync-copy.ts";
import { createLike } from "./resync-names.ts";
import type { Throttle } from "./throttle.ts";

export interface ConflictDeps {
  /** Where the conflicting versions are kept: all members, the leader first. */
  readonly members: readonly Replica[];
  readonly loser: Replica;
  /** Told before anything is added to this directory, or to one above it, of the members. */
  readonly beforeKeep?: (directory: TreeObject) => Promise<void>;
  readonly time: Date;
  readonly throttle: Throttle;
  readonly signal: AbortSignal;
}

export interface Conflict {
  /** From the volume's root, printable. */
  readonly path: string;
  readonly keptAs: string;
}

export async function keepConflicts(deps: ConflictDeps): Promise<readonly Conflict[]> {
  const conflicts: Conflict[] = [];
  await walk(deps, { parent: null, name: "" }, "", conflicts);
  for (const member of deps.members) {
    await must({ replica: member, object: { parent: null, name: "" } }, "flush", member.sync());
  }
  return conflicts;
}

async function walk(deps: ConflictDeps, directory: TreeObject, path: string, conflicts: Conflict[]): Promise<void> {
  const { members, loser, throttle, signal } = deps;
  const [leader] = members;
  if (leader === undefined) return;
  for (const name of await namesIn({ replica: loser, object: directory })) {
    if (directory.parent === null && name === CONTROL_DIRECTORY) continue;
    await throttle.pace(0, signal);
    const object: TreeObject = { parent: directory, name };
    const lost: Copy = { replica: loser, object };
    const attr = await attributesOf(lost);
    if (attr === null) continue;
    if (isDirectory(attr.mode)) await walk(deps, object, `${path}/${printable(name)}`, conflicts);
    else if (isRegular(attr.mode)) {
      const won: Copy = { replica: leader, object };
      const differences = await compareCopies(won, lost, { throttle, signal, contents: true, holes: false });
      if (
        differences.some(({ kind }) => kind === "extra" || kind === "type" || kind === "size" || kind === "content")
      ) {
        const keptAs = await keep(deps, lost, attr);
        conflicts.push({ path: `${path}/${printable(name)}`, keptAs: `${path}/${printable(keptAs)}` });
      }
    }
    loser.forget(object);
    leader.forget(object);
  }
}

/** Copies the loser's version beside the name that it had, or to the nearest directory that is left. */
async function keep(deps: ConflictDeps, lost: Copy, attr: FileAttr): Promise<ByteString> {
  let name: ByteString = "";
  if (lost.object.parent !== null) await deps.beforeKeep?.(lost.object.parent);
  for (const [i, member] of deps.members.entries()) {
    const directory = await directoryLike(lost, member);
    for (let attempt = 1; i === 0; attempt++) {
      name = conflictName(lost.object.name, deps.loser.name, deps.time, attempt);
      if ((await attributesOf({ replica: member, object: { parent: directory, name } })) === null) break;
    }
    const target: Copy = { replica: member, object: { parent: directory, name } };
    await createLike(lost, attr, target);
    await copyFile(deps, lost, attr, target);
    member.forget(target.object);
  }
  return name;
}

/** The directory that the file is in, made where the member has none. */
async function directoryLike(lost: Copy, member: Replica): Promise<TreeObject> {
  const ways: TreeObject[] = [];
  for (let at = lost.object.parent; at !== null && at.parent !== null; at = at.parent) ways.unshift(at);
  let last: TreeObject = { parent: null, name: "" };
  for (const object of ways) {
    const there = await attributesOf({ replica: member, object });
    if (there !== null && !isDirectory(there.mode)) return last;
    if (there === null) {
      const wanted = await attributesOf({ replica: lost.replica, object });
      if (wanted === null) return last;
      await createLike({ replica: lost.replica, object }, wanted, { replica: member, object });
    }
    last = object;
  }
  return last;
}

async function copyFile(deps: ConflictDeps, lost: Copy, attr: FileAttr, target: Copy): Promise<void> {
  const unitBytes = 1024 * 1024;
  const from = await must(lost, "open", lost.replica.open(lost.object, "read"));
  try {
    const to = await must(target, "open", target.replica.open(target.object, "read-write"));
    try {
      const [source, copy] = [new OpenCopy(lost, from), new OpenCopy(target, to)];
      for (let at = 0; at < attr.size; at += unitBytes) {
        const end = Math.min(at + unitBytes, attr.size);
        const bytes = await copyBytes(source, copy, at, end, attr.size);
        await deps.throttle.pace(bytes, deps.signal);
      }
    } finally {
      await target.replica.close(to);
    }
  } finally {
    await lost.replica.close(from);
  }
  const there = await attributesOf(target);
  if (there !== null) await copyAttributes(lost, attr, target, there);
}

/** At most 255 bytes: a long name is cut, never what tells the conflict. */
export function conflictName(name: ByteString, replica: string, time: Date, attempt = 1): ByteString {
  const stamp = time.toISOString().replace(/[-:]|\.\d+/g, "");
  const suffix = `.conflict-${replica}-${stamp}${attempt === 1 ? "" : `-${attempt}`}`;
  return name.slice(0, 255 - suffix.length) + suffix;
}
