/** Bad input: each gets one line on standard error that says what to do, its own exit code, and changes nothing on disk. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { chironProgram, type Outcome, refused, run, Sandbox, sh } from "./sandbox.ts";

/** Everything below a directory, with contents: what a refused mount must not change. */
async function snapshot(directory: string): Promise<string> {
  const { stdout } = await sh(
    `cd ${directory} && find . -path ./run -prune -o -path ./log -prune -o -printf '%p %y %m %s %T@\\n' | sort`,
  );
  return stdout;
}

function mounting(box: Sandbox): (...argv: string[]) => Promise<Outcome> {
  return (...argv) => box.chiron("mount", "--log", box.log, ...argv, box.mountpoint);
}

test("each kind of bad input gets one line that says what to do, and its own exit code", async (context) => {
  const box = new Sandbox(context);
  const [a, b] = [box.makeDirectory("a"), box.makeDirectory("b")];
  writeFileSync(box.path("file"), "x");
  mkdirSync(box.path("a/inner"));
  mkdirSync(box.path("mnt/below"));
  symlinkSync("a", box.path("link"));
  const before = await snapshot(box.directory);
  const mount = (...argv: string[]) => box.chiron("mount", "--log", box.log, ...argv);
  const two = ["--replica", a, "--replica", b];
  const cases: [Promise<Outcome>, number, RegExp][] = [
    [mount(box.mountpoint), 64, /No replica/],
    [mount(...two), 64, /Where to mount/],
    [mount(...two, "--min-in-sink", "1", box.mountpoint), 64, /unknown option '--min-in-sink'.*--min-in-sync/s],
    [mount(...two, "-o", "big_writes", box.mountpoint), 64, /big_writes/],
    [mount(...Array.from({ length: 9 }, () => ["--replica", a]).flat(), box.mountpoint), 64, /8 are possible/],
    [mount("--replica", `a=${a}`, "--replica", `a=${b}`, box.mountpoint), 64, /called "a"/],
    [mount("--replica", a, "--replica", box.path("none"), box.mountpoint), 66, /"none".*does not exist/],
    [mount("--replica", a, "--replica", box.path("file"), box.mountpoint), 66, /not a directory/],
    [mount("--replica", a, "--replica", box.path("link"), box.mountpoint), 66, /one directory/],
    [mount("--replica", a, "--replica", box.path("a/inner"), box.mountpoint), 66, /within each other/],
    [mount("--replica", a, "--replica", box.path("mnt/below"), box.mountpoint), 66, /would be hidden/],
    [mount(...two, box.path("nowhere")), 73, /mkdir -p/],
    [mount(...two, box.path("file")), 73, /not a directory/],
    [mount(...two, box.path("a/inner")), 73, /lies in replica/],
    [mount(...two, "/proc"), 73, /mounted on \/proc already/],
    [box.chiron("status", box.mountpoint), 2, /not mounted by Chiron/],
    [box.chiron("unmount", box.mountpoint), 2, /not mounted by Chiron/],
    [box.chiron("frobnicate"), 64, /unknown command/],
  ];
  for (const [outcome, code, message] of cases) {
    const { stderr, ...rest } = await outcome;
    refused({ ...rest, stderr: stderr.replace(/\n\(Did you mean (.*)\)/, " ($1)") }, code, message);
  }
  assert.equal(await snapshot(box.directory), before, "nothing has changed on disk");
});

test("someone who is not root is told so", async (context) => {
  const box = new Sandbox(context);
  const replicas = ["--replica", box.makeDirectory("a"), "--replica", box.makeDirectory("b")];
  const argv = ["mount", ...replicas, box.mountpoint].map((word) => `'${word}'`).join(" ");
  const { status } = { status: await sh("id -u nobody") };
  if (status.code !== 0) return context.skip("there is no user nobody here");
  await sh(`chmod 755 ${box.directory}`);
  refused(
    await run("setpriv", ["--reuid=65534", "--clear-groups", "sh", "-c", `${chironProgram} ${argv}`], box.env),
    77,
    /sudo/,
  );
});

test("a replica without space, without inodes, or read-only, and a log that cannot be, refuse a new volume", async (context) => {
  const box = new Sandbox(context);
  const a = box.makeDirectory("a");
  for (const [name, options] of [
    ["full", "size=64k"],
    ["crowded", "nr_inodes=1"],
    ["readonly", "ro"],
  ] as const) {
    assert.equal((await sh(`mount -t tmpfs -o ${options} none ${box.makeDirectory(name)}`)).code, 0);
    box.onEnd(() => void sh(`umount ${box.path(name)}`));
  }
  const before = await snapshot(box.directory);
  const mount = mounting(box);
  for (const [name, message] of [
    ["full", /"full".*no space left/],
    ["crowded", /"crowded".*no space left/],
    ["readonly", /"readonly".*read-only/],
  ] as const) {
    refused(await mount("--replica", a, "--replica", box.path(name)), 66, message);
    refused(await mount("--replica", `${box.path(name)}?run=threads`, "--replica", a), 66, message);
  }
  refused(await mount("--replica", a, "--witness", box.path("readonly")), 66, /witness.*read-only/);
  refused(await mount("--replica", a, "--witness", box.path("nowhere")), 66, /witness.*does not exist/);
  refused(await mount("--replica", a, "--witness", box.path("a/w")), 66, /witness.*within each other/);
  refused(await mount("--replica", a, "--log", "/proc/nowhere/log"), 64, /no directory \/proc\/nowhere.*--log/);
  assert.equal(await snapshot(box.directory), before, "nothing has changed on disk");
});

test("replicas of other volumes, under other names, damaged, newer or absent are left as they are", async (context) => {
  const box = new Sandbox(context);
  const mount = mounting(box);
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => box.makeDirectory(name)) as [string, string, string, string];
  for (const pair of [
    [a, b],
    [c, d],
  ]) {
    assert.equal((await mount(...pair.flatMap((path) => ["--replica", path]))).code, 0);
    await sh(`echo hello > ${box.mountpoint}/f`);
    assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
  }
  mkdirSync(box.path("data"));
  writeFileSync(box.path("data/mine"), "mine");
  mkdirSync(box.path("empty"));
  const marker = `${a}/.chiron/replica.json`;
  const good = readFileSync(marker, "utf8");
  const cases: [string, string[], number, RegExp, string?][] = [
    ["another volume's", [a, `b=${c}`], 78, /another volume/],
    ["swapped", [`a=${b}`, `b=${a}`], 78, /is the volume's replica "b".*--replica b=PATH/],
    ["misnamed", [`x=${a}`, b], 78, /is the volume's replica "a"/],
    [
      "somebody's data",
      [a, `b=${box.path("data")}`],
      78,
      /"b": the directory holds data and no marker.*--force-degraded/,
    ],
    ["not mounted", [a, `b=${box.path("empty")}`], 78, /"b": the directory is empty and has no marker.*mount it/],
    ["away", [a, `b=${box.path("nowhere")}`], 79, /"b".*does not exist.*--force-degraded/],
    ["left out", [a], 79, /"b" is in sync on record/],
    ["one too many", [a, b, box.path("nowhere")], 66, /"nowhere".*does not exist/],
    ["damaged", [a, b], 78, /"a": its marker.*not JSON/, "{"],
    ["newer", [a, b], 81, /"a".*newer/, good.replace('"formatVersion": 1', '"formatVersion": 2')],
    ["no run mode", [`${a}?run=walk`, b], 64, /\?run=/],
  ];
  for (const [what, replicas, code, message, content] of cases) {
    if (content !== undefined) writeFileSync(marker, content);
    const before = await snapshot(box.directory);
    await context.test(what, async () => {
      refused(await mount(...replicas.flatMap((replica) => ["--replica", replica])), code, message);
      assert.equal(await snapshot(box.directory), before, "nothing has changed on disk");
    });
    if (content !== undefined) writeFileSync(marker, good);
  }
  assert.equal((await mount("--replica", a, "--replica", b)).code, 0, "after all that it is as it was");
});

test("a volume is mounted once, whatever path leads to it", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  const elsewhere = box.makeDirectory("elsewhere");
  const paths = ["a", "b"].map((name) => [name, box.makeDirectory(`${name}-too`)] as const);
  for (const [name, path] of paths) {
    assert.equal((await sh(`mount --bind ${box.path(name)} ${path}`)).code, 0);
    box.onEnd(() => void sh(`umount ${path}`));
  }
  const replicas = paths.flatMap(([name, path]) => ["--replica", `${name}=${path}`]);
  refused(await box.chiron("mount", "--log", box.log, ...replicas, elsewhere), 75, /in use by another mount/);
  const twice = [
    "--replica",
    `x=${box.path("c")}`,
    "--replica",
    `y=${paths[0]?.[1]}`,
    "--replica",
    `z=${box.path("a")}`,
  ];
  box.makeDirectory("c");
  refused(await box.chiron("mount", "--log", box.log, ...twice, elsewhere), 75, /belongs to the volume|one directory/);
});

test("a dead mount is named, and taken away", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  const { pid } = await box.status();
  const holder = await box.holder();
  // All at one moment: each of them would rescue the mount from the others' end.
  await sh(`all="${holder} ${pid} $(pgrep -P ${holder})"; kill -STOP $all; kill -9 $all`);
  refused(await box.chiron("status", box.mountpoint), 2, /is gone.*chiron unmount/);
  assert.match((await box.chiron("list")).stdout, /Dead/);
  refused(
    await mounting(box)("--replica", box.path("a"), "--replica", box.path("b")),
    73,
    /dead mount.*chiron unmount/,
  );
  assert.match((await box.chiron("unmount", box.mountpoint)).stdout, /was a dead mount/);
  assert.match((await box.chiron("list")).stdout, /nothing/);
  assert.deepEqual(readdirSync(box.path("run")), []);
  await box.mount();
});

test("a machine without /dev/fuse, and a root that may not mount, are told so", async (context) => {
  const box = new Sandbox(context);
  const argv = `mount --log ${box.log} --replica ${box.makeDirectory("a")} --replica ${box.makeDirectory("b")} ${box.mountpoint}`;
  const before = await snapshot(box.directory);
  const hide = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3";
  const without = ["-m", "--propagation", "private", "sh", "-c", `${hide} && exec ${chironProgram} ${argv}`];
  refused(await run("unshare", without, box.env), 69, /no \/dev\/fuse.*modprobe fuse/);
  const capable = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", "sh", "-c", `${chironProgram} ${argv}`];
  refused(await run("setpriv", capable, box.env), 77, /CAP_SYS_ADMIN/);
  assert.equal(await snapshot(box.directory), before, "nothing has changed on disk");
});

test("a damaged state log, and a record of a newer version, are told by every command", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  const state = () => box.path(`run/${readdirSync(box.path("run"))[0]}`);
  const { pid } = await box.status();
  await sh(`printf XXXXXXXX | dd of=${state()}/state-log conv=notrunc && kill -9 ${pid}`);
  await box.until("the damage is found", async () => (await box.chiron("status", box.mountpoint)).code === 81);
  refused(await box.chiron("status", box.mountpoint), 81, /is damaged.*chiron unmount --force/);
  assert.equal((await box.chiron("unmount", "--force", box.mountpoint)).code, 0);
  await box.mount();
  await sh(`sed -i 's/"formatVersion": 1/"formatVersion": 2/' ${state()}/mount.json`);
  refused(await box.chiron("status", box.mountpoint), 81, /newer version/);
  await sh(`sed -i 's/"formatVersion": 2/"formatVersion": 1/' ${state()}/mount.json`);
});
