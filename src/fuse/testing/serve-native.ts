/** Mounts a file system in memory through fuse-native: `serve-native.ts MOUNTPOINT`. As `serve-memory.ts` otherwise. */
import { jsonLogger } from "../../util/logger.ts";
import { NativeSession } from "../native-session.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";

const [mountpoint] = process.argv.slice(2);
if (mountpoint === undefined) throw new Error("usage: serve-native.ts MOUNTPOINT");
const logger = jsonLogger((line) => process.stderr.write(line));
const wishes = { posixAcl: false, writebackCache: false, locks: false, restart: false, acceptWrongResults: true };
const fileSystem = new MemoryFileSystem();
const session = await NativeSession.start(
  { mountpoint, source: "memory", subtype: "chiron-test", fileSystem, logger },
  wishes,
);
process.on("SIGTERM", () => void session.stop());
process.stdout.write("ready\n");
process.stdout.write(`${await session.ended}\n`);
process.exit(0);
