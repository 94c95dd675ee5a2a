import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { EINVAL, ENOENT, ENOTDIR } from "../util/errno.ts";
import { abortConnection, closeDevice, findMount, mountDevice, openDevice, unmount } from "./device.ts";
import { serve } from "./testing/mounted.ts";

const options = { timeout: 60_000 };
const mounting = { source: "test", flags: 0, subtype: "chiron-test" };

describe("the FUSE device", options, () => {
  test("says what to do where it cannot be opened", () => {
    assert.throws(() => openDevice("/dev/no-fuse"), { errno: ENOENT, message: /no-fuse: ENOENT; load the module/ });
  });

  test("says what to do where it cannot be mounted", options, async () => {
    const dir = await mkdtemp(join(tmpdir(), "chiron-fuse-"));
    const spoilt = openDevice(); // a failed mount can use a descriptor up
    const fd = openDevice();
    try {
      assert.throws(() => mountDevice({ ...mounting, fd: spoilt, mountpoint: join(dir, "none") }), {
        errno: ENOENT,
        message: /create the directory first/,
      });
      await writeFile(join(dir, "file"), "");
      assert.throws(() => mountDevice({ ...mounting, fd: spoilt, mountpoint: join(dir, "file") }), { errno: ENOTDIR });
      await mkdir(join(dir, "a"));
      mountDevice({ ...mounting, fd, mountpoint: join(dir, "a") });
      assert.equal(unmount(join(dir, "a"), "refuse"), 0);
      assert.equal(unmount(join(dir, "a"), "refuse"), -EINVAL);
    } finally {
      closeDevice(spoilt);
      closeDevice(fd);
      await rm(dir, { recursive: true });
    }
  });

  test("shows its mount in the kernel's table, also on a path with a space", options, async () => {
    const dir = await mkdtemp(join(tmpdir(), "chiron-fuse-"));
    const mountpoint = join(dir, "a b");
    await mkdir(mountpoint);
    const fd = openDevice();
    try {
      assert.equal(findMount(mountpoint), null);
      mountDevice({ ...mounting, fd, mountpoint, source: "my volume" });
      const { source, type, connection } = findMount(mountpoint) ?? {};
      assert.deepEqual({ source, type }, { source: "my volume", type: "fuse.chiron-test" });
      assert.ok(Number(connection) > 0);
      assert.equal(unmount(mountpoint, "detach"), 0);
      assert.equal(findMount(mountpoint), null);
    } finally {
      closeDevice(fd);
      await rm(dir, { recursive: true });
    }
  });

  test("ends what hangs when its connection is aborted", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--hang");
    const hanging = mounted.python("import os; os.fsync(os.open('f', os.O_RDWR | os.O_CREAT))").catch(String);
    await new Promise((resolve) => setTimeout(resolve, 300));
    abortConnection(findMount(mounted.dir)?.connection ?? -1);
    assert.match(String(await hanging), /OSError|Command failed/);
    await mounted.until("unmounted");
  });
});
