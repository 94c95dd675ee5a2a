/** What applications hold on to outlives whatever serves the mount: handles, positions in directories, locks, removed files. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { run, Sandbox } from "./sandbox.ts";

const program = fileURLToPath(new URL("./handles.py", import.meta.url));
const treesEqual = fileURLToPath(new URL("../trees-equal.py", import.meta.url));

class Holding {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #errors = "";

  constructor(box: Sandbox, entries: number) {
    const child = spawn("python3", [program, box.mountpoint, String(entries)]);
    child.stderr.on("data", (chunk: Buffer) => (this.#errors += chunk.toString()));
    box.onEnd(() => child.kill("SIGKILL"));
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  async says(expected: string): Promise<void> {
    const { value } = await this.#lines.next();
    assert.equal(value, expected, this.#errors);
  }

  async check(): Promise<void> {
    this.#child.stdin?.write("\n");
    await this.says("well");
  }

  async end(): Promise<void> {
    this.#child.stdin?.end();
    await this.says("done");
  }
}

async function begin(context: TestContext, entries: number, ...options: string[]) {
  const box = new Sandbox(context);
  await box.mount(...options);
  const holding = new Holding(box, entries);
  await holding.says("ready");
  await holding.check();
  return { box, holding };
}

async function end(box: Sandbox, holding: Holding): Promise<void> {
  await holding.check();
  await holding.end();
  const { code, stderr } = await box.chiron("unmount", box.mountpoint);
  assert.deepEqual([code, stderr], [0, ""]);
  const comparison = await run("python3", [treesEqual, box.path("a"), box.path("b")]);
  assert.equal(comparison.code, 0, comparison.stdout);
}

test("files, locks, mappings and a directory of 30,000 entries are what they were after kill -9, again and again", async (context) => {
  const { box, holding } = await begin(context, 30_000);
  for (let round = 0; round < 4; round++) {
    const { pid } = await box.status();
    process.kill(pid, "SIGKILL");
    await holding.check();
    await box.until("another process serves", async () => (await box.status()).pid !== pid);
  }
  process.kill(await box.holder(), "SIGKILL");
  await holding.check();
  await end(box, holding);
});

test("and after a handover to another holder", async (context) => {
  const { box, holding } = await begin(context, 2_000, "--write-cache", "write-back");
  for (let round = 0; round < 2; round++) {
    assert.equal((await box.chiron("handover", box.mountpoint)).code, 0, box.logText());
    await holding.check();
  }
  await end(box, holding);
});

test("a removed file that is still open leaves nothing on the replicas when the mount is given up", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  const script = `import os, sys\nf = open("${box.mountpoint}/removed", "w")\nos.unlink("${box.mountpoint}/removed")\nprint("open", flush=True)\nsys.stdin.read()`;
  const user = spawn("python3", ["-c", script]);
  context.after(() => user.kill("SIGKILL"));
  await once(user.stdout, "data");
  const orphans = () => readdirSync(box.path("a/.chiron/orphans"));
  assert.equal(orphans().length, 1);
  assert.equal((await box.chiron("unmount", "--force", box.mountpoint)).code, 0);
  assert.deepEqual(orphans(), []);
});
