import assert from "node:assert/strict";
import { test } from "node:test";
import { FaultyReplica } from "../replica/testing/faulty.ts";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { everyChoice } from "../replica/testing/random.ts";
import { root } from "../replica/testing/subject.ts";
import { EFBIG, EIO, ENOENT, ENOSPC } from "../util/errno.ts";
import { start } from "../util/op.ts";
import { ReplicaControlFiles } from "./control-files.ts";
import { ControlFileError } from "./errors.ts";

async function made(disk = new MemoryDisk()) {
  const replica = new FaultyReplica(new MemoryReplica(disk));
  await replica.connect({ signal: AbortSignal.timeout(60_000) });
  return { disk, replica, files: new ReplicaControlFiles(replica) };
}
const bytes = (text: string) => Buffer.from(text);
const fails = (errno: number) => (error: unknown) => error instanceof ControlFileError && error.errno === -errno;

test("what was put there is read, replaced, listed and removed", async () => {
  const { files } = await made();
  await start(files.create());
  await start(files.create());
  assert.equal(await start(files.read("membership/1", 100)), null);
  await start(files.replace("membership/1", bytes("one")));
  await start(files.replace("membership/1", bytes("another")));
  assert.equal(String(Buffer.from((await start(files.read("membership/1", 100))) ?? [])), "another");
  assert.deepEqual(await start(files.list("membership")), ["1"]);
  await start(files.remove("membership/1"));
  await start(files.remove("membership/1"));
  assert.deepEqual(await start(files.list("membership")), []);
  assert.deepEqual(await start(files.list("nothing")), []);
});

test("an exclusive file is created once", async () => {
  const { files } = await made();
  await start(files.create());
  assert.equal(await start(files.createExclusive("terms/5", bytes("x"))), true);
  assert.equal(await start(files.createExclusive("terms/5", bytes("y"))), false);
});

test("nothing is written where .chiron is missing", async () => {
  const { files, replica } = await made();
  await assert.rejects(async () => await start(files.replace("terms/5", bytes("x"))), fails(ENOENT));
  const entries = { names: [], types: [], inos: [] };
  await replica.readdir({ parent: null, name: "" }, entries);
  assert.deepEqual(entries.names, []);
});

test("a file that is too long, or no file, is not read", async () => {
  const { files, replica } = await made();
  await start(files.create());
  await start(files.replace("long", bytes("0123456789")));
  await assert.rejects(async () => await start(files.read("long", 9)), fails(EFBIG));
  const control = { parent: { parent: null, name: "" }, name: ".chiron" };
  await replica.mknod(control, "pipe", 0o010600, 0, root, null);
  await assert.rejects(async () => await start(files.read("pipe", 9)), ControlFileError);
});

test("what a process left half done does not stand in the way", async () => {
  const { files, replica } = await made();
  await start(files.create());
  replica.inject({ on: ["rename", "unlink"], effect: { kind: "errno", errno: ENOSPC } });
  await assert.rejects(async () => await start(files.replace("file", bytes("one"))), fails(ENOSPC));
  replica.heal();
  await start(files.replace("file", bytes("two")));
  assert.equal(String(Buffer.from((await start(files.read("file", 100))) ?? [])), "two");
});

test("whenever the power fails, a file that is being replaced is the old one or the new one", async () => {
  const seen = new Set<string>();
  for (let calls = 0; calls < 8; calls++) {
    const { disk, replica, files } = await made();
    await start(files.create());
    await start(files.replace("file", bytes("one")));
    replica.inject({ after: calls, effect: { kind: "errno", errno: EIO } });
    let done = true;
    try {
      await start(files.replace("file", bytes("two")));
    } catch (error) {
      assert.ok(error instanceof ControlFileError);
      done = false;
    }
    const after: MemoryDisk[] = [];
    assert.ok(everyChoice((choose) => after.push(disk.crash(choose)), 10_000).complete);
    for (const survivor of after) {
      const again = await made(survivor);
      const content = String(Buffer.from((await start(again.files.read("file", 100))) ?? []));
      assert.ok(content === "two" || (content === "one" && !done), `"${content}" after ${calls} calls`);
      seen.add(content);
    }
  }
  assert.deepEqual(seen, new Set(["one", "two"]));
});
