/** `chiron status` is a contract for programs: its JSON, its exit codes, and what it shows while things happen. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, renameSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import type { VolumeStatus } from "../../src/replication/model.ts";
import { chironProgram, run, Sandbox, sh } from "./sandbox.ts";

const volumeKeys = ["volume", "mountpoint", "state", "epoch", "pid", "minInSyncReplicas", "replicas"];
const replicaKeys = ["name", "url", "state", "reason", "since", "readable", "progress", "lastError", "freeBytes"];

const chironLine = (...argv: string[]): string => [chironProgram, ...argv].join(" ");

test("the JSON has what it promises, no more and no less", async (context) => {
  const box = new Sandbox(context);
  await box.mount("--volume", "web", "--resync-bandwidth", "64K");
  const healthy = await box.status();
  assert.deepEqual(Object.keys(healthy), volumeKeys);
  for (const replica of healthy.replicas) {
    assert.deepEqual(Object.keys(replica), replicaKeys);
    const { state, reason, readable, progress, lastError, since, freeBytes } = replica;
    assert.deepEqual([state, reason, readable, progress, lastError], ["InSync", null, true, null, null]);
    assert.equal(new Date(since).toISOString(), since);
    assert.ok((freeBytes ?? 0) > 0);
  }
  await box.chiron("replica", "disable", box.mountpoint, "b");
  const [, b] = (await box.status()).replicas;
  assert.deepEqual([b?.state, b?.reason, b?.readable, b?.freeBytes], ["OutOfSync", "Disabled", false, null]);
  await sh(`head -c 4000000 /dev/urandom > ${box.mountpoint}/large`);
  await box.chiron("replica", "enable", box.mountpoint, "b");
  await box.until("the resync shows how far it is", async () => {
    const { state, replicas } = await box.status();
    const progress = replicas[1]?.progress ?? null;
    if (progress === null) return false;
    assert.equal(state, "Syncing");
    assert.deepEqual(Object.keys(progress), ["filesRemaining", "bytesRemaining", "percent"]);
    assert.ok(progress.percent >= 0 && progress.percent <= 100);
    return progress.bytesRemaining > 0;
  });
  assert.equal((await box.chiron("status", box.mountpoint)).code, 1, "syncing is not healthy");
  const resync = spawn("script", ["-qec", chironLine("resync", box.mountpoint), "/dev/null"], { env: box.env });
  let shown = "";
  resync.stdout.on("data", (chunk: Buffer) => (shown += chunk.toString()));
  await box.until("its bar is drawn", () => /b +.*\d+ ?%/s.test(shown));
  resync.kill();
});

test("without a quorum it exits with 2, and --watch follows", async (context) => {
  const box = new Sandbox(context);
  await box.mount("--min-in-sync", "2", "--on-event", `cat >> ${box.path("events")}`);
  const watch = spawn("sh", ["-c", `exec ${chironLine("status", "--watch", "--json", box.mountpoint)}`], {
    env: box.env,
  });
  box.onEnd(() => watch.kill("SIGKILL"));
  const states: string[] = [];
  createInterface({ input: watch.stdout }).on("line", (line) => states.push((JSON.parse(line) as VolumeStatus).state));
  await box.until("it says that all is well", () => states.includes("Healthy"));
  renameSync(box.path("b"), box.path("away"));
  await box.until("it says that the quorum is lost", () => states.includes("QuorumLost"));
  assert.equal((await box.chiron("status", box.mountpoint)).code, 2);
  assert.match((await sh(`echo x > ${box.mountpoint}/f`)).stderr, /Read-only/);
  renameSync(box.path("away"), box.path("b"));
  await box.until("it is well again", () => states.at(-1) === "Healthy");
  assert.equal((await box.chiron("status", box.mountpoint)).code, 0);
  const events = readFileSync(box.path("events"), "utf8");
  assert.match(events, /"quorum-lost".*"quorum-restored"/s);
  watch.kill("SIGINT");
  await new Promise((resolve) => watch.once("exit", resolve));
  assert.equal((await run("sh", ["-c", `echo x > ${box.mountpoint}/f`])).code, 0);
});
