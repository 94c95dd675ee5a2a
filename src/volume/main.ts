/** The volume process: loaded, it waits for its holder's `start`; what it had when it dies, the next one finds again. */
import { exitNow, raiseDescriptorLimit, setIoFlusher } from "../posix/processes.ts";
import { errorText, jsonLogger, type Logger } from "../util/logger.ts";
import { failureOf } from "./failure.ts";
import { type CallMessage, FUSE_DESCRIPTOR, linkToHolder, type StartMessage } from "./holder-link.ts";
import { VolumeService } from "./service.ts";
import { SpareMemory } from "./spare-memory.ts";

setIoFlusher(true); // memory that it needs for writing must not wait for its own writing (refused in small containers)
raiseDescriptorLimit();

new SpareMemory().soon(); // a spare process may wait for weeks

let opening: Promise<VolumeService> | null = null;
let log: Logger = jsonLogger((line) => process.stderr.write(line));

const holder = linkToHolder({
  start: (message) => void start(message),
  mounted: () => void opening?.then((service) => service.serve()),
  call: (message) => void call(message),
});

async function start(message: StartMessage): Promise<void> {
  const { volume, logLevel } = message.config;
  log = jsonLogger((line) => process.stderr.write(line), logLevel, { volume });
  try {
    opening = VolumeService.open(message, { fuseFd: FUSE_DESCRIPTOR, log, send: holder.send });
    const service = await opening;
    holder.send({ type: "ready", volumeId: service.volumeId });
    await service.ended;
    holder.send({ type: "ended" });
    holder.release();
    exitNow(0); // a thread that is stuck in a dead replica must not hold this up
  } catch (error) {
    log.error("The volume process cannot go on", { error: errorText(error) });
    holder.send({ type: "failed", failure: failureOf(error) });
    // The holder decides what becomes of this process; without it there is nothing to decide.
    setTimeout(() => exitNow(1), 1000);
  }
}

async function call({ id, method, params }: CallMessage): Promise<void> {
  try {
    if (opening === null) throw new Error("The volume has not been started");
    const service = await opening;
    const value = await service.call(method, params, (progress) => holder.send({ type: "progress", id, progress }));
    holder.send({ type: "result", id, value });
  } catch (error) {
    holder.send({ type: "error", id, failure: failureOf(error) });
  }
}

process.on("uncaughtException", (error) => {
  log.error("A bug: the volume process ends, and is started again", { error: errorText(error), stack: error.stack });
  exitNow(70);
});
