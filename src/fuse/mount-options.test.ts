import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY } from "../posix/constants.ts";
import { parseMountInfo } from "./device.ts";
import { parseMountOptions } from "./mount-options.ts";

describe("mount options", () => {
  test("become flags of mount(2), the later one of two winning", () => {
    assert.equal(parseMountOptions(["ro,nosuid,nodev", "noexec,noatime"]).flags, 1 | 2 | 4 | 8 | 1024);
    assert.equal(parseMountOptions(["ro,rw"]).flags, 0);
    assert.equal(parseMountOptions(["rw,ro"]).flags, MS_RDONLY);
    assert.equal(MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, 2 | 4 | 8 | 1024);
  });

  test("of fstab and systemd are passed over, and others handed back", () => {
    const { flags, others } = parseMountOptions([
      "defaults,_netdev,nofail,x-systemd.automount,allow_other",
      "replica=/a",
    ]);
    assert.deepEqual({ flags, others }, { flags: 0, others: ["replica=/a"] });
  });
});

test("mountinfo tells FUSE mounts, with spaces in their names", () => {
  const text = [
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
    "31 22 0:40 / /mnt/a\\040b rw,nosuid - fuse.chiron my\\134vol rw,user_id=0",
    "32 22 0:41 / /mnt/c rw shared:3 master:1 - fuse.chiron other rw",
    "",
  ].join("\n");
  assert.deepEqual(parseMountInfo(text), [
    { mountpoint: "/mnt/a b", source: "my\\vol", type: "fuse.chiron", connection: 40 },
    { mountpoint: "/mnt/c", source: "other", type: "fuse.chiron", connection: 41 },
  ]);
});
