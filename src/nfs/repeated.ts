/**
 * Calls that may have been executed twice. An error answer to a call that was sent more than once, and whose first
 * execution the server does not remember, may be about that first execution ("exists": we made it ourselves). Such an
 * error is marked until it has been looked into.
 */
import type { FileAttr } from "../util/file-attr.ts";
import type { Time } from "./protocol.ts";

const bias = 100_000;

export function repeated(errno: number): number {
  return errno - bias;
}

/** The error itself, marked or not. */
export function plain(result: number): number {
  return result <= -bias ? result + bias : result;
}

/**
 * An access time that no other call will set: it marks a new file as ours, in the one call that makes it. It lies within
 * the last millisecond, so that nobody ever sees a time in the future.
 */
export function newMark(): Time {
  const lastMs = Date.now() - 1;
  const nsec = (lastMs % 1_000) * 1_000_000 + Math.floor(Math.random() * 1_000_000);
  return { seconds: Math.floor(lastMs / 1_000), nsec };
}

/** File systems keep 1 ns, 100 ns, 1 µs or 1 s of a time. */
export function carriesMark(attr: FileAttr, mark: Time): boolean {
  if (attr.size !== 0 || attr.atime !== mark.seconds) return false;
  return [1, 100, 1_000, 1e9].some((unit) => attr.atimeNsec === Math.floor(mark.nsec / unit) * unit);
}
