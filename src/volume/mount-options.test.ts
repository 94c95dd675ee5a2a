import assert from "node:assert/strict";
import { test } from "node:test";
import { planMountOptions } from "./mount-options.ts";

test("mount options become flags, the last one wins", () => {
  assert.deepEqual(planMountOptions(["ro", "nosuid", "rw"]), { flags: 2, data: "", unknown: [] });
});

test("what fstab has for mount(8) and systemd is left alone, labels are passed on", () => {
  const options = ["defaults", "_netdev", "nofail", "x-systemd.requires=/a", "context=u:r:t", "noatime"];
  assert.deepEqual(planMountOptions(options), { flags: 1024, data: ",context=u:r:t", unknown: [] });
});

test("unknown options are named", () => {
  assert.deepEqual(planMountOptions(["big_writes", "ro"]).unknown, ["big_writes"]);
});
