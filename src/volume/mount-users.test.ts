import assert from "node:assert/strict";
import { test } from "node:test";
import { findMountUsers, mapsDevice, mountsOfDevice } from "./mount-users.ts";

test("the mounts of a device are found, whatever else is mounted", () => {
  const info =
    "36 22 0:53 / /mnt/a rw - fuse.chiron x rw\n37 22 0:5 / /mnt/b rw - tmpfs x rw\n38 22 0:53 /d /mnt/c rw - x x rw\n";
  assert.deepEqual(mountsOfDevice(info, "0:53"), [
    { id: "36", point: "/mnt/a" },
    { id: "38", point: "/mnt/c" },
  ]);
  assert.deepEqual(mountsOfDevice("", "0:53"), []);
});

test("mapped files are told by their device, in hexadecimal", () => {
  const maps = "7f00-7f10 rw-s 00000000 00:35 12 /mnt/a/file\n7f20-7f30 rw-p 00000000 00:00 0 \n";
  assert.deepEqual([mapsDevice(maps, "0:53"), mapsDevice(maps, "0:35")], [true, false]);
});

test("a device that is mounted nowhere has no copies and no users", () => {
  assert.deepEqual(findMountUsers("0:999999"), { copies: 0, users: [] });
});
