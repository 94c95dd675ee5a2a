import assert from "node:assert/strict";
import { closeSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LOCK_EX, LOCK_NB } from "../posix/constants.ts";
import { flock } from "../posix/files.ts";
import {
  canonicalMountpoint,
  claimDirectory,
  controlSocket,
  findMount,
  listMounts,
  type MountRecord,
  mountDirectory,
  releaseDirectory,
  writeRecord,
} from "./registry.ts";

const tryLock = (fd: number) => flock(fd, LOCK_EX | LOCK_NB) === 0;

function temporary(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "chiron-registry-"));
  context.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

function record(mountpoint: string, volume: string): MountRecord {
  return {
    formatVersion: 1,
    holderPid: process.pid,
    volumeProgram: "x",
    programVersion: "0",
    startedAt: "",
    state: "mounted",
    volumeId: null,
    config: { volume: { volume, mountpoint } } as MountRecord["config"],
  };
}

test("the socket of any mount point, however deep, has a path that a socket may have", () => {
  const deep = `/var/lib/kubelet/${"very-long-name/".repeat(200)}mount`;
  assert.ok(controlSocket(mountDirectory(deep, "/run/chiron")).length < 108);
  assert.notEqual(mountDirectory("/a/web"), mountDirectory("/b/web"));
  assert.match(mountDirectory("/"), /\/root-[0-9a-f]{8}$/);
});

test("a mount is found by its path, by a path through symbolic links, and by the volume's name", (context) => {
  const run = temporary(context);
  const mountpoint = join(canonicalMountpoint(run), "mnt", "web");
  mkdirSync(join(run, "mnt"));
  symlinkSync("mnt", join(run, "link"));
  const directory = mountDirectory(mountpoint, run);
  mkdirSync(directory);
  writeRecord(directory, record(mountpoint, "shop"));
  assert.equal(findMount(mountpoint, run)?.directory, directory);
  assert.equal(findMount(join(run, "link", "web/"), run)?.directory, directory);
  assert.equal(findMount("shop", run)?.directory, directory);
  assert.equal(findMount("/elsewhere", run), null);
  assert.equal(listMounts(run).length, 1);
});

test("a directory that a living holder has cannot be claimed, and a leftover is cleaned", (context) => {
  const run = temporary(context);
  const directory = mountDirectory("/srv/web", run);
  const lock = claimDirectory(directory, tryLock, { keep: false });
  assert.ok(lock !== null);
  writeFileSync(join(directory, "state-log"), "x");
  assert.equal(claimDirectory(directory, tryLock, { keep: false }), null);
  closeSync(lock); // the holder dies
  const kept = claimDirectory(directory, tryLock, { keep: true });
  assert.ok(kept !== null && existsSync(join(directory, "state-log")));
  closeSync(kept);
  const fresh = claimDirectory(directory, tryLock, { keep: false });
  assert.ok(fresh !== null && !existsSync(join(directory, "state-log")));
  releaseDirectory(directory);
  assert.equal(existsSync(directory), false);
  closeSync(fresh);
});

test("damaged records and other files are passed over", (context) => {
  const run = temporary(context);
  mkdirSync(join(run, "web-1"));
  writeFileSync(join(run, "web-1", "mount.json"), "{");
  writeFileSync(join(run, "stray"), "");
  assert.deepEqual(listMounts(run), []);
  assert.deepEqual(listMounts(join(run, "none")), []);
});
