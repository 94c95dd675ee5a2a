/** A process that serves is killed again and again; another goes on with its descriptor, and nobody notices. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { promisify } from "node:util";
import { closeDevice, findMount, mountDevice, openDevice, unmount } from "./device.ts";

const workload = `
import os, random, sys
random.seed(3)
model = bytearray(1 << 20)
fds = [os.open("data", os.O_RDWR | direct) for direct in (0, 0, os.O_SYNC)]
for i in range(1500):
    offset, data = random.randrange(1 << 20), random.randbytes(random.choice([1, 4096, 30000]))
    data = data[:(1 << 20) - offset]
    assert os.pwrite(random.choice(fds), data, offset) == len(data)
    model[offset:offset + len(data)] = data
    if i % 10 == 0:
        os.posix_fadvise(fds[0], 0, 0, os.POSIX_FADV_DONTNEED)
        offset = random.randrange(1 << 20)
        assert os.pread(fds[0], 5000, offset) == bytes(model[offset:offset + 5000])
sys.stdout.buffer.write(model)
`;

test("kill -9 under load costs no request, on the same descriptor", { timeout: 120_000 }, async () => {
  const dir = await mkdtemp(join(tmpdir(), "chiron-fuse-"));
  const mountpoint = join(dir, "mnt");
  const backing = join(dir, "backing");
  await writeFile(backing, Buffer.alloc(1 << 20));
  await promisify(execFile)("mkdir", [mountpoint]);
  const device = openDevice();
  mountDevice({ fd: device, mountpoint, source: "held", flags: 0, subtype: "chiron-test" });
  let child: ChildProcess | null = null;
  let resent = 0;
  const logged: string[] = [];

  async function start(turn: "first" | "again"): Promise<ChildProcess> {
    const script = join(import.meta.dirname, "testing", "serve-held.ts");
    const started = spawn(process.execPath, [script, "3", backing, turn], {
      stdio: ["ignore", "pipe", "pipe", device],
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    assert.ok(started.stdout && started.stderr);
    createInterface(started.stdout).on("line", (line) => {
      if (line === "ready") resolve();
      if (line.startsWith("resent ")) resent++;
      assert.notEqual(line, "unsupported");
    });
    createInterface(started.stderr).on("line", (line) => logged.push(line));
    await promise;
    return started;
  }

  try {
    child = await start("first");
    const options = { cwd: mountpoint, encoding: "buffer", maxBuffer: 1 << 22, timeout: 100_000 } as const;
    let done = false;
    const model = promisify(execFile)("python3", ["-c", workload], options).finally(() => {
      done = true;
    });
    let kills = 0;
    while (!done && kills < 12) {
      await new Promise((resolve) => setTimeout(resolve, 50 + 37 * (kills % 5)));
      const exited = new Promise((resolve) => child?.once("exit", resolve));
      child.kill("SIGKILL");
      await exited;
      child = await start("again");
      kills++;
    }
    const { stdout } = await model;
    assert.ok(kills >= 3);
    assert.ok(resent > 0, "no kill met a request under way");
    assert.ok(stdout.equals(await readFile(backing)));
    assert.deepEqual(logged, []);
  } finally {
    unmount(mountpoint, "detach");
    child?.kill("SIGKILL");
    closeDevice(device);
    assert.equal(findMount(mountpoint), null);
    await rm(dir, { recursive: true });
  }
});
