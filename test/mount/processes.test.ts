/** What happens to a mount when its processes die, stop or change, while an application works on it. */
import assert from "node:assert/strict";
import { type ChildProcess, fork, spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { WorkloadReport } from "../../scripts/demo-workload.ts";
import { run, Sandbox, sh } from "./sandbox.ts";

const workloadProgram = fileURLToPath(new URL("../../scripts/demo-workload.ts", import.meta.url));
const treesEqual = fileURLToPath(new URL("../trees-equal.py", import.meta.url));

class Workload {
  readonly #child: ChildProcess;
  #last: WorkloadReport | null = null;

  constructor(box: Sandbox) {
    this.#child = fork(workloadProgram, [box.mountpoint]);
    this.#child.on("message", (message) => {
      this.#last = message as WorkloadReport;
    });
    box.onEnd(() => this.#child.kill("SIGKILL"));
  }

  /** Returns when it has done so many more operations. */
  async goesOn(box: Sandbox, operations = 50): Promise<void> {
    const goal = (this.#last?.operations ?? 0) + operations;
    await box.until("the application goes on", () => (this.#last?.operations ?? 0) >= goal);
    assert.deepEqual(this.#last?.errors, []);
  }

  async finish(box: Sandbox): Promise<void> {
    this.#child.send("stop");
    await box.until("the application ends", () => this.#last?.finished === true);
    assert.deepEqual(this.#last?.errors, []);
  }
}

async function mounted(context: TestContext, ...options: string[]) {
  const box = new Sandbox(context);
  await box.mount(...options);
  const workload = new Workload(box);
  await workload.goesOn(box);
  return { box, workload };
}

async function unmountAndCompare(
  box: Sandbox,
  workload: Workload,
  a = box.path("a"),
  b = box.path("b"),
): Promise<void> {
  await workload.finish(box);
  const { code, stderr } = await box.chiron("unmount", box.mountpoint);
  assert.deepEqual([code, stderr], [0, ""]);
  const comparison = await run("python3", [treesEqual, a, b]);
  assert.equal(comparison.code, 0, comparison.stdout);
}

test("kill -9 of the volume process, again and again, reaches no application", async (context) => {
  const { box, workload } = await mounted(context);
  for (let round = 0; round < 4; round++) {
    const { pid } = await box.status();
    process.kill(pid, "SIGKILL");
    await workload.goesOn(box);
    assert.notEqual((await box.status()).pid, pid);
  }
  await unmountAndCompare(box, workload);
});

test("a stopped volume process is replaced within the deadline", async (context) => {
  const { box, workload } = await mounted(context, "--deadline", "2s");
  const { pid } = await box.status();
  process.kill(pid, "SIGSTOP");
  await workload.goesOn(box);
  assert.notEqual((await box.status()).pid, pid);
  await unmountAndCompare(box, workload);
});

for (const where of ["loop", "threads"]) {
  test(`a replica that hangs, its calls being on ${where === "loop" ? "the loop" : "threads"}, costs one deadline, and comes back`, async (context) => {
    const box = new Sandbox(context);
    box.makeDirectory("a");
    const below = box.makeDirectory("below");
    const b = box.makeDirectory("b");
    const bindfs = spawn("bindfs", ["-f", below, b], { stdio: "inherit" });
    box.onEnd(() => {
      bindfs.kill("SIGCONT");
      spawnSync("umount", ["-l", b]);
    });
    await box.until("bindfs is there", async () => (await sh(`mountpoint -q ${b}`)).code === 0);
    const replicas = ["--replica", box.path("a"), "--replica", `b=${b}?run=${where}`];
    const mount = await box.chiron("mount", "--log", box.log, "--deadline", "2s", ...replicas, box.mountpoint);
    assert.equal(mount.code, 0, mount.stderr);
    const workload = new Workload(box);
    await workload.goesOn(box);
    bindfs.kill("SIGSTOP");
    await workload.goesOn(box, 500);
    assert.equal((await box.status()).state, "Degraded");
    bindfs.kill("SIGCONT");
    await box.until("b comes back", async () => (await box.status()).state === "Healthy");
    await unmountAndCompare(box, workload, box.path("a"), below);
  });
}

test("kill -9 of the holder reaches no application", async (context) => {
  const { box, workload } = await mounted(context);
  const holder = await box.holder();
  process.kill(holder, "SIGKILL");
  await workload.goesOn(box);
  await box.until("there is another holder", async () => (await box.chiron("status", box.mountpoint)).code === 0);
  assert.notEqual(await box.holder(), holder);
  await unmountAndCompare(box, workload);
});

test("a handover to another holder reaches no application", async (context) => {
  const { box, workload } = await mounted(context);
  const holder = await box.holder();
  const { code, stdout } = await box.chiron("handover", box.mountpoint);
  assert.equal(code, 0, box.logText());
  assert.match(stdout, /is now held by version/);
  await workload.goesOn(box);
  assert.notEqual(await box.holder(), holder);
  await unmountAndCompare(box, workload);
});

test("where the kernel cannot resend, requests get errors, none hangs, and nothing is written below the mount point", async (context) => {
  const box = new Sandbox(context);
  box.env["CHIRON_NO_RESEND"] = "1";
  await box.mount();
  const loop = `i=0; while [ ! -e ${box.path("stop")} ]; do i=$((i+1)); echo $i > ${box.mountpoint}/f$i; sleep 0.01; done`;
  const application = sh(loop);
  await sh("sleep 0.5");
  const { pid } = await box.status();
  process.kill(pid, "SIGKILL");
  await box.until("another process serves", async () => (await box.status()).pid !== pid);
  assert.equal((await sh(`echo fine > ${box.mountpoint}/after`)).code, 0);
  await sh(`touch ${box.path("stop")}`);
  await application;
  const { code, stderr } = await box.chiron("unmount", box.mountpoint);
  assert.deepEqual([code, stderr], [0, ""]);
  await box.until("nothing is mounted there", async () => (await sh(`mountpoint -q ${box.mountpoint}`)).code !== 0);
  assert.deepEqual(readdirSync(box.mountpoint), []);
  assert.equal(readFileSync(box.path("b/after"), "utf8"), "fine\n");
});

test("a copy of the mount in another namespace does not delay unmounting, unless somebody uses it", async (context) => {
  const box = new Sandbox(context);
  await box.mount();
  const idle = spawn("unshare", ["-m", "--propagation", "private", "sleep", "1000"], { stdio: "ignore" });
  box.onEnd(() => idle.kill("SIGKILL"));
  await sh(`until [ "$(readlink /proc/${idle.pid}/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done`);
  await sh(`echo hello > ${box.mountpoint}/f`);
  const { code, stdout } = await box.chiron("unmount", box.mountpoint);
  assert.deepEqual([code, stdout], [0, ""]);
  assert.match(box.logText(), /have a copy of the mount/);
  assert.deepEqual(readdirSync(box.path("run")), []);
  assert.equal((await run("python3", [treesEqual, box.path("a"), box.path("b")])).code, 0);

  await box.mount();
  assert.doesNotMatch(box.logText(), /not unmounted in order/, "it was left in order");
  const script = `exec 3> ${box.mountpoint}/g; echo open; read line; echo later >&3`;
  const user = spawn("unshare", ["-m", "--propagation", "private", "sh", "-c", script]);
  box.onEnd(() => user.kill("SIGKILL"));
  await new Promise((resolve) => user.stdout.once("data", resolve));
  assert.match((await box.chiron("unmount", box.mountpoint)).stdout, /out of the tree/);
  user.stdin.write("go\n");
  await new Promise((resolve) => user.once("exit", resolve));
  idle.kill("SIGKILL");
  await box.until("the holder ends", () => readdirSync(box.path("run")).length === 0);
  assert.equal(readFileSync(box.path("b/g"), "utf8"), "later\n");
});

test("metrics are served while the volume process is away", async (context) => {
  const { box } = await mounted(context, "--metrics", "127.0.0.1:19187");
  const scrape = async () => (await fetch("http://127.0.0.1:19187/metrics")).text();
  assert.match(await scrape(), /chiron_volume_process_restarts_total\{volume="mnt"\} 0/);
  const { pid } = await box.status();
  process.kill(pid, "SIGKILL");
  await box.until("the restart is counted", async () => (await scrape()).includes('restarts_total{volume="mnt"} 1'));
});
