/** A thread of `offload.ts`: one operation for each message; null ends it. */
import { parentPort, workerData } from "node:worker_threads";
import type { OffloadRequest, OffloadWorkerData } from "./offload.ts";
import { OffloadCalls } from "./offload-calls.ts";

const { name, path } = workerData as OffloadWorkerData;
const calls = new OffloadCalls(name, path);

parentPort?.on("message", (request: OffloadRequest | null) => {
  if (request === null) {
    calls.end();
    parentPort?.close();
    return;
  }
  const [epoch, identity, call, args] = request;
  const ready = calls.prepare(epoch, identity);
  const method = calls[call] as (...args: unknown[]) => unknown;
  parentPort?.postMessage(ready < 0 ? ready : method.apply(calls, [...args]));
});
