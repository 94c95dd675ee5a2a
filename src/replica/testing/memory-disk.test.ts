import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answer, Replica, TreeObject } from "../replica.ts";
import { MemoryReplica } from "./memory.ts";
import { describeDisk, MemoryDisk } from "./memory-disk.ts";
import { type Choose, everyChoice, first, last, seeded } from "./random.ts";
import { bytes, Place, root } from "./subject.ts";

const signal = new AbortController().signal;
const top = new Place(null, "");

async function started(disk = new MemoryDisk()): Promise<{ disk: MemoryDisk; replica: MemoryReplica }> {
  const replica = new MemoryReplica(disk);
  await replica.connect({ signal });
  return { disk, replica };
}

function ok(answer: Answer): number {
  assert.ok(typeof answer === "number" && answer >= 0, `answered ${answer}`);
  return answer;
}

function write(replica: Replica, object: TreeObject, text: string, position = 0, flush = false): void {
  const handle = ok(replica.open(object, "read-write"));
  ok(replica.write(handle, bytes(text), position));
  if (flush) ok(replica.fsync(handle, false));
  ok(replica.close(handle));
}

function create(replica: Replica, name: string): Place {
  ok(replica.close(ok(replica.create(top, name, 0o644, root, null))));
  return top.child(name);
}

/** Names and contents after a crash, for short. */
function left(disk: MemoryDisk, choose: Choose): string {
  const image = disk.crash(choose).image;
  const files: string[] = [];
  for (const [name, ino] of image.get(1)?.entries ?? []) {
    const inode = image.get(ino);
    const content = Buffer.from(inode?.page(0) ?? []).toString("latin1", 0, inode?.size);
    files.push(`${name}=${content.padEnd(inode?.size ?? 0, "\0").replaceAll("\0", ".")}`);
  }
  return files.join(" ");
}

function everyState(disk: MemoryDisk): string[] {
  const states = new Set<string>();
  const { complete } = everyChoice((choose) => states.add(left(disk, choose)), 10_000);
  assert.ok(complete);
  return [...states].sort();
}

test("a crash leaves a prefix of the metadata operations", async () => {
  const { disk, replica } = await started();
  for (const name of ["a", "b", "c"]) ok(replica.mknod(top, name, 0o100644, 0, root, null));
  ok(replica.rename(top, "a", top, "d", 0));
  assert.deepEqual(everyState(disk), ["", "a=", "a= b=", "a= b= c=", "b= c= d="]);
});

test("an append is there with its data or not at all, in no order with other operations", async () => {
  const { disk, replica } = await started();
  const a = create(replica, "a");
  ok(replica.sync());
  write(replica, a, "data");
  create(replica, "b");
  assert.deepEqual(everyState(disk), ["a=", "a= b=", "a=data", "a=data b="]);
});

test("of bytes overwritten in place any subset of pages is there, whatever else is", async () => {
  const { disk, replica } = await started();
  const [a, b] = [create(replica, "a"), create(replica, "b")];
  write(replica, a, "old");
  write(replica, b, "old");
  ok(replica.sync());
  write(replica, a, "new");
  write(replica, b, "new");
  write(replica, a, "NEW");
  assert.deepEqual(
    everyState(disk),
    ["NEW", "new", "old"].flatMap((x) => ["new", "old"].map((y) => `a=${x} b=${y}`)),
  );
});

test("fsync() of a file keeps its data and every metadata operation up to its last", async () => {
  const { disk, replica } = await started();
  create(replica, "a");
  write(replica, create(replica, "b"), "kept", 0, true);
  create(replica, "c");
  assert.deepEqual(everyState(disk), ["a= b=kept", "a= b=kept c="]);
});

test("fsyncdir() keeps the entries of a directory, and not the data of its files", async () => {
  const { disk, replica } = await started();
  write(replica, create(replica, "a"), "lost?");
  ok(replica.fsyncdir(top));
  assert.deepEqual(everyState(disk), ["a=", "a=lost?"]);
});

test("sync() keeps everything", async () => {
  const { disk, replica } = await started();
  write(replica, create(replica, "a"), "kept");
  ok(replica.sync());
  assert.equal(disk.atRisk, 0);
  assert.deepEqual(everyState(disk), ["a=kept"]);
});

test("what is written after a truncate is only there if the truncate is", async () => {
  const { disk, replica } = await started();
  const a = create(replica, "a");
  write(replica, a, "old");
  ok(replica.sync());
  ok(replica.setattr(a, -1, { size: 0 }, null));
  write(replica, a, "newer");
  assert.deepEqual(everyState(disk), ["a=", "a=newer", "a=old"]);
});

test("a file that is not there has no data, and an unlinked one comes back whole", async () => {
  const { disk, replica } = await started();
  const a = create(replica, "a");
  write(replica, a, "x", 0, true);
  const handle = ok(replica.open(a, "read-write"));
  ok(replica.unlink(top, "a"));
  ok(replica.write(handle, bytes("y"), 0));
  assert.deepEqual(everyState(disk), ["", "a=x", "a=y"]);
  ok(replica.close(handle));
});

test("losing nothing gives the running tree, and losing most is what was synced, in random histories", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const { disk, replica } = await started();
    const choose = seeded(seed);
    const directories = [top];
    let synced = describeDisk(disk);
    for (let step = 0; step < 120; step++) {
      const directory = directories[choose(directories.length)] as Place;
      const name = `n${choose(6)}`;
      const to = directories[choose(directories.length)] as Place;
      switch (choose(9)) {
        case 0:
          replica.create(directory, name, 0o644, { uid: choose(3), gid: 0 }, null);
          break;
        case 1:
          if (replica.mkdir(directory, name, 0o755, root, null) === 0) directories.push(directory.child(name));
          break;
        case 2:
          replica.unlink(directory, name);
          break;
        case 3:
          replica.rename(directory, name, to, `n${choose(6)}`, choose(3));
          break;
        case 4:
          replica.link(directory.child(name), to, `n${choose(6)}`, null);
          break;
        case 5:
          replica.setattr(directory.child(name), -1, { size: choose(20_000), mode: choose(0o1000) }, null);
          break;
        case 6:
          replica.setxattr(directory.child(name), "user.x", bytes(`${step}`), 0);
          break;
        default: {
          const handle = replica.open(directory.child(name), "read-write");
          if (handle < 0) break;
          replica.write(handle, Buffer.alloc(1 + choose(9000), step), choose(12_000));
          if (choose(4) === 0) replica.fallocate(handle, 3, choose(9000), 1 + choose(9000));
          if (choose(4) === 0) replica.fsync(handle, false);
          replica.close(handle);
        }
      }
      if (choose(40) === 0) {
        ok(replica.sync());
        synced = describeDisk(disk);
        assert.deepEqual(describeDisk(disk.crash(first)), synced, `seed ${seed}`);
      }
    }
    assert.deepEqual(describeDisk(disk.crash(last)), describeDisk(disk), `seed ${seed}`);
    assert.deepEqual(describeDisk(disk.copy()), describeDisk(disk), `seed ${seed}`);
    for (let i = 0; i < 20; i++) describeDisk(disk.crash(choose));
    const again = describeDisk(disk.crash(seeded(seed)));
    assert.deepEqual(describeDisk(disk.crash(seeded(seed))), again, `seed ${seed}`);
  }
});

test("a full disk answers ENOSPC, and room comes back with what is removed", async () => {
  const { replica } = await started(new MemoryDisk({ capacityBytes: 10 * 4096 }));
  const a = create(replica, "a");
  const handle = ok(replica.open(a, "read-write"));
  assert.equal(replica.write(handle, Buffer.alloc(11 * 4096), 0), -28);
  ok(replica.close(handle));
  ok(replica.unlink(top, "a"));
  write(replica, create(replica, "b"), "x".repeat(10 * 4096));
});
