/** What options of `chiron mount` promise, on whole volumes. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, renameSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { refused, Sandbox, sh } from "./sandbox.ts";

test("--witness: two replicas go on without either, and the one that missed something is not trusted alone", async (context) => {
  const box = new Sandbox(context);
  for (const name of ["a", "b", "w"]) box.makeDirectory(name);
  const mount = () =>
    box.chiron(
      ...["mount", "--log", box.log, "--witness", box.path("w")],
      ...["--replica", box.path("a"), "--replica", box.path("b"), box.mountpoint],
    );
  assert.equal((await mount()).code, 0);
  await box.chiron("unmount", box.mountpoint);
  assert.deepEqual(readdirSync(box.path("w")), [".chiron"]);
  renameSync(box.path("b"), box.path("b.away"));
  assert.equal((await mount()).code, 0, "a and the witness are a majority");
  await sh(`echo new > ${box.mountpoint}/f`);
  await box.chiron("unmount", box.mountpoint);
  renameSync(box.path("b.away"), box.path("b"));
  renameSync(box.path("a"), box.path("a.away"));
  refused(await mount(), 79, /\("a"\) can be reached.*does not exist.*--force-degraded/);
  renameSync(box.path("a.away"), box.path("a"));
  assert.equal((await mount()).code, 0);
  assert.equal((await box.chiron("resync", box.mountpoint)).code, 0);
  assert.equal((await box.status()).state, "Healthy");
  assert.equal(readFileSync(box.path("b/f"), "utf8"), "new\n");
  await box.chiron("unmount", box.mountpoint);
  renameSync(box.path("w"), box.path("w.away"));
  const { code, stderr } = await mount();
  assert.equal(code, 0, "both replicas are a majority as well");
  assert.match(stderr, /witness.*does not exist.*no vote/);
});

test("--capacity: the volume says that it is so large, and is full then, though its disks are not", async (context) => {
  const box = new Sandbox(context);
  await box.mount("--capacity", "10M");
  const [block, blocks] = (await sh(`stat -f -c '%S %b' ${box.mountpoint}`)).stdout.split(" ").map(Number);
  assert.equal((block ?? 0) * (blocks ?? 0), 10 << 20);
  // The tree is measured while writes go on: what comes meanwhile may go beyond it.
  const append = `dd if=/dev/zero of=${box.mountpoint}/big bs=1M count=1 oflag=append conv=notrunc && sleep 0.2`;
  const { code, stderr, stdout } = await sh(`for i in $(seq 30); do echo $i; ${append} || exit 1; done`);
  assert.equal(code, 1);
  assert.ok(Number(stdout.trim().split("\n").at(-1)) <= 15, stdout);
  assert.match(stderr, /No space left/);
  assert.equal((await box.status()).state, "Healthy", "nobody is to blame for that");
  await sh(`rm ${box.mountpoint}/big`);
  // What is gone counts when the tree has been measured again, which being refused brings about.
  const fits = async () => (await sh(`echo fits > ${box.mountpoint}/small`)).code === 0;
  await box.until("there is room again", fits);
});

test("--replica-slow: it takes every change, and is read only when the others are out", async (context) => {
  const box = new Sandbox(context);
  const port = await freePort();
  const [a, b] = [box.makeDirectory("a"), box.makeDirectory("b")];
  const replicas = ["--replica-slow", b, "--replica", a];
  const mount = ["mount", "--log", box.log, "--metrics", String(port), ...replicas, box.mountpoint];
  assert.equal((await box.chiron(...mount)).code, 0);
  const bytesRead = async (replica: string): Promise<number> => {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    return Number(new RegExp(`chiron_replica_read_bytes_total\\{replica="${replica}",[^}]*\\} (\\d+)`).exec(text)?.[1]);
  };
  const read = `cd ${box.mountpoint} && for i in 1 2 3 4 5 6 7 8; do dd if=f$i of=/dev/null iflag=direct bs=64k status=none; done`;
  await sh(`cd ${box.mountpoint} && for i in 1 2 3 4 5 6 7 8; do head -c 65536 /dev/urandom > f$i; done`);
  const before = [await bytesRead("a"), await bytesRead("b")] as const;
  assert.equal((await sh(read)).code, 0);
  assert.deepEqual([(await bytesRead("a")) - before[0], (await bytesRead("b")) - before[1]], [8 * 65536, 0]);
  await box.chiron("replica", "disable", box.mountpoint, "a");
  const alone = await bytesRead("b");
  assert.equal((await sh(read)).code, 0);
  assert.equal((await bytesRead("b")) - alone, 8 * 65536);
  assert.equal((await sh(`cmp ${a}/f3 ${b}/f3`)).code, 0);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
