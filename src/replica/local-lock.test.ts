import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { lockLocalReplica } from "./local-lock.ts";

function directory(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "chiron-lock-"));
  mkdirSync(join(path, ".chiron"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

test("a replica is locked once, and again after the release", () => {
  using root = directory();
  const lock = lockLocalReplica(root.path);
  assert.notEqual(lock, null);
  assert.equal(lockLocalReplica(root.path), null);
  lock?.release();
  lock?.release();
  using again = lockLocalReplica(root.path);
  assert.notEqual(again, null);
});

test("the lock of a killed process is gone with it", { timeout: 60_000 }, async () => {
  using root = directory();
  const script = `import { lockLocalReplica } from ${JSON.stringify(import.meta.resolve("./local-lock.ts"))};
    const lock = lockLocalReplica(${JSON.stringify(root.path)}); process.stdout.write(String(lock !== null)); setInterval(() => lock, 1e6);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [answer] = await once(child.stdout, "data");
  assert.equal(String(answer), "true");
  assert.equal(lockLocalReplica(root.path), null);
  child.kill("SIGKILL");
  await once(child, "exit");
  using lock = lockLocalReplica(root.path);
  assert.notEqual(lock, null);
});

test("a directory without .chiron is not locked, and nothing is made there", () => {
  using root = directory();
  assert.throws(() => lockLocalReplica(join(root.path, ".chiron")), /ENOENT/);
});
