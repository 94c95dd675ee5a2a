import assert from "node:assert/strict";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { chooseRun, fileSystemOf, parseMountInfo } from "./choose-run.ts";

const table = parseMountInfo(
  [
    "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    "30 21 0:40 / /mnt/share rw,relatime shared:9 - nfs4 server:/export rw,vers=4.2",
    "31 30 0:41 / /mnt/share/inner rw - tmpfs tmpfs rw",
    "32 21 0:42 / /mnt/with\\040space rw - fuse.sshfs host: rw",
    "33 21 8:2 / /mnt/twice rw - xfs /dev/sdb rw",
    "34 33 0:43 / /mnt/twice rw - cifs //server/share rw",
    "",
  ].join("\n"),
);

test("a path lies on the deepest, latest mount that holds it", () => {
  assert.equal(fileSystemOf("/", table), "ext4");
  assert.equal(fileSystemOf("/mnt/shared", table), "ext4");
  assert.equal(fileSystemOf("/mnt/share", table), "nfs4");
  assert.equal(fileSystemOf("/mnt/share/a/b", table), "nfs4");
  assert.equal(fileSystemOf("/mnt/share/inner/b", table), "tmpfs");
  assert.equal(fileSystemOf("/mnt/with space/b", table), "fuse.sshfs");
  assert.equal(fileSystemOf("/mnt/twice/b", table), "cifs");
});

test("local directories run on the loop, through links that may be broken or circular", () => {
  const directory = mkdtempSync(join(tmpdir(), "chiron-run-"));
  try {
    symlinkSync("b", join(directory, "a"));
    symlinkSync("a", join(directory, "b"));
    symlinkSync("/nowhere", join(directory, "c"));
    for (const name of ["", "a", "c", "absent/below"]) assert.equal(chooseRun(join(directory, name)), "loop");
  } finally {
    rmSync(directory, { recursive: true });
  }
});
