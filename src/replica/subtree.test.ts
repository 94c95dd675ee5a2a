import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { EPERM } from "../util/errno.ts";
import { silentLogger } from "../util/logger.ts";
import { makeBackend } from "./backend.ts";
import type { Replica } from "./replica.ts";
import { makeSubtree, removeSubtree } from "./subtree.ts";

describe("a directory below a backend", () => {
  let directory: string;
  let root: string;
  let replica: Replica;
  const { signal } = new AbortController();
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "chiron-subtree-"));
    root = join(directory, "backend");
    mkdirSync(root);
    replica = makeBackend("a", root, { logger: silentLogger, deadlineMs: 10_000 });
    await replica.connect({ signal });
  });
  afterEach(async () => {
    await replica.disconnect();
    rmSync(directory, { recursive: true, force: true });
  });

  it("is made with its parents, and again without harm", async () => {
    for (let again = 0; again < 2; again += 1) assert.equal(await makeSubtree(replica, ["a", "b"], 0o755), 0);
    assert.equal(statSync(join(root, "a/b")).mode & 0o777, 0o755);
  });

  it("is removed with all that is in it, and nothing that links in it lead to", async () => {
    const outside = join(directory, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "kept"), "x");
    mkdirSync(join(root, "v/deep/er"), { recursive: true });
    for (let i = 0; i < 300; i += 1) writeFileSync(join(root, "v/deep", `file-${i}`), "x");
    symlinkSync(outside, join(root, "v/link"));
    symlinkSync("/nowhere", join(root, "v/deep/er/dangling"));
    mkdirSync(join(root, "other"));
    assert.equal(await removeSubtree(replica, ["v"], signal), 0);
    assert.deepEqual(readdirSync(root), ["other"]);
    assert.ok(existsSync(join(outside, "kept")));
    assert.equal(await removeSubtree(replica, ["v"], signal), 0, "again");
  });

  it("is removed when it is very deep", async () => {
    let path = join(root, "v");
    for (let depth = 0; depth < 500; depth += 1) path = join(path, "d");
    mkdirSync(path, { recursive: true });
    assert.equal(await removeSubtree(replica, ["v"], signal), 0);
    assert.deepEqual(readdirSync(root), []);
  });

  it("is only the link when a link is in its place", async () => {
    const outside = join(directory, "outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "kept"), "x");
    symlinkSync(outside, join(root, "v"));
    assert.equal(await removeSubtree(replica, ["v"], signal), 0);
    assert.ok(existsSync(join(outside, "kept")));
    assert.ok(!existsSync(join(root, "v")));
  });

  it("is never the backend's root", async () => {
    assert.equal(await removeSubtree(replica, [], signal), -EPERM);
  });
});
