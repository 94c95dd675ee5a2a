/** Layouts against an independent program (`stat` of coreutils), and the tables of the other machine byte by byte. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ENOENT } from "../util/errno.ts";
import { FileAttr, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT } from "../util/file-attr.ts";
import { arm64, x64 } from "./architecture.ts";
import { AT_FDCWD, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR } from "./constants.ts";
import { close, ftruncate, open, openat, pwrite } from "./files.ts";
import { mkdirat, mknodat, symlinkat, utimensat } from "./names.ts";
import { decodeStat, fstat, fstatat, lastDevice } from "./stat.ts";
import { fstatfs, type StatFs } from "./statfs.ts";
import { encodeDev, lastStatxDevice, statxBelow, statxFd, statxPath } from "./statx.ts";

const path = mkdtempSync(join(tmpdir(), "chiron-stat-"));
after(() => rmSync(path, { recursive: true }));
const directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
after(() => close(directory));

/** What coreutils say of a file, in the fields of `FileAttr`. */
function independently(name: string): Record<string, number> {
  const format = "%i %f %h %u %g %t %T %s %b %o %.9X %.9Y %.9Z %d";
  const text = execFileSync("stat", ["-c", format, join(path, name)], { encoding: "latin1" }).trim();
  const fields = text.split(" ");
  const number = (i: number) => Number(fields[i]);
  const hex = (i: number) => Number.parseInt(fields[i] as string, 16);
  const time = (i: number) => {
    const [seconds = "", nsec = ""] = (fields[i] as string).split(".");
    return { seconds: Number(seconds), nsec: Number(nsec) };
  };
  const mode = hex(1);
  const special = [S_IFCHR, S_IFBLK].includes(mode & S_IFMT);
  const major = special ? hex(5) : 0;
  const minor = special ? hex(6) : 0;
  return {
    ino: number(0),
    mode,
    nlink: number(2),
    uid: number(3),
    gid: number(4),
    rdev: (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12),
    size: number(7),
    blocks: number(8),
    blksize: number(9),
    atime: time(10).seconds,
    atimeNsec: time(10).nsec,
    mtime: time(11).seconds,
    mtimeNsec: time(11).nsec,
    ctime: time(12).seconds,
    ctimeNsec: time(12).nsec,
  };
}

test("stat and statx tell what coreutils tell, of every kind of file", (t) => {
  const file = openat(directory, "file", O_CREAT | O_RDWR | O_CLOEXEC, 0o4751);
  assert.equal(pwrite(file, Buffer.from("x"), 5_000_000_000), 1);
  assert.equal(close(file), 0);
  assert.equal(mkdirat(directory, "directory", 0o1777), 0);
  assert.equal(symlinkat("some/target", directory, "link"), 0);
  assert.equal(mknodat(directory, "fifo", S_IFIFO | 0o600, 0), 0);
  const names = ["file", "directory", "link", "fifo"];
  if (mknodat(directory, "device", S_IFCHR | 0o600, encodeDev(259, 70_000)) === 0) names.push("device");
  else t.diagnostic("devices can't be made here");
  const times = { seconds: 1_234_567_890, nsec: 123_456_789 };
  assert.equal(utimensat(directory, "file", { seconds: 4_300_000_000, nsec: 1 }, times), 0);
  for (const name of names) {
    const expected = independently(name);
    const attr = new FileAttr();
    assert.equal(fstatat(directory, name, attr), 0);
    assert.deepEqual({ ...attr }, expected, name);
    const other = new FileAttr();
    assert.equal(statxBelow(directory, name, other), 0);
    assert.deepEqual({ ...other }, expected, name);
  }
});

test("times before 1970 and after 2106 keep their sign and their nanoseconds", () => {
  close(openat(directory, "times", O_CREAT | O_RDWR | O_CLOEXEC, 0o600));
  for (const seconds of [-2, -1_000_000_000, 0, 2 ** 31, 2 ** 32 + 7]) {
    const time = { seconds, nsec: 999_999_999 };
    assert.equal(utimensat(directory, "times", time, time), 0);
    const attr = new FileAttr();
    assert.equal(fstatat(directory, "times", attr), 0);
    assert.deepEqual([attr.mtime, attr.mtimeNsec], [seconds, 999_999_999]);
    assert.equal(statxBelow(directory, "times", attr), 0);
    assert.deepEqual([attr.atime, attr.atimeNsec], [seconds, 999_999_999]);
  }
});

test("a descriptor, a path and a name tell the same, and the device is one", () => {
  const fd = openat(directory, "whole", O_CREAT | O_RDWR | O_CLOEXEC, 0o600);
  assert.equal(ftruncate(fd, 2 ** 33 + 5), 0);
  const [a, b, c, d] = [new FileAttr(), new FileAttr(), new FileAttr(), new FileAttr()];
  assert.equal(fstat(fd, a), 0);
  const device = lastDevice();
  assert.equal(statxFd(fd, b), 0);
  const statxDevice = lastStatxDevice();
  assert.equal(statxPath(`${path}/whole`, c), 0);
  assert.equal(lastStatxDevice(), statxDevice);
  assert.equal(fstatat(AT_FDCWD, `${path}/whole`, d), 0);
  assert.equal(lastDevice(), device);
  assert.equal(a.size, 2 ** 33 + 5);
  for (const other of [b, c, d]) assert.deepEqual({ ...other }, { ...a });
  close(fd);
  assert.equal(fstatat(directory, "absent", a), -ENOENT);
  assert.equal(statxBelow(directory, "absent", null), -ENOENT);
});

test("decodeStat() reads the layout of arm64 (asm-generic/stat.h)", () => {
  const words = new Uint32Array(arm64.stat.bytes / 4);
  const put = (byte: number, value: number) => {
    words[byte >> 2] = value;
  };
  put(8, 77); // st_ino
  put(16, 0o100644); // st_mode, 4 bytes
  put(20, 3); // st_nlink, 4 bytes
  put(24, 1000); // st_uid
  put(28, 1001); // st_gid
  put(32, 0x12345); // st_rdev
  put(48, 10); // st_size, low
  put(52, 1); // st_size, high
  put(56, 65536); // st_blksize, 4 bytes
  put(64, 24); // st_blocks
  put(72, -5); // st_atime
  put(76, -1);
  put(80, 6); // st_atime_nsec
  put(88, 7); // st_mtime
  put(96, 8);
  put(104, 9); // st_ctime
  put(112, 10);
  const attr = new FileAttr();
  decodeStat(words, arm64.stat, attr);
  assert.deepEqual(
    { ...attr },
    {
      ...{ ino: 77, mode: 0o100644, nlink: 3, uid: 1000, gid: 1001, rdev: 0x12345, size: 2 ** 32 + 10, blocks: 24 },
      ...{ blksize: 65536, atime: -5, atimeNsec: 6, mtime: 7, mtimeNsec: 8, ctime: 9, ctimeNsec: 10 },
    },
  );
});

test("the tables hold the kernel's numbers", () => {
  // arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h
  assert.deepEqual(
    [x64.call.newfstatat, x64.call.getdents64, x64.call.statx, x64.call.renameat2, x64.call.copy_file_range],
    [262, 217, 332, 316, 326],
  );
  assert.deepEqual(
    [arm64.call.newfstatat, arm64.call.getdents64, arm64.call.statx, arm64.call.renameat2, arm64.call.copy_file_range],
    [79, 61, 291, 276, 285],
  );
  assert.deepEqual([x64.call.preadv2, arm64.call.preadv2, x64.call.syncfs, arm64.call.syncfs], [327, 286, 306, 267]);
  // asm-generic/fcntl.h and arch/arm64/include/uapi/asm/fcntl.h
  assert.deepEqual(
    [x64.O_DIRECTORY, x64.O_NOFOLLOW, x64.O_DIRECT, x64.O_LARGEFILE],
    [0x10000, 0x20000, 0x4000, 0x8000],
  );
  assert.deepEqual(
    [arm64.O_DIRECTORY, arm64.O_NOFOLLOW, arm64.O_DIRECT, arm64.O_LARGEFILE],
    [0x4000, 0x8000, 0x10000, 0x20000],
  );
});

test("statfs tells what coreutils tell", () => {
  const stats: StatFs = {
    ...{ type: 0, blockSizeBytes: 0, blocks: 0, freeBlocks: 0, availableBlocks: 0 },
    ...{ files: 0, freeFiles: 0, maxNameBytes: 0, flags: 0 },
  };
  assert.equal(fstatfs(directory, stats), 0);
  const text = execFileSync("stat", ["-f", "-c", "%t %S %b %c %l", path], { encoding: "latin1" }).trim();
  const [type = "", blockSize, blocks, files, nameBytes] = text.split(" ");
  assert.deepEqual(
    [stats.type, stats.blockSizeBytes, stats.blocks, stats.files, stats.maxNameBytes],
    [Number.parseInt(type, 16), Number(blockSize), Number(blocks), Number(files), Number(nameBytes)],
  );
  assert.ok(stats.freeBlocks > 0 && stats.freeBlocks <= stats.blocks);
});
