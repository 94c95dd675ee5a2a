/** write(2) on a thread of koffi's, for the rare write that may have to wait for this very thread. */
import koffi from "koffi";
import { declare } from "./libc.ts";

const callWrite = declare("int64_t write(int fd, void *buffer, size_t bytes)");

/** Answers as `write` does. The buffer must be left alone until then. */
export function writeAsync(fd: number, data: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    callWrite.async(fd, data, data.byteLength, (error: Error | null, result: number) => {
      if (error !== null) reject(error);
      else resolve(result < 0 ? -koffi.errno() : result);
    });
  });
}
