import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { test } from "node:test";
import { chironProgram, refused, run, Sandbox, sh } from "./sandbox.ts";

test("a volume is mounted, used, looked at, and unmounted", async (context) => {
  const box = new Sandbox(context);
  await box.mount("--volume", "web");
  refused(await box.chiron("mount", "--replica", box.path("a"), box.mountpoint), 75, /already mounted/);
  const elsewhere = box.makeDirectory("elsewhere");
  refused(await box.chiron("mount", "--replica", box.path("b"), elsewhere), 75, /belongs to the volume/);
  await sh(`mkdir ${box.mountpoint}/d && echo hello > ${box.mountpoint}/d/f`);
  assert.equal(readFileSync(box.path("a/d/f"), "utf8"), "hello\n");
  assert.equal(readFileSync(box.path("b/d/f"), "utf8"), "hello\n");
  const status = await box.status();
  assert.deepEqual([status.volume, status.mountpoint, status.state], ["web", box.mountpoint, "Healthy"]);
  assert.deepEqual(
    status.replicas.map(({ name, state }) => [name, state]),
    [
      ["a", "InSync"],
      ["b", "InSync"],
    ],
  );
  assert.deepEqual((await box.chiron("status", "web")).code, 0);
  assert.match((await box.chiron("list")).stdout, /web .*Healthy .*2\/2/);
  assert.deepEqual(await box.chiron("unmount", box.mountpoint), { code: 0, stdout: "", stderr: "" });
  assert.deepEqual(readdirSync(box.path("run")), []);
  assert.equal((await box.chiron("status", box.mountpoint)).code, 2);
  await box.mount();
  assert.equal((await sh(`cat ${box.mountpoint}/d/f`)).stdout, "hello\n");
});

test("plain umount(8) ends the holder in order, too", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  await sh(`echo hello > ${box.mountpoint}/f && umount ${box.mountpoint}`);
  await box.until("the holder ends", () => readdirSync(box.path("run")).length === 0);
  assert.match(box.logText(), /"Unmounted"/);
});

test("a mount in use is not unmounted, but can be taken out of the tree", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  const user = spawn("sh", ["-c", "exec 3> f; echo open; read line; echo later >&3"], { cwd: box.mountpoint });
  await new Promise((resolve) => user.stdout.once("data", resolve));
  refused(await box.chiron("unmount", box.mountpoint), 75, /in use.*--lazy/);
  assert.equal((await box.status()).state, "Healthy");
  assert.match((await box.chiron("unmount", "--lazy", box.mountpoint)).stdout, /out of the tree/);
  user.stdin.write("go\n");
  await new Promise((resolve) => user.once("exit", resolve));
  await box.until("the holder ends", () => readdirSync(box.path("run")).length === 0);
  assert.equal(readFileSync(box.path("b/f"), "utf8"), "later\n");
});

test("in the foreground it stays until SIGTERM, and unmounts in order", async (context) => {
  const box = new Sandbox(context);
  const replicas = ["--replica", box.makeDirectory("a"), "--replica", box.makeDirectory("b")];
  const child = spawn(chironProgram, ["mount", "--foreground", ...replicas, box.mountpoint], { env: box.env });
  child.stderr.resume();
  await box.until("it is mounted", async () => (await box.chiron("status", box.mountpoint)).code === 0);
  await sh(`echo hello > ${box.mountpoint}/f`);
  child.kill("SIGTERM");
  assert.equal(await new Promise((resolve) => child.once("exit", resolve)), 0);
  assert.deepEqual(readdirSync(box.path("run")), []);
  assert.equal(readFileSync(box.path("a/f"), "utf8"), "hello\n");
});

test("mount.chiron mounts as a line of fstab says", async (context) => {
  const box = new Sandbox(context);
  const spec = `${box.makeDirectory("a")}=:${box.makeDirectory("b")}`;
  const options = `rw,noatime,_netdev,volume=web,log=${box.log}`;
  const helper = chironProgram.replace(/chiron$/, "mount.chiron");
  const { code, stderr } = await run(helper, [spec, box.mountpoint, "-o", options], box.env);
  assert.equal(code, 0, stderr);
  const { stdout } = await sh(`grep ' ${box.mountpoint} ' /proc/self/mounts`);
  assert.match(stdout, new RegExp(`^${spec} ${box.mountpoint} fuse.chiron rw,noatime,`));
});

test("mount(8) and umount(8) work with a line of fstab, once the helper is where they look", async (context) => {
  const box = new Sandbox(context);
  const [a, b] = [box.makeDirectory("a"), box.makeDirectory("b")];
  const options = `noatime,nofail,min-in-sync=2,x-systemd.requires-mounts-for=${a},volume=web,log=${box.log}`;
  writeFileSync(box.path("fstab"), `${a}=${b} ${box.mountpoint} chiron ${options} 0 0\n`);
  const helper = chironProgram.replace(/chiron$/, "mount.chiron");
  // In a mount namespace of its own, so that the machine's /sbin stays as it is.
  const script = `
    set -e
    mkdir ${box.path("layer")} && mount -t tmpfs none ${box.path("layer")} && cd ${box.path("layer")} && mkdir upper work
    sbin=$(readlink -f /sbin) && mount -t overlay none -o lowerdir=$sbin,upperdir=$PWD/upper,workdir=$PWD/work $sbin
    ln -s ${helper} /sbin/mount.chiron
    mount -T ${box.path("fstab")} ${box.mountpoint}
    echo hello > ${box.mountpoint}/f
    ${chironProgram} status --json web
    umount ${box.mountpoint}
    while [ -n "$(ls ${box.path("run")})" ]; do sleep 0.05; done`;
  const { code, stdout, stderr } = await run(
    "unshare",
    ["-m", "--propagation", "private", "sh", "-c", script],
    box.env,
  );
  assert.equal(code, 0, stderr);
  assert.equal((JSON.parse(stdout) as { minInSyncReplicas: number }).minInSyncReplicas, 2);
  assert.equal(readFileSync(`${b}/f`, "utf8"), "hello\n");
});

test("replicas are disabled and enabled, and come back by a resync", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  refused(await box.chiron("replica", "disable", box.mountpoint, "c"), 64, /no replica "c"/);
  assert.equal((await box.chiron("replica", "disable", box.mountpoint, "b")).code, 0);
  const degraded = await box.chiron("status", box.mountpoint);
  assert.equal(degraded.code, 1);
  assert.match(degraded.stdout, /degraded/);
  await sh(`echo missed > ${box.mountpoint}/f`);
  assert.equal((await box.chiron("replica", "enable", box.mountpoint, "b")).code, 0);
  const resync = await box.chiron("resync", box.mountpoint);
  assert.equal(resync.code, 0, resync.stderr);
  assert.equal((await box.chiron("status", box.mountpoint)).code, 0);
  assert.equal(readFileSync(box.path("b/f"), "utf8"), "missed\n");
});

test("verify reports every difference, and repairs it", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  await sh(`echo right > ${box.mountpoint}/f; mkdir ${box.mountpoint}/d`);
  const alike = await box.chiron("verify", box.mountpoint);
  assert.deepEqual([alike.code, alike.stderr], [0, ""]);
  assert.match(alike.stdout, /^a and b are alike: \d+ files/);
  writeFileSync(box.path("b/f"), "wrong!\n");
  const differing = await box.chiron("verify", box.mountpoint);
  assert.equal(differing.code, 1);
  assert.match(differing.stdout, /b +size +\/f/);
  const repair = await box.chiron("verify", "--repair", box.mountpoint);
  assert.equal(repair.code, 0, repair.stdout);
  assert.match(repair.stdout, /to be repaired.*b +in sync/s);
  assert.equal(readFileSync(box.path("b/f"), "utf8"), "right\n", "it returns when that is done");
  assert.equal((await box.status()).state, "Healthy");
  assert.equal((await box.chiron("verify", box.mountpoint)).code, 0);
  await box.chiron("replica", "disable", box.mountpoint, "b");
  const alone = await box.chiron("verify", box.mountpoint);
  assert.equal(alone.code, 1);
  assert.match(alone.stdout, /Nothing was compared: only a is in sync.*not looked at: b/s);
});

test("replicas are added, replaced and removed in use, also across a restart of the volume process", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  await sh(`echo hello > ${box.mountpoint}/f`);
  for (const [verb, name, path] of [
    ["add", "c", "c"],
    ["replace", "b", "d"],
    ["remove", "a", ""],
  ] as const) {
    const outcome = await box.chiron("replica", verb, box.mountpoint, name, ...(path ? [box.makeDirectory(path)] : []));
    assert.deepEqual([outcome.code, outcome.stderr], [0, ""], verb);
    await box.until(`${verb} is done`, async () => (await box.status()).state === "Healthy");
  }
  const { pid, replicas } = await box.status();
  const places = () => replicas.map(({ name, url }) => `${name} ${url}`).sort();
  assert.deepEqual(places(), [`b ${box.path("d")}`, `c ${box.path("c")}`]);
  process.kill(pid, "SIGKILL");
  await box.until("another process serves", async () => (await box.status()).pid !== pid);
  assert.deepEqual((await box.status()).replicas.map(({ name, url }) => `${name} ${url}`).sort(), places());
  for (const name of ["c", "d"]) assert.equal(readFileSync(box.path(`${name}/f`), "utf8"), "hello\n");
});

test("events reach the hook, and metrics their address", async (context) => {
  const box = new Sandbox(context);
  const port = await freePort();
  await box.mount("--volume", "web", "--metrics", String(port), "--on-event", `cat >> ${box.path("events")}`);
  await sh(`echo hello > ${box.mountpoint}/f`);
  await box.chiron("replica", "disable", box.mountpoint, "b");
  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  assert.match(metrics, /chiron_replica_state\{replica="b",state="OutOfSync",volume="web"\} 1/);
  assert.match(metrics, /chiron_volume_process_up\{volume="web"\} 1/);
  assert.match(metrics, /chiron_expulsions_total\{replica="b",reason="Disabled",volume="web"\} 1/);
  assert.match(metrics, /chiron_written_bytes_total\{volume="web"\} 6/);
  assert.match(metrics, /chiron_replica_written_bytes_total\{replica="b",volume="web"\} [1-9]/);
  assert.match(metrics, /chiron_operation_duration_seconds_count\{operation="create",volume="web"\} [1-9]/);
  assert.match(metrics, /chiron_replica_duration_seconds_count\{replica="a",call="create",volume="web"\} [1-9]/);
  await sh(`cd ${box.mountpoint} && mkdir d && for i in 1 2 3; do echo $i > d/$i; done`);
  const later = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const dirty = Number(/chiron_dirty_objects\{replica="b",volume="web"\} (\d+)/.exec(later)?.[1]);
  assert.ok(dirty >= 1, `b has missed a directory: ${dirty}`);
  await box.chiron("replica", "enable", box.mountpoint, "b");
  assert.equal((await box.chiron("resync", box.mountpoint)).code, 0);
  const { pid } = await box.status();
  process.kill(pid, "SIGKILL");
  await box.until("another process serves", async () => (await box.status()).pid !== pid);
  await box.chiron("unmount", box.mountpoint);
  const events = () =>
    readFileSync(box.path("events"), "utf8")
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { event: string }).event);
  await box.until("the last event is told", async () => events().includes("unmounted"));
  assert.deepEqual(events(), [
    ...["mounted", "replica-lost", "resync-started", "replica-back", "resync-done"],
    ...["volume-process-restarted", "unmounted"],
  ]);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
