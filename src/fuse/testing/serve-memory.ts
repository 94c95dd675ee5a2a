/**
 * Mounts a file system in memory: `serve-memory.ts MOUNTPOINT [--later] [--hang] [--writeback] [--acl] [--ticks] [--locks]`. Says
 * "ready" when it is mounted, unmounts on SIGTERM. On SIGUSR1 one session ends and another goes on; on SIGUSR2 a file
 * "changed" appears behind the kernel's back and then the kernel is told.
 */
import { parseArgs } from "node:util";
import { umount2Later } from "../../posix/mount.ts";
import { byteString } from "../../util/byte-string.ts";
import { jsonLogger } from "../../util/logger.ts";
import { mountDevice, openDevice } from "../device.ts";
import { type FileSystem, ROOT_NODE } from "../filesystem.ts";
import { FuseSession } from "../session.ts";
import { answerLater, hangingFsync } from "./answer-later.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";
import { LockingFileSystem } from "./memory-locks.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    later: { type: "boolean", default: false },
    hang: { type: "boolean", default: false },
    writeback: { type: "boolean", default: false },
    acl: { type: "boolean", default: false },
    locks: { type: "boolean", default: false },
    ticks: { type: "boolean", default: false },
    spin: { type: "string", default: "50" },
  },
});
const [mountpoint] = positionals;
if (mountpoint === undefined) throw new Error("usage: serve-memory.ts MOUNTPOINT");

const memory = values.locks ? new LockingFileSystem() : new MemoryFileSystem();
let fileSystem: FileSystem = memory;
if (values.later) fileSystem = answerLater(fileSystem);
if (values.hang) fileSystem = hangingFsync(fileSystem);
const say = (line: string) => process.stdout.write(`${line}\n`);
const deps = { fileSystem, logger: jsonLogger((line) => process.stderr.write(line)) };
const options = { writebackCache: values.writeback, posixAcl: values.acl, spinMicroseconds: Number(values.spin) };

const fd = openDevice();
mountDevice({ fd, mountpoint, source: "memory", flags: 0, subtype: "chiron-test" });
let session = new FuseSession({ fd, ...deps }, options);
session.start();
if (values.ticks) setInterval(() => say("tick"), 20);

process.on("SIGTERM", () => void umount2Later(byteString(mountpoint), 0));
process.on("SIGUSR1", () => void handOver());
process.on("SIGUSR2", () => void change());

async function handOver(): Promise<void> {
  const left = await session.stop(5000);
  const next = new FuseSession({ fd, ...deps }, options);
  const outcome = next.resume(session.negotiated);
  session = next;
  say(`resumed ${outcome} ${left}`);
  void next.ended.then(ended);
}

async function change(): Promise<void> {
  memory.put("changed", Buffer.from("after"));
  const results = [
    session.notify.invalidateAttributes(ROOT_NODE),
    session.notify.incrementEpoch(),
    await session.notify.invalidateEntry(ROOT_NODE, "changed"),
    await session.notify.invalidateData(memory.idOf("changed"), 0, 0),
  ];
  say(`told ${results.join(" ")}`);
}

function ended(end: string): void {
  if (end === "stopped") return;
  say(end);
  process.exit(0);
}
say("ready");
ended(await session.ended);
