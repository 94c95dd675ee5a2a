/** Directories that hold data become a volume: only with a word about which of them is right, and then all of it. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Outcome, refused, run, Sandbox, sh } from "./sandbox.ts";

const treesEqual = fileURLToPath(new URL("../trees-equal.py", import.meta.url));
const fill = `
  mkdir -p d/e && echo one > d/e/f && ln d/e/f hard && ln -s nowhere soft && mkfifo pipe && chmod 2750 d
  truncate -s 10M sparse && printf end | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
  setfattr -n user.colour -v red d/e/f || true
  chown 1234:1235 hard && touch -d 2001-02-03T04:05:06.789012345Z d/e/f d/e && i=0 && while [ $i -lt 500 ]; do echo $i > d/$i; i=$((i+1)); done`;

async function begin(context: TestContext) {
  const box = new Sandbox(context);
  const [a, b] = [box.makeDirectory("a"), box.makeDirectory("b")];
  const filled = await sh(`cd ${a} && ${fill}`);
  assert.equal(filled.code, 0, filled.stderr);
  const mount = (...argv: string[]): Promise<Outcome> =>
    box.chiron("mount", "--log", box.log, ...argv, "--replica", a, "--replica", b, box.mountpoint);
  const list = async () => (await sh(`cd ${box.directory} && find a b -printf '%p %i %m %s %T@ %C@\n' | sort`)).stdout;
  return { box, a, b, mount, list };
}

async function equal(box: Sandbox): Promise<void> {
  const comparison = await run("python3", [treesEqual, box.path("a"), box.path("b")]);
  assert.equal(comparison.code, 0, comparison.stdout);
}

test("without a word about which directory is right, nothing is mounted and nothing is touched", async (context) => {
  const { b, box, mount, list } = await begin(context);
  const before = await list();
  refused(await mount(), 80, /"a" already holds data.*--source NAME/);
  refused(await mount("--source", "b"), 80, /--source "b" is empty, but "a" is not/);
  refused(await mount("--source", "c"), 64, /no replica "c"/);
  assert.equal(await list(), before);
  await sh(`echo other > ${b}/other`);
  const both = await list();
  refused(await mount(), 80, /"a", "b" already hold data.*--source NAME \(one of "a", "b"\)/);
  assert.equal(await list(), both);
  assert.equal(existsSync(box.path("a/.chiron")), false);
});

test("--source: the other directory is made like it while the volume is in use", async (context) => {
  const { box, mount } = await begin(context);
  assert.equal((await mount("--source", "a")).code, 0);
  assert.equal(
    (await sh(`cd ${box.mountpoint} && cat hard && echo new > d/new && rm d/17 && mv d/18 d/eighteen`)).stdout,
    "one\n",
  );
  const { code, stdout } = await box.chiron("resync", box.mountpoint);
  assert.equal(code, 0, stdout);
  assert.equal((await box.status()).state, "Healthy");
  assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
  await equal(box);
  assert.equal(readFileSync(box.path("b/d/new"), "utf8"), "new\n");
  assert.equal((await mount()).code, 0, "from now on it is a volume, and needs no such word");
  assert.equal((await box.status()).state, "Healthy");
});

test("--source: what the other directory held is gone, as was asked for, also if all is killed on the way", async (context) => {
  const { box, b, mount } = await begin(context);
  await sh(`cd ${b} && mkdir -p d/e mine && echo other > d/e/f && echo mine > mine/file && echo 3 > d/3`);
  assert.equal((await mount("--source", "a", "--resync-bandwidth", "64K")).code, 0);
  const { pid } = await box.status();
  const holder = await box.holder();
  await sh(`kill -9 ${holder} ${pid} $(pgrep -P ${holder})`);
  await box.chiron("unmount", box.mountpoint);
  assert.equal((await mount()).code, 0, "which one is right is on record");
  await box.until("b is filled", async () => (await box.status()).state === "Healthy");
  assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
  await equal(box);
  assert.deepEqual(readdirSync(b).includes("mine"), false);
  assert.equal(readFileSync(box.path("b/d/e/f"), "utf8"), "one\n");
});

test("one directory with data is a volume as it is, and grows by another one", async (context) => {
  const { box, a, b } = await begin(context);
  assert.equal((await box.chiron("mount", "--log", box.log, "--replica", a, box.mountpoint)).code, 0);
  assert.equal((await sh(`cat ${box.mountpoint}/d/e/f`)).stdout, "one\n");
  assert.equal((await box.chiron("replica", "add", box.mountpoint, "b", b)).code, 0);
  assert.equal((await box.chiron("resync", box.mountpoint)).code, 0);
  assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
  await equal(box);
});
