/**
 * The C library through koffi. Everything in this folder answers a number >= 0 or a negative errno, and throws nothing
 * but a `TypeError` for an argument of the wrong type.
 *
 * - Buffers are passed themselves, never their addresses, so that none is collected during a call.
 * - Calls that not every libc has (musl, glibc before 2.33) go through `syscall` with the numbers of `architecture.ts`.
 * - Calls are synchronous, so the two scratch buffers for names are free again when a call returns.
 */
import koffi from "koffi";
import type { ByteString } from "../util/byte-string.ts";

/** The process itself: libc, and libuv as node exports it. */
const process_ = koffi.load(null);

/** Declares a C function; variadic ones with the arguments that are used (both ABIs pass them alike). */
// biome-ignore lint/suspicious/noExplicitAny: what koffi makes of a signature is known only to the caller
export function declare(signature: string): any {
  return process_.func(signature);
}

/** The result of a C function that answers -1 and sets `errno`, as a number >= 0 or a negative errno. */
export function sys(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

const scratchBytes = 4096;
const scratch = Buffer.alloc(scratchBytes);
const otherScratch = Buffer.alloc(scratchBytes);

/** A name or path as a C string, good until the next `cString`. What is too long is the kernel's to refuse. */
export function cString(text: ByteString): Buffer {
  return fill(scratch, text);
}

/** For the second name of a call. */
export function otherCString(text: ByteString): Buffer {
  return fill(otherScratch, text);
}

function fill(into: Buffer, text: ByteString): Buffer {
  const length = text.length;
  if (length >= scratchBytes) return Buffer.from(`${text}\0`, "latin1");
  if (length > 24) into.write(text, 0, "latin1");
  else for (let i = 0; i < length; i++) into[i] = text.charCodeAt(i);
  into[length] = 0;
  return into;
}

/** A C string of its own, for strings that a call keeps or that are used again and again. */
export function ownCString(text: ByteString): Buffer {
  return Buffer.from(`${text}\0`, "latin1");
}
