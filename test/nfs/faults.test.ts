/**
 * Servers that stop, die and come back, and connections that break, hang and deliver late, seen by one replica: it
 * answers within the deadline, never twice, and what it said was done is done.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { parseNfsUrl } from "../../src/nfs/url.ts";
import { NfsReplica, type NfsReplicaOptions } from "../../src/replica/nfs-replica.ts";
import { ok, Place, refused, root } from "../../src/replica/testing/subject.ts";
import { EACCES, EEXIST, ENODEV, ENOENT, ENOSPC, EPERM, ESTALE, ETIMEDOUT } from "../../src/util/errno.ts";
import { FileAttr } from "../../src/util/file-attr.ts";
import { available, Ganesha, pause } from "./ganesha.ts";
import { FaultyProxy } from "./proxy.ts";

describe("faults of NFS servers", { skip: available ? false : "needs root, nfs-ganesha and rpcbind" }, () => {
  let server: Ganesha;
  let proxy: FaultyProxy;
  let directory: string;
  let trees = 0;
  let open: NfsReplica[] = [];
  const top = new Place(null, "");

  before(async () => {
    server = await Ganesha.start();
  });
  after(() => server[Symbol.asyncDispose]());
  beforeEach(async () => {
    proxy = await FaultyProxy.start(server.port);
    directory = join(server.directory, "export", `tree-${trees++}`);
    mkdirSync(directory);
  });
  afterEach(async () => {
    server.signal("SIGCONT");
    for (const replica of open) await replica.disconnect();
    open = [];
    await proxy[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  type Version = "3" | "4.1";
  interface How extends Partial<NfsReplicaOptions> {
    readonly timeoutMs?: number;
    readonly port?: number;
  }
  const connect = async (version: Version, how: How = {}) => {
    const { timeoutMs = 10_000, port = proxy.port, ...options } = how;
    const url = server.url(version, `/export/tree-${trees - 1}`, `&timeout=${timeoutMs}ms`);
    const target = { ...parseNfsUrl(url), port };
    const replica = new NfsReplica("mars", target, { ...options });
    open.push(replica);
    await connectAgain(replica);
    return replica;
  };
  const connectAgain = async (replica: NfsReplica) => {
    await replica.connect({ signal: AbortSignal.timeout(60_000) });
    await replica.takeOver(`volume-${trees}`);
  };
  const content = (name: string) => readFileSync(join(directory, name), "latin1");
  const create = (replica: NfsReplica, name: string) => ok(replica.create(top, name, 0o644, root, null));
  const write = (replica: NfsReplica, handle: number, text: string) =>
    ok(replica.write(handle, Buffer.from(text, "latin1"), 0));

  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: a server that stops for a second is waited for`, async () => {
      const replica = await connect(version);
      const handle = await create(replica, "f");
      await server.freeze();
      const calls = [
        replica.write(handle, Buffer.from("written"), 0),
        replica.mkdir(top, "d", 0o755, root, null),
        replica.unlink(top, "absent"),
      ];
      await pause(1_000);
      server.signal("SIGCONT");
      assert.deepEqual(await Promise.all(calls), [7, 0, -ENOENT]);
      assert.equal(content("f"), "written");
    });

    test(`v${version}: a server that stops for good costs each call its deadline, and is used again when it is back`, async () => {
      mkdirSync(join(directory, ".chiron"));
      const replica = await connect(version, { timeoutMs: 500 });
      const handle = await create(replica, "f");
      await server.freeze();
      const began = performance.now();
      const answers = await Promise.all([
        replica.write(handle, Buffer.from("late"), 0),
        replica.getattr(top, new FileAttr()),
        replica.create(top, "g", 0o644, root, null),
        replica.check(),
        replica.sync(),
      ]);
      assert.deepEqual(answers.slice(0, 4), [-ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT]);
      assert.ok(performance.now() - began < 5_000, "within the deadline, and something for a busy machine");
      await replica.disconnect();
      server.signal("SIGCONT");
      await replica.connect({ signal: AbortSignal.timeout(60_000) });
      assert.equal(await replica.check(), 0);
      await ok(replica.close(await create(replica, "h")));
    });

    test(`v${version}: a server that is killed and started again loses nothing that was answered`, async () => {
      const replica = await connect(version);
      const handle = await create(replica, "f");
      const expected: string[] = [];
      for (let round = 0; round < 3; round++) {
        const calls: Promise<number>[] = [];
        for (let i = 0; i < 20; i++) {
          const text = `${round}-${i};`.padEnd(10);
          calls.push(replica.write(handle, Buffer.from(text), expected.length * 10));
          expected.push(text);
        }
        if (round > 0) calls.push(replica.mkdir(top, `d${round}`, 0o755, root, null));
        await server.kill();
        await server.start();
        for (const answer of await Promise.all(calls)) assert.ok(answer >= 0, `answered ${answer}`);
      }
      await ok(replica.fsync(handle, false));
      assert.equal(content("f"), expected.join(""));
      const into = Buffer.alloc(1_000);
      assert.equal(await ok(replica.read(handle, into, 0)), expected.length * 10);
      await ok(replica.close(handle));
      assert.deepEqual(readdirSync(directory).sort(), ["d1", "d2", "f"]);
    });

    test(`v${version}: calls whose answers were lost are not done twice, and not reported as failed`, async () => {
      const replica = await connect(version);
      const file = await create(replica, "file");
      await ok(replica.close(file));
      await ok(replica.mkdir(top, "old-dir", 0o755, root, null));
      await ok(replica.close(await create(replica, "old-file")));
      await ok(replica.close(await create(replica, "old-name")));
      const changes: readonly (readonly [string, () => number | Promise<number>])[] = [
        ["create", () => replica.create(top, "new-file", 0o600, { uid: 7, gid: 8 }, null)],
        ["mkdir", () => replica.mkdir(top, "new-dir", 0o755, root, null)],
        ["symlink", () => replica.symlink(top, "new-link", "target", root, null)],
        ["link", () => replica.link(top.child("file"), top, "second", null)],
        ["unlink", () => replica.unlink(top, "old-file")],
        ["rmdir", () => replica.rmdir(top, "old-dir")],
        ["rename", () => replica.rename(top, "old-name", top, "new-name", 0)],
      ];
      for (const [what, change] of changes) {
        await ok(replica.getattr(top, new FileAttr()));
        proxy.swallowAnswers();
        const answer = change();
        await pause(100); // time for the server to do it; the outcome is the same without
        proxy.cut();
        assert.ok((await answer) >= 0, `${what} answered ${await answer}`);
      }
      const names = ["file", "new-dir", "new-file", "new-link", "new-name", "second"];
      assert.deepEqual(readdirSync(directory).sort(), names);
      await refused(replica.create(top, "new-file", 0o600, root, null), EEXIST);
      await refused(replica.unlink(top, "old-file"), ENOENT);
    });

    test(`v${version}: connections that break all the time only cost time`, async () => {
      const replica = await connect(version);
      let files = 0;
      for (let cuts = 0; cuts < 15; cuts++) {
        let cut = false;
        const cutter = pause(10 + cuts).then(() => {
          proxy.cut();
          cut = true;
        });
        for (; !cut; files++) {
          const handle = await create(replica, `f${files}`);
          await write(replica, handle, `content ${files}`);
          await ok(replica.rename(top, `f${files}`, top, `g${files}`, 0));
          await ok(replica.close(handle));
        }
        await cutter;
      }
      assert.equal(readdirSync(directory).length, files);
      for (let i = 0; i < files; i++) assert.equal(content(`g${i}`), `content ${i}`);
    });
  }

  test("v4.1: a write that was given up can do no harm after the replica was connected again", async () => {
    const replica = await connect("4.1", { timeoutMs: 500 });
    const handle = await create(replica, "f");
    await write(replica, handle, "first");
    proxy.hold();
    const lateCalls = [
      replica.write(handle, Buffer.from("LATE!"), 0),
      replica.unlink(top, "f"),
      replica.mkdir(top, "late-dir", 0o755, root, null),
    ];
    for (const call of lateCalls) assert.equal(await call, -ETIMEDOUT);
    await replica.disconnect();
    assert.ok(proxy.heldBytes > 0);
    proxy.passNew();
    await connectAgain(replica);
    assert.equal(replica.fence, "session");
    assert.deepEqual(replica.lateCalls, []);
    const again = await ok(replica.open(top.child("f"), "read-write"));
    await write(replica, again, "fresh");
    proxy.release();
    await pause(500); // the old calls are refused meanwhile; nothing depends on how long it takes
    assert.equal(content("f"), "fresh");
    assert.deepEqual(readdirSync(directory), ["f"]);
    await write(replica, again, "after");
    assert.equal(content("f"), "after");
  });

  test("v3: a file with unanswered writes is replaced, and the late write meets a stale handle", async () => {
    const replica = await connect("3", { timeoutMs: 500 });
    await ok(replica.mkdir(top, ".chiron", 0o700, root, null));
    const file = top.child("f");
    await ok(replica.close(await create(replica, "f")));
    const handle = await ok(replica.open(file, "read-write"));
    await write(replica, handle, "first");
    await ok(replica.setattr(file, handle, { uid: 5, gid: 6, mode: 0o4750, mtime: { seconds: 1_000, nsec: 5 } }, null));
    proxy.hold();
    assert.equal(await replica.write(handle, Buffer.from("LATE!"), 0), -ETIMEDOUT);
    assert.equal(await replica.unlink(top, "g"), -ETIMEDOUT);
    assert.deepEqual(
      replica.lateCalls.map(({ kind }) => kind),
      ["data", "entry"],
    );
    await replica.disconnect();
    proxy.passNew();
    await replica.connect({ signal: AbortSignal.timeout(60_000) });
    assert.equal(replica.fence, "none");
    assert.deepEqual(
      replica.lateCalls.map(({ kind }) => kind),
      ["entry"],
    );
    const attr = new FileAttr();
    await ok(replica.getattr(file, attr));
    assert.deepEqual([attr.uid, attr.gid, attr.mode & 0o7777, attr.mtime, attr.mtimeNsec], [5, 6, 0o4750, 1_000, 5]);
    proxy.release();
    await pause(500);
    assert.equal(content("f"), "first");
    const again = await ok(replica.open(file, "read-write"));
    await write(replica, again, "fresh");
    assert.equal(content("f"), "fresh");
    assert.deepEqual(readdirSync(directory).sort(), [".chiron", "f"]);
    assert.deepEqual(readdirSync(join(directory, ".chiron")), []);
  });

  test("v4.1: who takes over later shuts out who did before, who is told and does nothing more", async () => {
    let fenced = 0;
    const old = await connect("4.1", { onFenced: () => fenced++ });
    const handle = await create(old, "f");
    await write(old, handle, "old");
    const looking = new NfsReplica("mars", parseNfsUrl(server.url("4.1", `/export/tree-${trees - 1}`)), {});
    open.push(looking);
    await looking.connect({ signal: AbortSignal.timeout(60_000) });
    await ok(looking.getattr(top.child("f"), new FileAttr()));
    await write(old, handle, "yet"); // who only looks ends nobody's session
    const fresh = await connect("4.1");
    for (const answer of [
      old.write(handle, Buffer.from("STALE"), 0),
      old.unlink(top, "f"),
      old.create(top, "g", 0o644, root, null),
      old.getattr(top, new FileAttr()),
    ]) {
      assert.equal(await answer, -ESTALE);
    }
    assert.equal(fenced, 1);
    const again = await ok(fresh.open(top.child("f"), "read-write"));
    await write(fresh, again, "new");
    assert.equal(await old.write(handle, Buffer.from("STALE"), 0), -ESTALE);
    assert.equal(content("f"), "new");
    assert.deepEqual(readdirSync(directory), ["f"]);
  });

  test("v4.1: after a server restart the session is made anew only if the caller may go on", async () => {
    let asked = 0;
    let may = true;
    const replica = await connect("4.1", {
      mayResume: async () => {
        asked++;
        return may;
      },
    });
    const handle = await create(replica, "f");
    await server.kill();
    await server.start();
    await write(replica, handle, "resumed");
    assert.equal(asked, 2, "before the session is made, and after");
    may = false;
    await server.kill();
    await server.start();
    assert.equal(await replica.write(handle, Buffer.from("refused"), 0), -ESTALE);
    assert.equal(content("f"), "resumed");
  });

  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: an export that is gone, or is another file system now, is not taken for the old one`, async () => {
      await using other = await Ganesha.start();
      const replica = new NfsReplica("mars", parseNfsUrl(other.url(version)), {});
      open.push(replica);
      await replica.connect({ signal: AbortSignal.timeout(60_000) });
      assert.equal(await replica.check(), 0);
      await other.kill();
      await other.start({ filesystemId: "777.7" });
      assert.equal(await replica.check(), -ENODEV);
      await other.kill();
      await other.start({ exports: ["another"], exportId: 50 });
      assert.ok((await replica.check()) < 0);
      await replica.disconnect();
      await assert.rejects(replica.connect({ signal: AbortSignal.timeout(60_000) }), /Replica "mars"/);
    });

    test(`v${version}: root squash that is turned on later makes nothing that belongs to somebody else`, async () => {
      await using other = await Ganesha.start();
      chmodSync(join(other.directory, "export"), 0o777);
      const replica = new NfsReplica("mars", parseNfsUrl(other.url(version)), {});
      open.push(replica);
      await replica.connect({ signal: AbortSignal.timeout(60_000) });
      await other.kill();
      await other.start({ squash: "Root_Squash" });
      await refused(replica.create(top, "f", 0o644, root, null), EPERM, EACCES);
      assert.deepEqual(readdirSync(join(other.directory, "export")), []);
      const answer = await replica.mkdir(top, "d", 0o755, { uid: 1_000, gid: 1_001 }, null);
      const made = readdirSync(join(other.directory, "export"));
      if (answer < 0) assert.deepEqual(made, []);
      else assert.equal(statSync(join(other.directory, "export/d")).uid, 1_000);
      await replica.disconnect();
    });

    test(`v${version}: a full disk answers ENOSPC, and goes on when there is room`, async () => {
      const small = mkdtempSync(join(tmpdir(), "chiron-full-"));
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", small]);
      try {
        await using other = await Ganesha.start({ directory: small });
        const replica = new NfsReplica("mars", parseNfsUrl(other.url(version)), {});
        open.push(replica);
        await replica.connect({ signal: AbortSignal.timeout(60_000) });
        const handle = await create(replica, "f");
        const block = Buffer.alloc(1 << 20, 1);
        let last = 0;
        for (let i = 0; i < 4 && last >= 0; i++) last = await replica.write(handle, block, i << 20);
        if (last >= 0) last = await replica.fsync(handle, false);
        assert.equal(last, -ENOSPC);
        await ok(replica.setattr(top.child("f"), -1, { size: 0 }, null));
        await write(replica, handle, "room");
        await ok(replica.fsync(handle, false));
        await replica.disconnect();
      } finally {
        execFileSync("umount", ["-l", small]);
        rmSync(small, { recursive: true, force: true });
      }
    });
  }
});
