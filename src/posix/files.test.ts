/** Open files, memory, waiting, sockets and processes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EAGAIN, EBADF, EINVAL, ENXIO, EOPNOTSUPP, ESPIPE } from "../util/errno.ts";
import {
  F_GETFD,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FD_CLOEXEC,
  LOCK_EX,
  LOCK_NB,
  O_CLOEXEC,
  O_CREAT,
  O_RDWR,
  POLLIN,
  POLLOUT,
  RWF_NOWAIT,
  SEEK_DATA,
  SEEK_HOLE,
} from "./constants.ts";
import {
  close,
  copyFileRange,
  dup,
  fallocate,
  fcntl,
  fdatasync,
  flock,
  fsync,
  ftruncate,
  lseek,
  open,
  pread,
  preadAddress,
  preadv2,
  pwrite,
  pwriteAddress,
  read,
  setCloseOnExec,
  setNonBlocking,
  syncfs,
  write,
  writev,
} from "./files.ts";
import { openIoUring } from "./io-uring.ts";
import { IoVectors } from "./io-vectors.ts";
import { addressOf, mapShared } from "./memory.ts";
import { PollSet, UvLoop } from "./poll.ts";
import { pidfdOpen, pidfdSendSignal, SIGKILL } from "./processes.ts";
import { peerCredentials, receiveDescriptors, sendDescriptors, socketPair } from "./sockets.ts";

const path = mkdtempSync(join(tmpdir(), "chiron-files-"));
after(() => rmSync(path, { recursive: true }));

function file(name: string): number {
  const fd = open(join(path, name), O_CREAT | O_RDWR | O_CLOEXEC, 0o600);
  assert.ok(fd >= 0);
  after(() => close(fd));
  return fd;
}

const text = (buffer: Buffer, bytes: number) => buffer.toString("latin1", 0, bytes);

test("reading and writing at positions, in order, by vectors and by address", () => {
  const fd = file("rw");
  const into = Buffer.alloc(100);
  assert.equal(write(fd, Buffer.from("hello")), 5);
  assert.equal(pwrite(fd, Buffer.from("J"), 0), 1);
  assert.equal(text(into, pread(fd, into, 0)), "Jello");
  assert.equal(read(fd, into), 0);
  const vectors = new IoVectors(2);
  vectors.set(0, Buffer.from(", wo"));
  vectors.set(1, Buffer.from("rld????"), 3);
  assert.equal(writev(fd, vectors.raw, 2), 7);
  assert.equal(text(into, pread(fd, into, 0)), "Jello, world");
  assert.equal(pwriteAddress(fd, addressOf(Buffer.from("!")), 1, 12), 1);
  assert.equal(preadAddress(fd, addressOf(into), 100, 12), 1);
  assert.equal(into[0], 33);
  assert.equal(pread(999_999, into, 0), -EBADF);
  assert.equal(pread(fd, into, -1), -EINVAL);
});

test("what is in the page cache is read without waiting, or the file system says that it can't tell", () => {
  const fd = file("warm");
  pwrite(fd, Buffer.from("warm"), 0);
  const into = Buffer.alloc(100);
  const vectors = new IoVectors(1);
  vectors.set(0, into);
  const result = preadv2(fd, vectors.raw, 1, 1, RWF_NOWAIT);
  if (result !== -EOPNOTSUPP) assert.equal(text(into, result), "arm");
});

test("holes are made, found and copied", (t) => {
  const fd = file("holes");
  assert.equal(ftruncate(fd, 3 << 20), 0);
  pwrite(fd, Buffer.alloc(65536, 1), 1 << 20);
  assert.equal(lseek(fd, 3 << 20, SEEK_DATA), -ENXIO);
  if (lseek(fd, 0, SEEK_HOLE) !== 0) return t.skip("no holes here");
  assert.equal(lseek(fd, 0, SEEK_DATA), 1 << 20);
  assert.equal(lseek(fd, 1 << 20, SEEK_HOLE), (1 << 20) + 65536);
  assert.equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 65536), 0);
  assert.equal(lseek(fd, 0, SEEK_DATA), -ENXIO);
  pwrite(fd, Buffer.from("copied"), 2 ** 21);
  const copy = file("copy");
  assert.equal(copyFileRange(fd, 2 ** 21, copy, 5_000_000_000, 6), 6);
  const into = Buffer.alloc(6);
  assert.equal(text(into, pread(copy, into, 5_000_000_000)), "copied");
  for (const result of [fsync(fd), fdatasync(fd), syncfs(fd)]) assert.equal(result, 0);
});

test("descriptors have flags, copies and locks", () => {
  const fd = file("flags");
  assert.equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
  assert.equal(setCloseOnExec(fd, false), 0);
  assert.equal(fcntl(fd, F_GETFD), 0);
  const copy = dup(fd);
  assert.equal(fcntl(copy, F_GETFD), FD_CLOEXEC);
  const other = file("flags");
  assert.equal(flock(fd, LOCK_EX | LOCK_NB), 0);
  assert.equal(flock(copy, LOCK_EX | LOCK_NB), 0);
  assert.equal(flock(other, LOCK_EX | LOCK_NB), -EAGAIN);
  assert.equal(close(copy), 0);
  assert.equal(close(copy), -EBADF);
});

test("io_uring reads, flushes and allocates, many calls at a time, and answers errors", async (t) => {
  const ring = openIoUring(8, 8);
  if (typeof ring === "number") return t.skip("no io_uring here");
  const fd = file("ring");
  for (let i = 0; i < 200; i++) pwrite(fd, Buffer.from([i]), i * 4096);
  const reads = Array.from({ length: 200 }, async (_, i) => {
    const into = Buffer.allocUnsafeSlow(128);
    assert.equal(await ring.read(fd, into, 1, i * 4096, 64), 1);
    return into[64];
  });
  assert.deepEqual(
    await Promise.all(reads),
    Array.from({ length: 200 }, (_, i) => i),
  );
  const into = Buffer.allocUnsafeSlow(128);
  assert.equal(await ring.read(fd, into, 128, 199 * 4096), 1);
  assert.equal(await ring.read(fd, into, 128, 2 ** 40), 0);
  assert.equal(await ring.read(999_999, into, 128, 0), -EBADF);
  assert.equal(await ring.fsync(fd, false), 0);
  assert.equal(await ring.fsync(fd, true), 0);
  assert.ok([0, -EOPNOTSUPP].includes(await ring.fallocate(fd, FALLOC_FL_KEEP_SIZE, 5_000_000_000, 4096)));
  const last = ring.fsync(fd, false);
  ring.close(-1);
  assert.equal(await last, 0);
});

test("a mapped file is shared with who reads it", () => {
  const fd = file("shared");
  assert.equal(ftruncate(fd, 4096), 0);
  const memory = mapShared(fd, 4096, "read-write");
  assert.ok(typeof memory !== "number");
  const again = mapShared(fd, 4096, "read");
  assert.ok(typeof again !== "number");
  new Int32Array(memory.buffer)[3] = 77;
  assert.equal(new Int32Array(again.buffer)[3], 77);
  assert.equal(memory.sync(), 0);
  assert.equal(readFileSync(join(path, "shared")).readInt32LE(12), 77);
  memory.unmap();
  again.unmap();
  assert.equal(mapShared(999_999, 4096, "read"), -EBADF);
});

test("poll tells which of several descriptors are ready, and libuv's is one of them", () => {
  const pair = socketPair();
  assert.ok(typeof pair !== "number");
  const [a, b] = pair;
  const set = new PollSet(3);
  set.set(0, a, POLLIN);
  set.set(1, b, POLLIN | POLLOUT);
  assert.equal(set.wait(0), 1);
  assert.deepEqual([set.ready(0), set.ready(1), set.ready(2)], [0, POLLOUT, 0]);
  write(b, Buffer.from("x"));
  assert.equal(set.wait(-1), 2);
  assert.equal(set.ready(0), POLLIN);
  set.set(1, -1, 0);
  assert.equal(set.wait(0), 1);
  assert.ok(new UvLoop().fd >= 0);
  assert.ok(new UvLoop().timeoutMs() >= -1);
  assert.equal(setNonBlocking(b, true), 0);
  assert.equal(read(b, Buffer.alloc(1)), -EAGAIN);
  assert.equal(lseek(a, 0, 0), -ESPIPE);
  close(a);
  close(b);
});

test("descriptors travel over a socket with the bytes they were sent with", () => {
  const pair = socketPair();
  assert.ok(typeof pair !== "number");
  const [a, b] = pair;
  const fds: number[] = [];
  const into = Buffer.alloc(10);
  assert.equal(receiveDescriptors(b, into, fds), -EAGAIN);
  const fd = file("sent");
  pwrite(fd, Buffer.from("sent"), 0);
  assert.equal(sendDescriptors(a, Buffer.from("two"), [fd, a]), 3);
  assert.equal(sendDescriptors(a, Buffer.from("none"), []), 4);
  assert.equal(receiveDescriptors(b, into.subarray(0, 3), fds), 3);
  assert.equal(fds.length, 2);
  assert.equal(text(into, pread(fds[0] as number, into, 0)), "sent");
  assert.equal(fcntl(fds[0] as number, F_GETFD), FD_CLOEXEC);
  assert.equal(receiveDescriptors(b, into, fds), 4);
  assert.equal(fds.length, 2);
  const peer = peerCredentials(b);
  assert.ok(typeof peer !== "number");
  assert.deepEqual([peer.pid, peer.uid], [process.pid, process.getuid?.()]);
  for (const open of [...fds, a]) close(open);
  assert.equal(receiveDescriptors(b, into, fds), 0);
  close(b);
});

test("a pidfd kills the process that it names, and tells when it has ended", async () => {
  const child = spawn("sleep", ["60"], { stdio: "ignore" });
  const pidfd = pidfdOpen(child.pid as number);
  assert.ok(pidfd >= 0);
  const set = new PollSet(1);
  set.set(0, pidfd, POLLIN);
  assert.equal(set.wait(0), 0);
  assert.equal(pidfdSendSignal(pidfd, 0), 0);
  assert.equal(pidfdSendSignal(pidfd, SIGKILL), 0);
  assert.equal(set.wait(60_000), 1);
  await new Promise((resolve) => child.on("exit", resolve));
  assert.equal(pidfdSendSignal(pidfd, 0), -3);
  close(pidfd);
});
