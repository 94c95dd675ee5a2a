/** What local replicas have to bear: swapped links, mounts below the root, hangs, descriptors that must not get lost. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { ENOENT, ENOTCONN, ENOTDIR, ETIMEDOUT, EXDEV } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { withDeadline } from "./deadline.ts";
import { LocalReplica } from "./local.ts";
import { OffloadedReplica } from "./offload.ts";
import { type Replica, ReplicaError, type TreeObject } from "./replica.ts";
import { scratchFileSystem } from "./testing/scratch-file-system.ts";

const memory = scratchFileSystem("tmpfs");
const disk = scratchFileSystem("ext4");
const root = { uid: 0, gid: 0 };
const top: TreeObject = { parent: null, name: "" };
const signal = AbortSignal.timeout(600_000);

function below(parent: TreeObject, name: string): TreeObject {
  return { parent, name };
}

async function connected<R extends Replica>(replica: R): Promise<R> {
  await replica.connect({ signal });
  after(() => replica.disconnect());
  return replica;
}

test("a directory that is swapped for a symbolic link all the time never leads out of the root", async () => {
  const base = memory?.directory() as string;
  const tree = join(base, "tree");
  const outside = join(base, "outside");
  for (const path of [tree, outside, join(tree, "d"), join(tree, "d/sub")]) mkdirSync(path);
  writeFileSync(join(outside, "f"), "untouched");
  const before = statSync(outside, { bigint: true });
  const swapper = spawn("sh", [
    "-c",
    'ln -s ../outside "$0/l"; while :; do mv --exchange "$0/d" "$0/l" 2>/dev/null || { mv "$0/d" "$0/x"; mv "$0/l" "$0/d"; mv "$0/d" "$0/l"; mv "$0/x" "$0/d"; }; done',
    tree,
  ]);
  after(() => swapper.kill("SIGKILL"));
  const replica = await connected(new LocalReplica({ name: "a", path: tree }));
  const seen = new Set<number>();
  for (let i = 0; i < 5000; i++) {
    const d = below(top, "d");
    const name = `made-${i}`;
    seen.add(Number(await replica.mkdir(d, name, 0o700, root, null)));
    await replica.setattr(below(d, "f"), -1, { mode: 0o777, size: 0 }, null);
    await replica.unlink(d, "f");
    await replica.rename(top, "nothing", d, "f", 0);
    replica.forget(d);
    if (i % 100 === 0) await new Promise(setImmediate);
  }
  swapper.kill("SIGKILL");
  for (const result of seen) assert.ok([0, -ENOTDIR, -ENOENT].includes(result), `answered ${result}`);
  assert.deepEqual(readdirSync(outside), ["f"]);
  assert.equal(readFileSync(join(outside, "f"), "utf8"), "untouched");
  assert.equal(statSync(outside, { bigint: true }).mtimeNs, before.mtimeNs);
});

test("nothing crosses a mount point below the root, of a directory or of a file", async (t) => {
  const tree = memory?.directory() as string;
  const mountpoint = join(tree, "mnt");
  mkdirSync(mountpoint);
  writeFileSync(join(tree, "file"), "below");
  writeFileSync(join(tree, "other"), "on top");
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "chiron-test", mountpoint], { stdio: "pipe" });
  } catch {
    return t.skip("can't mount here");
  }
  after(() => execFileSync("umount", [mountpoint]));
  execFileSync("mount", ["--bind", join(tree, "other"), join(tree, "file")]);
  after(() => execFileSync("umount", [join(tree, "file")]));
  writeFileSync(join(mountpoint, "inside"), "foreign");
  const mode = statSync(mountpoint).mode;
  for (const replica of [
    await connected(new LocalReplica({ name: "a", path: tree })),
    await connected(new OffloadedReplica({ name: "b", path: tree })),
  ]) {
    const mnt = below(top, "mnt");
    const attr = new FileAttr();
    assert.equal(await replica.lookup(top, "mnt", attr), -EXDEV);
    assert.equal(await replica.getattr(below(top, "file"), attr), -EXDEV);
    assert.equal(await replica.lookup(mnt, "inside", attr), -EXDEV);
    assert.equal(await replica.create(mnt, "new", 0o600, root, null), -EXDEV);
    assert.equal(await replica.open(below(mnt, "inside"), "read"), -EXDEV);
    assert.equal(await replica.open(below(top, "file"), "read-write"), -EXDEV);
    assert.equal(await replica.setattr(mnt, -1, { mode: 0o700 }, null), -EXDEV);
    assert.equal(await replica.setattr(below(top, "file"), -1, { size: 0 }, null), -EXDEV);
    assert.equal(await replica.readdir(mnt, { names: [], types: [], inos: [] }), -EXDEV);
    assert.ok(Number(await replica.unlink(top, "file")) < 0);
    assert.ok(Number(await replica.rmdir(top, "mnt")) < 0);
    assert.ok(Number(await replica.rename(top, "mnt", top, "moved", 0)) < 0);
  }
  assert.deepEqual(readdirSync(mountpoint), ["inside"]);
  assert.equal(statSync(mountpoint).mode, mode);
  assert.equal(readFileSync(join(tree, "other"), "utf8"), "on top");
});

test("thousands of directories and a reconnection leave no descriptor open, and old handles reach nothing", async () => {
  const open = () => readdirSync("/proc/self/fd").length;
  const path = memory?.directory() as string;
  const replica = new LocalReplica({ name: "a", path });
  await replica.connect({ signal });
  const handles: number[] = [];
  for (let i = 0; i < 1000; i++) {
    const directory = below(top, `d${i}`);
    assert.equal(await replica.mkdir(top, directory.name, 0o700, root, null), 0);
    handles.push(Number(await replica.create(directory, "f", 0o600, root, null)));
  }
  for (const handle of handles.slice(500)) assert.equal(await replica.close(handle), 0);
  await replica.disconnect();
  const before = open();
  await replica.connect({ signal });
  const fresh = Number(await replica.open(below(below(top, "d1"), "f"), "read-write"));
  assert.ok(!handles.includes(fresh));
  for (const handle of handles) {
    assert.equal(await replica.write(handle, Buffer.from("lost"), 0), -ENOTCONN);
    assert.equal(await replica.close(handle), -ENOTCONN);
  }
  assert.equal(await replica.write(fresh, Buffer.from("kept"), 0), 4);
  await replica.disconnect();
  assert.equal(open(), before);
  assert.equal(readFileSync(join(path, "d1/f"), "utf8"), "kept");
});

test("cold data come whole from the disk, and small reads beside them", async (t) => {
  if (disk === null) return t.skip("no ext4 here");
  const tree = disk.directory();
  const data = Buffer.alloc(4 << 20);
  for (let i = 0; i < data.length; i += 4) data.writeUInt32LE(i, i);
  writeFileSync(join(tree, "f"), data);
  execFileSync("sync", ["-f", tree]);
  for (const ioUring of [true, false]) {
    const replica = await connected(new LocalReplica({ name: "a", path: tree, ioUring }));
    const handle = Number(await replica.open(below(top, "f"), "read"));
    const evict = () =>
      execFileSync("dd", [`of=${join(tree, "f")}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"], {
        stdio: "pipe",
      });
    evict();
    const into = Buffer.alloc(data.length + 10);
    assert.equal(await replica.read(handle, into, 0), data.length);
    assert.ok(into.subarray(0, data.length).equals(data));
    evict();
    const parts = Array.from({ length: 64 }, (_, i) => ({ at: i * 65_536 + 100, bytes: Buffer.alloc(5000) }));
    const answers = parts.map(({ at, bytes }) => replica.read(handle, bytes, at));
    for (const [i, answer] of answers.entries()) {
      const { at, bytes } = parts[i] as { at: number; bytes: Buffer };
      assert.equal(await answer, Math.min(5000, data.length - at));
      assert.ok(bytes.equals(data.subarray(at, at + 5000)));
    }
    assert.equal(await replica.fsync(handle, false), 0);
    assert.equal(await replica.close(handle), 0);
  }
});

test("a call on a frozen file system ends at its deadline, takes effect later, and holds nobody else up", async (t) => {
  if (disk === null) return t.skip("no ext4 here");
  const tree = disk.directory();
  const inner = new OffloadedReplica({ name: "a", path: tree });
  const replica = withDeadline(await connected(inner), 200);
  const other = await connected(new OffloadedReplica({ name: "b", path: memory?.directory() as string }));
  assert.equal(await replica.mkdir(top, "before", 0o700, root, null), 0);
  execFileSync("fsfreeze", ["-f", disk.path]);
  let frozen = true;
  const thaw = () => {
    if (frozen) execFileSync("fsfreeze", ["-u", disk.path]);
    frozen = false;
  };
  try {
    const late = Promise.all(["x", "y", "z"].map(async (name) => replica.mkdir(top, name, 0o700, root, null)));
    for (let i = 0; i < 50; i++) assert.equal(await other.mkdir(top, `d${i}`, 0o700, root, null), 0);
    assert.equal(await inner.lookup(top, "before", null), 0); // by a thread that is free
    assert.deepEqual(await late, [-ETIMEDOUT, -ETIMEDOUT, -ETIMEDOUT]);
    let ended = false;
    const disconnected = replica.disconnect().then(() => {
      ended = true;
    });
    assert.equal(await replica.lookup(top, "before", null), -ENOTCONN);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(ended, false);
    thaw();
    await disconnected;
  } finally {
    thaw();
  }
  assert.deepEqual(readdirSync(tree).sort(), ["before", "x", "y", "z"]);
});

test("connect() says what is wrong with the directory", async () => {
  const tree = memory?.directory() as string;
  writeFileSync(join(tree, "file"), "");
  for (const Kind of [LocalReplica, OffloadedReplica]) {
    for (const [name, says] of [
      ["absent", /absent does not exist; check/],
      ["file", /file is not a directory/],
    ] as const) {
      await assert.rejects(new Kind({ name: "venus", path: join(tree, name) }).connect({ signal }), (error) => {
        assert.ok(error instanceof ReplicaError);
        assert.match(error.message, says);
        assert.match(error.message, /^Replica "venus": \//);
        return true;
      });
    }
  }
});
