import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { EBUSY } from "../util/errno.ts";
import { type LogFields, silentLogger } from "../util/logger.ts";
import { ControlClient } from "./control-client.ts";
import { FailureError } from "./failure.ts";
import type { HolderOptions } from "./holder.ts";
import type { MountOperations } from "./holder-mount.ts";
import { type HolderEnvironment, type RunningMount, runHolder, takeOver } from "./holder-run.ts";
import { readProcessState } from "./holder-watch.ts";
import { controlSocket, type HolderConfig, mountDirectory, readRecord } from "./registry.ts";

const fakeVolume = fileURLToPath(new URL("./testing/fake-volume.ts", import.meta.url));

interface Setup {
  readonly config: HolderConfig;
  readonly environment: HolderEnvironment;
  readonly directory: string;
  /** What was done to the kernel, in order. */
  readonly kernel: string[];
  readonly log: LogFields[];
  busy: boolean;
  /** Ended after the test. */
  readonly running: RunningMount[];
}

function setUp(context: TestContext, volume: string, options: Partial<HolderOptions> = {}, canResend = true): Setup {
  const run = mkdtempSync(join(tmpdir(), "chiron-holder-"));
  context.after(async () => {
    await Promise.all(setup.running.map(({ holder }) => holder.stop(0)));
    rmSync(run, { recursive: true });
  });
  const mountpoint = join(run, "mnt");
  mkdirSync(mountpoint);
  const directory = mountDirectory(mountpoint, join(run, "chiron"));
  const kernel: string[] = [];
  const log: LogFields[] = [];
  const record = (message: string, fields?: LogFields) => void log.push({ message, ...fields });
  const mounts: MountOperations = {
    open: () => openSync("/dev/null", "r+"),
    close: (fd) => closeSync(fd),
    mount: (_fd, request) => void kernel.push(`mount ${request.source}`),
    device: () => "0:53",
    users: () => ({ copies: 0, users: [] }),
    abort: () => void kernel.push("abort"),
    unmount: async (_mountpoint, flags) => {
      kernel.push(`unmount ${flags}`);
      if (setup.busy && flags === 8) return -EBUSY;
      if (canResend) writeFileSync(join(directory, "unmounted"), "");
      return 0;
    },
  };
  const setup: Setup = {
    config: {
      volume: {
        volume,
        mountpoint,
        replicas: ["a", "b"].map((name) => ({ name, url: `/${name}`, slow: false, run: "auto" as const })),
        witness: null,
        minInSyncReplicas: 1,
        readPolicy: "RoundRobin",
        fullPolicy: "FailWrites",
        writeCache: "None",
        capacityBytes: null,
        source: null,
        forceDegraded: false,
        deadlineMs: 2000,
        resyncBytesPerSecond: null,
        resyncMode: "Automatic",
        options: [],
        stateDirectory: directory,
        metricsAddress: null,
        logLevel: "info",
      },
      source: `chiron:${volume}`,
      onEvent: null,
      logFile: null,
    },
    environment: {
      logger: { ...silentLogger, info: record, warn: record, error: record },
      mounts,
      program: { program: fakeVolume },
      version: "0",
      canResend,
      options: { spare: false, ...options },
    },
    directory,
    kernel,
    log,
    busy: false,
    running: [],
  };
  return setup;
}

async function begin(setup: Setup): Promise<RunningMount> {
  const mount = await runHolder(setup.config, setup.environment);
  setup.running.push(mount);
  return mount;
}

const quiet = { progress: () => {}, signal: new AbortController().signal };

interface FakeStatus {
  readonly pid: number;
  readonly resumed: boolean;
  readonly avoid: readonly string[];
}

async function statusOf({ holder }: RunningMount): Promise<FakeStatus> {
  return (await holder.call("status", {}, quiet)) as FakeStatus;
}

/** Tells the volume process to misbehave; the answer never comes. */
function provoke({ holder }: RunningMount, what: "die" | "die-in-call" | "hang" | "stop"): Promise<unknown> {
  return holder.call("resync", { replica: what }, quiet).catch((error: unknown) => error);
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !condition(); ) {
    assert.ok(Date.now() < end, "waited for too long");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function end(mount: RunningMount): Promise<void> {
  await mount.holder.unmount({ lazy: false, force: false });
  await mount.done;
}

test("a holder mounts once its volume process is ready, and leaves nothing when it is unmounted", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  assert.deepEqual(setup.kernel, ["mount chiron:web"]);
  assert.deepEqual(readRecord(setup.directory)?.state, "mounted");
  const status = await statusOf(mount);
  assert.deepEqual([status.resumed, status.avoid], [false, []]);
  await end(mount);
  assert.equal(existsSync(setup.directory), false);
  assert.equal(readProcessState(status.pid), null);
});

test("a volume process that refuses is reported with its reason, and nothing is left", async (context) => {
  const setup = setUp(context, "fails");
  await assert.rejects(runHolder(setup.config, setup.environment), (error: FailureError) => {
    return error instanceof FailureError && error.failure.code === "quorum";
  });
  assert.deepEqual([setup.kernel, existsSync(setup.directory)], [[], false]);
  const dying = setUp(context, "dies-at-start");
  await assert.rejects(runHolder(dying.config, dying.environment), /ended at its start \(code 7\)/);
});

test("two holders of one mount point do not get in each other's way", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  await assert.rejects(runHolder(setup.config, setup.environment), /already mounted/);
  assert.equal((await statusOf(mount)).resumed, false);
  await end(mount);
});

test("a dead volume process is started again, resumed, and calls wait for it", async (context) => {
  for (const spare of [false, true]) {
    const setup = setUp(context, "web", { spare });
    const mount = await begin(setup);
    const before = await statusOf(mount);
    if (spare) await new Promise((resolve) => setTimeout(resolve, 1500)); // until there is one
    const answer = provoke(mount, "die");
    const after = await statusOf(mount);
    assert.ok((await answer) instanceof FailureError);
    assert.notEqual(after.pid, before.pid);
    assert.deepEqual([after.resumed, after.avoid], [true, []]);
    assert.equal(mount.holder.restarts, 1);
    assert.deepEqual(setup.kernel, ["mount chiron:web"]);
    await end(mount);
  }
});

test("a volume process that hangs in a replica's call is replaced, and that replica avoided", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  const before = await statusOf(mount);
  void provoke(mount, "hang");
  await until(() => mount.holder.restarts === 1);
  const after = await statusOf(mount);
  assert.notEqual(after.pid, before.pid);
  assert.deepEqual([after.resumed, after.avoid], [true, ["b"]]);
  await end(mount);
});

test("the replica in whose call a volume process was killed is not avoided: the call has ended with it", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  await statusOf(mount);
  void provoke(mount, "die-in-call");
  await until(() => mount.holder.restarts === 1);
  assert.deepEqual((await statusOf(mount)).avoid, []);
  await end(mount);
});

test("a stopped volume process is replaced", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  const before = await statusOf(mount);
  void provoke(mount, "stop");
  await until(() => mount.holder.restarts === 1);
  assert.notEqual((await statusOf(mount)).pid, before.pid);
  await end(mount);
});

test("five deaths in a minute are reported and backed off; requests wait meanwhile", async (context) => {
  const setup = setUp(context, "dies-when-resumed", { callTimeoutMs: 50 });
  const mount = await begin(setup);
  await provoke(mount, "die");
  await until(() => setup.log.some((line) => line["event"] === "volume-process-failing"));
  assert.equal(mount.holder.restarts, 5);
  await assert.rejects(statusOf(mount), (error: FailureError) => error.failure.code === "busy");
  assert.deepEqual(setup.kernel, ["mount chiron:dies-when-resumed"]);
  await mount.holder.stop(50);
  await mount.done;
});

test("a mount in use stays as it is, and is taken out of the tree if asked to", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  setup.busy = true;
  await assert.rejects(mount.holder.unmount({ lazy: false, force: false }), /in use.*--lazy/);
  assert.equal((await statusOf(mount)).resumed, false);
  assert.equal(await mount.holder.unmount({ lazy: true, force: false }), "ended");
  await mount.done;
  assert.deepEqual(setup.kernel.slice(1), ["unmount 8", "unmount 10"]);
});

test("where the kernel cannot resend, requests get an error and the volume is mounted afresh", async (context) => {
  const setup = setUp(context, "web", {}, false);
  const mount = await begin(setup);
  assert.match(String(setup.log[0]?.["message"]), /6\.9/);
  await provoke(mount, "die");
  assert.equal((await statusOf(mount)).resumed, false);
  assert.deepEqual(setup.kernel, ["mount chiron:web", "abort", "mount chiron:web"]);
  writeFileSync(join(setup.directory, "unmounted"), "");
  await mount.done;
  assert.deepEqual(setup.kernel.slice(3), ["unmount 10"], "the dead mount below is taken away, too");
});

test("the control socket passes calls and progress on, and unmounts", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  const client = await ControlClient.connect(controlSocket(setup.directory));
  const progress: unknown[] = [];
  await client.call("resync", { onProgress: (value) => progress.push(value) });
  assert.deepEqual(progress, [50]);
  await assert.rejects(client.call("verify"), (error: FailureError) => error.failure.code === "replica");
  await assert.rejects(client.call("quiesce"), (error: FailureError) => error.failure.code === "usage");
  assert.equal(await client.call("unmount"), "ended");
  client.close();
  await mount.done;
  assert.equal(existsSync(setup.directory), false);
});

test("a mount changes hands: the successor serves the same descriptor, the old holder ends", async (context) => {
  const setup = setUp(context, "web");
  const old = await begin(setup);
  const before = await statusOf(old);
  const successor = await takeOver(setup.directory, { ...setup.environment, version: "1" });
  setup.running.push(successor);
  await old.done;
  const after = await statusOf(successor);
  assert.notEqual(after.pid, before.pid);
  assert.equal(after.resumed, true);
  assert.equal(readRecord(setup.directory)?.programVersion, "1");
  const client = await ControlClient.connect(controlSocket(setup.directory));
  assert.equal(((await client.call("ping")) as { version: string }).version, "1");
  client.close();
  await assert.rejects(runHolder(setup.config, setup.environment), /already mounted/);
  await end(successor);
  assert.deepEqual(setup.kernel, ["mount chiron:web", "unmount 8"]);
});

test("a handover that is broken off leaves the old holder at work", async (context) => {
  const setup = setUp(context, "web");
  const mount = await begin(setup);
  const before = await statusOf(mount);
  const client = await ControlClient.connect(controlSocket(setup.directory));
  await client.call("handover", { params: { step: "commit" } });
  client.close();
  const after = await statusOf(mount);
  assert.notEqual(after.pid, before.pid);
  await until(() => existsSync(controlSocket(setup.directory)));
  await end(mount);
});

test("a volume process whose holder is killed starts another holder, which goes on", async (context) => {
  const setup = setUp(context, "web");
  const program = fileURLToPath(new URL("./testing/fake-holder.ts", import.meta.url));
  const holder = spawn(process.execPath, [program], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  holder.send({ config: setup.config });
  await new Promise((resolve) => holder.once("message", resolve));
  const ask = async (): Promise<FakeStatus | null> => {
    try {
      const client = await ControlClient.connect(controlSocket(setup.directory));
      const status = (await client.call("status")) as FakeStatus;
      client.close();
      return status;
    } catch {
      return null; // nobody listens for a moment
    }
  };
  const before = await ask();
  holder.kill("SIGKILL");
  let after = await ask();
  for (const end = Date.now() + 30_000; after === null && Date.now() < end; ) after = await ask();
  assert.notEqual(after?.pid, before?.pid);
  assert.equal(after?.resumed, true);
  writeFileSync(join(setup.directory, "unmounted"), "");
  await until(() => !existsSync(setup.directory));
});
