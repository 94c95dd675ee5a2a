/** Snapshots of a volume that is written all the time: of one moment, the same on all replicas, and complete. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ControlClient } from "../../src/volume/control-client.ts";
import type { CallParams, Method, SnapshotReport } from "../../src/volume/protocol.ts";
import { controlSocket, mountDirectory } from "../../src/volume/registry.ts";
import { Ganesha, available as hasGanesha } from "../nfs/ganesha.ts";
import { cannotMount, checkout, eventually, run, shell } from "./command.ts";
import { type Disk, directoryDisk, LoopDisk } from "./disk.ts";
import { TestVolume } from "./test-volume.ts";

const reason = await cannotMount();
const fileCount = 24;

async function call(volume: TestVolume, method: Method, params: CallParams): Promise<unknown> {
  const socket = controlSocket(mountDirectory(volume.mountpoint, join(volume.base, "run")));
  const client = await ControlClient.connect(socket);
  try {
    return await client.call(method, { params, timeoutMs: 60_000 });
  } finally {
    client.close();
  }
}
const take = async (volume: TestVolume, snapshot: string) =>
  (await call(volume, "snapshot.create", { snapshot })) as SnapshotReport;

const treeOf = (path: string, id: string) => join(path, ".chiron/snapshots", id);

/** Every file as it was in one moment of `snapshot-writer.py`; answers that moment's turn. */
function checkMoment(tree: string): number {
  const heads: number[] = [];
  for (let i = 0; i < fileCount; i += 1) {
    const content = readFileSync(join(tree, `file-${i}`));
    assert.equal(content.length, 1 << 20);
    assert.ok(content.subarray(16, -16).every((byte) => byte === i % 251));
    heads.push(Number(content.subarray(0, 16).toString()));
    const tail = Number(content.subarray(-16).toString("latin1"));
    const last = heads.at(-1) ?? 0;
    if (last > 1) assert.ok(tail === last || tail === last - 1, `file-${i}: ${last} at the start, ${tail} at the end`);
  }
  const [first = 0] = heads;
  for (const [i, head] of heads.entries())
    assert.ok(head <= (heads[i - 1] ?? first) && head >= first - 1, `not one moment: ${heads.join(" ")}`);
  const complete = heads.at(-1) ?? 0;
  const log = readFileSync(join(tree, "log"), "utf8").trim().split("\n").filter(Boolean);
  assert.deepEqual(
    log.map(Number),
    Array.from({ length: log.length }, (_, i) => i + 1),
  );
  assert.ok(log.length === complete || log.length === complete - 1, `log has ${log.length} turns, files ${complete}`);
  const named = existsSync(join(tree, "turn")) ? Number(readFileSync(join(tree, "turn"), "utf8")) : 0;
  assert.ok(named === log.length || named === log.length - 1, `turn ${named}, log ${log.length}`);
  return first;
}

class Writer {
  turn = 0;
  readonly #child;
  readonly #ended: Promise<number | null>;
  #problem = "";
  constructor(directory: string) {
    const program = join(import.meta.dirname, "snapshot-writer.py");
    this.#child = spawn("python3", [program, directory, `${fileCount}`], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.turn = Number(text.trim().split("\n").at(-1));
    });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#problem += text;
    });
    this.#ended = new Promise((resolve) => this.#child.once("exit", resolve));
  }
  goesOn(turns: number): Promise<unknown> {
    const goal = this.turn + turns;
    return eventually("the writer goes on", async () => {
      if (this.#child.exitCode !== null) throw new Error(this.#problem);
      return this.turn >= goal ? true : null;
    });
  }
  kill(): void {
    this.#child.kill("SIGKILL");
  }
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    assert.equal(await this.#ended, 0, this.#problem);
  }
}

/** An export of a server of its own: the replica is the URL, the tree is looked at in the server's directory. */
class ExportDisk implements Disk {
  readonly name: string;
  readonly path: string;
  readonly #server: Ganesha;
  constructor(name: string, server: Ganesha, version: "3" | "4.1") {
    this.name = name;
    this.#server = server;
    this.path = server.url(version);
  }
  static make(version: "3" | "4.1") {
    return async (_base: string, name: string) => new ExportDisk(name, await Ganesha.start(), version);
  }
  get directory(): string {
    return join(this.#server.directory, "export");
  }
  async letGo(): Promise<void> {}
  async dispose(): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}
const directoryOf = (disk: Disk) => (disk instanceof ExportDisk ? disk.directory : disk.path);

const equal = async (...trees: readonly string[]) => {
  const compared = await run("python3", [join(checkout, "test/trees-equal.py"), ...trees]);
  assert.equal(compared.status, 0, compared.out + compared.err);
};

for (const [what, disks, method] of [
  ["two directories", [directoryDisk, directoryDisk], null],
  ["two ext4 file systems", [LoopDisk.make("ext4"), LoopDisk.make("ext4")], "copy"],
  ["two xfs file systems", [LoopDisk.make("xfs"), LoopDisk.make("xfs")], "reflink"],
  ["two NFS 3 exports", [ExportDisk.make("3"), ExportDisk.make("3")], "copy"],
  ["two NFS 4.1 exports", [ExportDisk.make("4.1"), ExportDisk.make("4.1")], "copy"],
] as const) {
  const needsGanesha = what.includes("NFS") && !hasGanesha ? "needs nfs-ganesha and rpcbind" : false;
  describe(`a snapshot on ${what}`, { skip: reason ?? needsGanesha }, () => {
    it("shows one moment of a volume that is written, the same on all replicas, and stays", async () => {
      await using volume = await TestVolume.start({ disks });
      const writer = new Writer(volume.mountpoint);
      await writer.goesOn(3);
      const turns: number[] = [];
      for (const id of ["one", "two", "three"]) {
        const before = writer.turn;
        const report = await take(volume, id);
        assert.deepEqual(
          report.replicas.map(({ state }) => state),
          ["Ready", "Ready"],
        );
        if (method !== null) for (const replica of report.replicas) assert.equal(replica.method, method);
        await writer.goesOn(2);
        const trees = volume.disks.map((disk) => treeOf(directoryOf(disk), id));
        const turn = checkMoment(trees[0] ?? "");
        assert.ok(turn >= before, `turn ${turn} was over before`);
        turns.push(turn);
        await equal(...trees);
      }
      await writer.stop();
      assert.equal(checkMoment(treeOf(directoryOf(volume.disk(0)), "one")), turns[0], "the first one has changed");
      await volume.unmount();
      await equal(...volume.disks.map(directoryOf));
    });
  });
}

describe("a snapshot", { skip: reason ?? false }, () => {
  it("has everything that a tree has, is made once, and goes away when it is removed", async () => {
    await using volume = await TestVolume.start();
    const { mountpoint } = volume;
    await shell(`cd ${mountpoint}; mkdir -p d/e empty; chmod 1777 d; echo x > d/file; ln d/file d/e/other
      ln -s /nowhere link; mkfifo pipe; mknod dev c 1 3; truncate -s 10M sparse; echo end >> sparse; chown 12:34 d/file
      chmod 4711 d/file; setfattr -n user.a -v b d/file; setfattr -n user.d -v e d; chmod 0 empty
      touch -d 2001-01-01 d/e; touch -hd 2002-02-02 link; i=0; while [ $i -lt 300 ]; do echo $i > d/e/n$i; i=$((i+1)); done; touch -d 2001-01-01 d/e`);
    const report = await take(volume, "s1");
    assert.equal(report.files, 306);
    assert.deepEqual(await call(volume, "snapshot.create", { snapshot: "s1" }), report, "again");
    const listed = (await call(volume, "snapshot.list", {})) as SnapshotReport[];
    assert.deepEqual(
      listed.map(({ id }) => id),
      ["s1"],
    );
    for (const disk of volume.disks) await equal(disk.path, treeOf(disk.path, "s1"));
    await shell(`cd ${mountpoint}; rm -rf d link; echo other > sparse`);
    assert.equal(readFileSync(join(treeOf(volume.disk(0).path, "s1"), "d/e/n299"), "utf8"), "299\n");
    assert.deepEqual(readdirSync(join(volume.disk(0).path, ".chiron/snapshots")).sort(), ["s1", "s1.json"]);
    await assert.rejects(call(volume, "snapshot.create", { snapshot: "../x" }), /cannot be the name/);
    await call(volume, "snapshot.remove", { snapshot: "s1" });
    await call(volume, "snapshot.remove", { snapshot: "s1" });
    for (const disk of volume.disks) assert.deepEqual(readdirSync(join(disk.path, ".chiron/snapshots")), []);
  });

  it("that takes too long is given up, and nothing of it stays", async () => {
    await using volume = await TestVolume.start();
    await shell(`cd ${volume.mountpoint}; i=0; while [ $i -lt 3000 ]; do : > n$i; i=$((i+1)); done`);
    await assert.rejects(
      call(volume, "snapshot.create", { snapshot: "s", maxPauseMs: 1 }),
      /given up.*allow a longer pause/,
    );
    await shell(`echo on > ${volume.mountpoint}/on`);
    for (const disk of volume.disks) assert.deepEqual(readdirSync(join(disk.path, ".chiron/snapshots")), []);
  });

  it("whose process is killed is begun anew, and nothing of the first one stays", async () => {
    await using volume = await TestVolume.start({ disks: [LoopDisk.make("ext4"), LoopDisk.make("ext4")] });
    const writer = new Writer(volume.mountpoint);
    await writer.goesOn(2);
    const taking = take(volume, "s").catch((error: Error) => error);
    await eventually("it has begun", async () =>
      existsSync(join(volume.disk(0).path, ".chiron/snapshots/s.part")) ? true : null,
    );
    process.kill((await volume.status()).pid, "SIGKILL");
    await taking;
    await writer.goesOn(2);
    const report = await take(volume, "s");
    assert.equal(report.replicas.filter(({ state }) => state === "Ready").length, 2);
    checkMoment(treeOf(volume.disk(1).path, "s"));
    await writer.stop();
    for (const disk of volume.disks)
      assert.deepEqual(readdirSync(join(disk.path, ".chiron/snapshots")).sort(), ["s", "s.json"]);
    await volume.unmount();
    await volume.assertEqual();
  });

  it("that was interrupted with its mount leaves nothing behind, and its replicas are alike after the next mount", async () => {
    await using volume = await TestVolume.start({ disks: [LoopDisk.make("ext4"), LoopDisk.make("ext4")] });
    const writer = new Writer(volume.mountpoint);
    await writer.goesOn(2);
    const taking = take(volume, "s").catch((error: Error) => error);
    await eventually("it has begun", async () =>
      existsSync(join(volume.disk(0).path, ".chiron/snapshots/s.part")) ? true : null,
    );
    for (const pid of volume.processes()) process.kill(pid, "SIGKILL");
    await taking;
    writer.kill();
    await shell(`umount -l ${volume.mountpoint}`);
    await eventually("nothing uses it", async () => (volume.processes().length === 0 ? true : null));
    await volume.mount();
    await volume.healthy();
    for (const disk of volume.disks) assert.deepEqual(readdirSync(join(disk.path, ".chiron/snapshots")), []);
    const { status, out, err } = await volume.chiron("verify", volume.mountpoint);
    assert.equal(status, 0, out + err);
    await volume.unmount();
    await volume.assertEqual();
  });

  it("is given to a replica that was away, and one that was removed meanwhile is removed there", async () => {
    await using volume = await TestVolume.start();
    writeFileSync(join(volume.base, "data"), "x".repeat(100_000));
    await shell(`cp ${volume.base}/data ${volume.mountpoint}/first`);
    await take(volume, "old");
    assert.equal((await volume.chiron("replica", "disable", volume.mountpoint, "b")).status, 0);
    await shell(`cp ${volume.base}/data ${volume.mountpoint}/second`);
    const report = await take(volume, "new");
    assert.deepEqual(report.replicas[1], { name: "b", state: "Missing", method: null, message: "it was not in sync" });
    await call(volume, "snapshot.remove", { snapshot: "old" });
    assert.equal((await volume.chiron("replica", "enable", volume.mountpoint, "b")).status, 0);
    await volume.healthy();
    const names = (index: number) => readdirSync(join(volume.disk(index).path, ".chiron/snapshots")).sort();
    await eventually("it has what the other one has", async () =>
      names(1).join() === "new,new.json" && names(0).join() === "new,new.json" ? true : null,
    );
    await equal(treeOf(volume.disk(0).path, "new"), treeOf(volume.disk(1).path, "new"));
    assert.deepEqual(readdirSync(treeOf(volume.disk(1).path, "new")).sort(), ["first", "second"]);
  });
});
