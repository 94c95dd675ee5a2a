/** Copies of trees on real directories, within one replica and from one to another. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { silentLogger } from "../util/logger.ts";
import { makeBackend } from "./backend.ts";
import { copyTree } from "./copy-tree.ts";
import type { Replica } from "./replica.ts";

const treesEqual = join(import.meta.dirname, "../../test/trees-equal.py");
const equal = (a: string, b: string) => {
  const { status, stdout } = spawnSync("python3", [treesEqual, a, b]);
  assert.equal(status, 0, String(stdout));
};

describe("copyTree()", { skip: process.getuid?.() === 0 ? false : "must be root" }, () => {
  let directory: string;
  const replicas: Replica[] = [];
  const signal = new AbortController().signal;
  const pace = async () => {};
  const top = { parent: null, name: "" };
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "chiron-copy-"));
    for (const name of ["a", "b"]) {
      mkdirSync(join(directory, name));
      const replica = makeBackend(name, join(directory, name), { logger: silentLogger, deadlineMs: 30_000 });
      await replica.connect({ signal });
      replicas.push(replica);
    }
    execFileSync("sh", [
      "-c",
      `cd ${directory}/a; mkdir from; cd from; mkdir -p d/e; echo x > d/file; ln d/file d/e/name
      ln -s /nowhere link; mkfifo pipe; truncate -s 5M sparse; echo end >> sparse; head -c 9M /dev/urandom > big
      chown 3:4 d/file; chmod 4711 d/file; setfattr -n user.a -v b d/file; chmod 0 d/e; touch -d 2001-01-01 d big`,
    ]);
  });
  afterEach(async () => {
    await Promise.all(replicas.splice(0).map((replica) => replica.disconnect()));
    rmSync(directory, { recursive: true, force: true });
  });

  for (const [what, index] of [
    ["beside its source", 0],
    ["on another replica", 1],
  ] as const)
    it(`copies everything that a tree has, ${what}`, async () => {
      const [first] = replicas;
      const target = replicas[index];
      assert.ok(first && target);
      const to = join(directory, index === 0 ? "a" : "b", "to");
      mkdirSync(to);
      const from = { replica: first, object: { parent: top, name: "from" } };
      const into = { replica: target, object: { parent: top, name: "to" } };
      const copied = await copyTree(from, into, { signal, pace });
      equal(join(directory, "a/from"), to);
      assert.equal(copied.files, 6);
      assert.ok(copied.method === "copy" || copied.method === "reflink");
      if (index === 1) assert.equal(copied.method, "copy");
    });

  it("goes on where it was stopped, and makes anew what is not complete", async () => {
    const [a, b] = replicas;
    assert.ok(a && b);
    const stop = new AbortController();
    const from = { replica: a, object: { parent: top, name: "from" } };
    const into = { replica: b, object: top };
    let moved = 0;
    const paceUntil = async (bytes: number) => {
      moved += bytes;
      if (moved > 2_000_000) stop.abort(new Error("stopped"));
    };
    await assert.rejects(copyTree(from, into, { signal: stop.signal, pace: paceUntil }), /stopped/);
    writeFileSync(join(directory, "b/big"), "half");
    await copyTree(from, into, { signal, pace });
    equal(join(directory, "a/from"), join(directory, "b"));
    const { ino } = statSync(join(directory, "b/big"));
    utimesSync(join(directory, "b/sparse"), 1, 1);
    await copyTree(from, into, { signal, pace });
    equal(join(directory, "a/from"), join(directory, "b"));
    assert.equal(statSync(join(directory, "b/big")).ino, ino, "what was complete is kept");
    assert.equal(readFileSync(join(directory, "b/d/e/name"), "utf8"), "x\n");
  });
});
