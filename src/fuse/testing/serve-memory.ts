/**
 * Mounts a file system in memory: `serve-memory.ts MOUNTPOINT [--later] [--hang] [--writeback] [--acl]`. Says
 * "ready" when it is mounted, unmounts on SIGTERM.
 */
import { parseArgs } from "node:util";
import { umount2Later } from "../../posix/mount.ts";
import { byteString } from "../../util/byte-string.ts";
import { jsonLogger } from "../../util/logger.ts";
import { mountDevice, openDevice } from "../device.ts";
import type { FileSystem } from "../filesystem.ts";
import { FuseSession } from "../session.ts";
import { answerLater, hangingFsync } from "./answer-later.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    later: { type: "boolean", default: false },
    hang: { type: "boolean", default: false },
    writeback: { type: "boolean", default: false },
    acl: { type: "boolean", default: false },
    spin: { type: "string", default: "50" },
  },
});
const [mountpoint] = positionals;
if (mountpoint === undefined) throw new Error("usage: serve-memory.ts MOUNTPOINT");

let fileSystem: FileSystem = new MemoryFileSystem();
if (values.later) fileSystem = answerLater(fileSystem);
if (values.hang) fileSystem = hangingFsync(fileSystem);
const logger = jsonLogger((line) => process.stderr.write(line));

const fd = openDevice();
mountDevice({ fd, mountpoint, source: "memory", flags: 0, subtype: "chiron-test" });
const session = new FuseSession(
  { fd, fileSystem, logger },
  { writebackCache: values.writeback, posixAcl: values.acl, spinMicroseconds: Number(values.spin) },
);
session.start();
process.on("SIGTERM", () => void umount2Later(byteString(mountpoint), 0));
process.stdout.write("ready\n");
const end = await session.ended;
process.stdout.write(`${end}\n`);
process.exit(0);
