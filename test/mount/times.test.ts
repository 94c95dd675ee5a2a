import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { run, Sandbox, sh } from "./sandbox.ts";

const treesEqual = fileURLToPath(new URL("../trees-equal.py", import.meta.url));

test("directories that stay empty have one time on all replicas", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  await sh(`for i in $(seq 300); do mkdir ${box.mountpoint}/d$i; done`);
  assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
  const comparison = await run("python3", [treesEqual, box.path("a"), box.path("b")]);
  assert.equal(comparison.code, 0, comparison.stdout.slice(0, 1000));
});
