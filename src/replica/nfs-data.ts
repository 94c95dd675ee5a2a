/** Data of open NFS files: whole reads and writes of calls that may be short, side by side where they are larger than one; holes. */
import type { NfsProtocol } from "../nfs/protocol.ts";
import { EIO } from "../util/errno.ts";
import type { NfsFile } from "./nfs-files.ts";
import type { NfsUnstable } from "./nfs-unstable.ts";

/** A server may forget a hole when it restarts, as it may a write: so it is committed at once, by the instance that made it. */
export async function punch(
  protocol: NfsProtocol,
  unstable: NfsUnstable,
  file: NfsFile,
  position: number,
  length: number,
): Promise<number> {
  const before = { stable: false, verifier: "" };
  const after = { stable: false, verifier: "" };
  for (let i = 0; i < 3; i++) {
    const steps = [
      () => unstable.commit(file.handle),
      () => protocol.commit(file.handle, before),
      () => protocol.deallocate(file.handle, file.state, position, length),
      () => protocol.commit(file.handle, after),
    ];
    for (const step of steps) {
      const result = await step();
      if (result < 0) return result;
    }
    if (before.verifier === after.verifier) return 0;
  }
  return -EIO;
}

export async function readFully(
  protocol: NfsProtocol,
  file: NfsFile,
  into: Uint8Array,
  position: number,
): Promise<number> {
  const result = { endOfFile: false };
  let done = 0;
  for (;;) {
    const part = done === 0 ? into : into.subarray(done);
    const count = await protocol.read(file.handle, file.state, part, position + done, result);
    if (count < 0) return count;
    done += count;
    if (done === into.length || result.endOfFile || count === 0) return done;
  }
}

export async function writeFully(
  protocol: NfsProtocol,
  unstable: NfsUnstable,
  file: NfsFile,
  data: Uint8Array,
  position: number,
): Promise<number> {
  let done = 0;
  while (done < data.length) {
    const part = done === 0 ? data : data.subarray(done);
    const count = await unstable.write(protocol, file.handle, file.state, part, position + done);
    if (count < 0) return count;
    if (count === 0) return done;
    done += count;
  }
  return done;
}

/** Runs parts side by side and answers how many bytes were done without a gap, or the first error. */
export async function inParts(
  length: number,
  partBytes: number,
  run: (start: number, end: number) => Promise<number>,
): Promise<number> {
  const parts: Promise<number>[] = [];
  for (let start = 0; start < length; start += partBytes) parts.push(run(start, Math.min(length, start + partBytes)));
  let done = 0;
  let whole = true;
  for (const [index, count] of (await Promise.all(parts)).entries()) {
    if (count < 0) return count;
    if (!whole) continue;
    done += count;
    whole = count === Math.min(partBytes, length - index * partBytes);
  }
  return done;
}
