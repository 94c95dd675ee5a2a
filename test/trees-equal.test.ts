import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const program = join(import.meta.dirname, "trees-equal.py");

function compare(...args: string[]): { status: number | null; lines: string[] } {
  const { status, stdout, stderr } = spawnSync("python3", [program, ...args], { encoding: "latin1" });
  return { status, lines: (stdout + stderr).trimEnd().split("\n") };
}

/** Makes tree `a`, copies it to `b` with everything that it has, changes `b`, and compares. */
function differences(make: string, change: string, ...options: string[]): string[] {
  const at = mkdtempSync(join(tmpdir(), "chiron-trees-"));
  try {
    const script = `set -e; mkdir a; cd a; ${make}\ncd ..; cp -a --sparse=never a b; cd b; ${change}`;
    const ran = spawnSync("bash", ["-c", script], { cwd: at, encoding: "utf8" });
    assert.equal(ran.status, 0, ran.stderr);
    const { status, lines } = compare("--quiet", ...options, join(at, "a"), join(at, "b"));
    const summary = lines.pop() ?? "";
    assert.equal(status, summary === "" ? 0 : 1, lines.concat(summary).join("\n"));
    return lines.map((line) => line.replaceAll(at, ""));
  } finally {
    rmSync(at, { recursive: true });
  }
}

const everything = `
  mkdir -p d/e; echo content > d/f; ln d/f d/e/g; ln -s nowhere l; mkfifo p; mknod c c 7 300; chmod 6755 d/f
  chown 1000:1001 d; touch -d @1234567890.123456789 d/f d; touch -hd @5.5 l; printf x > $'\\xff\\n'
  truncate -s 10M sparse; printf x | dd of=sparse bs=1 seek=5M conv=notrunc status=none`;

test("a tree equals its copy, and .chiron and the root's time are no part of it", () => {
  assert.deepEqual(differences(everything, "mkdir .chiron; touch .", "--holes", "off"), []);
});

for (const [what, change, expected] of [
  [
    "content",
    "printf C | dd of=d/f conv=notrunc status=none; touch -d @1234567890.123456789 d/f",
    "/d/f: content differs from byte 0 on: b'content\\n' <> b'Content\\n'",
  ],
  ["size", "truncate -s 3 $'\\xff\\n'; touch -r ../a/$'\\xff\\n' $'\\xff\\n'", "/\\xff\\x0a: size 1 <> 3"],
  ["mode", "chmod 4755 d/f", "/d/e/g: mode 6755 <> 4755"],
  ["owner", "chown :0 d", "/d: owner 1000:1001 <> 1000:0"],
  ["time", "touch -d @1234567890.123456780 d", "/d: mtime 1234567890.123456789 <> 1234567890.123456780"],
  ["time of a symbolic link", "touch -hd @5.25 l", "/l: mtime 5.500000000 <> 5.250000000"],
  ["target", "t=$(stat -c %.9Y l); ln -sfn elsewhere l; touch -hd @$t l", "/l: target b'nowhere' <> b'elsewhere'"],
  ["type", "rm p; mkdir p", "/p: FIFO <> directory"],
  ["device", "t=$(stat -c %.9Y c); rm c; mknod c c 7 299; touch -d @$t c", "/c: device 7:300 <> 7:299"],
  ["absence", "rm -r d", "/d: directory is missing in /b"],
  ["an extra name", "echo > more", "/more: file is missing in /a"],
  ["links", "cp -a d/f x; mv x d/f; touch -r ../a/d d; touch -r ../a/d/f d/f", "/d/e/g: 2 links <> 1 links"],
] as const) {
  test(`a difference of ${what} is found`, () => {
    const found = differences(everything, `${change}; touch -r ../a .`, "--holes", "off");
    assert.ok(found.includes(expected), found.join("\n"));
  });
}

test("other names of other files differ, even if each has as many links", () => {
  const found = differences(
    "echo > a; echo > b; ln a c; ln b d",
    "rm c d; ln a d; ln b c; touch -r ../a/a a b c d; touch -r ../a/a ../a/*",
  );
  assert.deepEqual(found, [
    "/a: one file with /c in /a only",
    "/b: one file with /d in /a only",
    "/a: one file with /d in /b only",
    "/b: one file with /c in /b only",
  ]);
});

test("zeros on disk and a hole of 64 KiB differ, smaller ones only when strict", () => {
  const big = "truncate -s 1M f; touch -d @1 f";
  assert.deepEqual(differences(big, ""), ["/f: bytes 0 to 1048576 are zeros on disk here, a hole in /a"]);
  assert.deepEqual(differences(big, "", "--holes", "off"), []);
  const small = "truncate -s 32K f; touch -d @1 f";
  assert.deepEqual(differences(small, ""), []);
  assert.equal(differences(small, "", "--holes", "strict").length, 1);
});

test("a tree deeper than a path can be long is compared", () => {
  const name = "d".repeat(200);
  const down = `for i in $(seq 30); do mkdir ${name}; cd ${name}; done; echo content > f; for i in $(seq 30); do cd ..; done`;
  const change = `for i in $(seq 30); do cd ${name}; done; echo Content > f; touch -d @1 f`;
  const at = mkdtempSync(join(tmpdir(), "chiron-trees-"));
  try {
    const script = `set -e; mkdir a b; cd a; ${down}; cd ../b; ${down}; ${change}`;
    assert.equal(spawnSync("bash", ["-c", script], { cwd: at }).status, 0);
    const { status, lines } = compare("--no-times", join(at, "a"), join(at, "b"));
    assert.equal(status, 1);
    assert.ok(
      lines[0]?.endsWith("/f: content differs from byte 0 on: b'content\\n' <> b'Content\\n'"),
      lines.join("\n"),
    );
  } finally {
    spawnSync("rm", ["-rf", at]);
  }
});

test("what cannot be compared is told apart from what differs", () => {
  assert.equal(compare("/nonexistent", "/").status, 2);
  assert.equal(compare("/").status, 2);
});
