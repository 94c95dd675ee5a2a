/** Memory that the C library keeps for later: given back to the machine. */
import { declare } from "./libc.ts";

let callTrim: ((keepBytes: number) => number) | null;
try {
  callTrim = declare("int malloc_trim(size_t keep)");
} catch {
  callTrim = null; // musl has none, and keeps little
}

export function trimHeap(): void {
  callTrim?.(0);
}
