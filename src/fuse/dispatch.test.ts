import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EINVAL, ENOSYS, ENOTTY, EPROTO } from "../util/errno.ts";
import * as abi from "./abi.ts";
import { Call } from "./call.ts";
import { Frame } from "./decode.ts";
import { dispatch } from "./dispatch.ts";
import { ReplyBuffer } from "./encode.ts";
import type { FileSystem } from "./filesystem.ts";
import { cstr, request, u32, u64 } from "./testing/requests.ts";

/** Which method a request of node 5 calls, with what: objects for answers are left out, data become text. */
function called(opcode: number, body: Buffer, { dontMask = false, without = "" } = {}): unknown[] {
  const calls: unknown[][] = [];
  const fs = new Proxy({} as FileSystem, {
    get: (_, method) => {
      if (method === without) return undefined;
      return (...args: unknown[]) => {
        calls.push([method, ...args.slice(1).filter(isPlain).map(plain)]);
        return 0;
      };
    },
  });
  const frame = new Frame(1 << 14);
  frame.extendedSetxattr = true;
  const bytes = request(opcode, { node: 5n }, body);
  frame.bytes.set(bytes);
  assert.equal(frame.parse(bytes.byteLength), null);
  const call = new Call();
  const answer = dispatch(fs, call, frame, new ReplyBuffer(1 << 13), dontMask);
  assert.equal(call.opcode, opcode);
  return calls[0] ?? [answer];
}

function isPlain(value: unknown): boolean {
  return typeof value !== "object" || value === null || value instanceof Uint8Array || "flock" in value;
}

function plain(value: unknown): unknown {
  return value instanceof Uint8Array ? `${value.byteLength}` : value;
}

const O_RDWR = 2;
const lock = { handle: 7, owner: 8n, start: 1n, end: 9n, type: "read", pid: 3, flock: false };
const lockBody = Buffer.concat([u64(7n, 8n, 1n, 9n), u32(0, 3, 0, 0)]);
// fh, offset; size, flags; lock owner; open flags, padding
const reading = Buffer.concat([u64(7n, 4096n), u32(100, 0), u64(0n), u32(O_RDWR, 0)]);

/** Request, body, and the method with its arguments behind the request. */
const cases: readonly [opcode: number, body: Buffer, expected: unknown[]][] = [
  [abi.FUSE_LOOKUP, cstr("n"), ["lookup", 5, "n"]],
  [abi.FUSE_GETATTR, Buffer.concat([u32(1, 0), u64(7n)]), ["getattr", 5, 7]],
  [abi.FUSE_GETATTR, Buffer.concat([u32(0, 0), u64(7n)]), ["getattr", 5, null]],
  [abi.FUSE_STATX, Buffer.concat([u32(1, 0), u64(7n), u32(0, 0)]), ["statx", 5, 7]],
  [abi.FUSE_SETATTR, Buffer.alloc(88), ["setattr", 5]],
  [abi.FUSE_READLINK, Buffer.alloc(0), ["readlink", 5, "4095"]],
  [abi.FUSE_SYMLINK, cstr("n", "t/u"), ["symlink", 5, "n", "t/u"]],
  [abi.FUSE_MKNOD, Buffer.concat([u32(0o20644, 0x801, 0o22, 0), cstr("n")]), ["mknod", 5, "n", 0o20644, 0x801, 0]],
  [abi.FUSE_MKDIR, Buffer.concat([u32(0o755, 0o22), cstr("n")]), ["mkdir", 5, "n", 0o755, 0]],
  [abi.FUSE_UNLINK, cstr("n"), ["unlink", 5, "n"]],
  [abi.FUSE_RMDIR, cstr("n"), ["rmdir", 5, "n"]],
  [abi.FUSE_RENAME, Buffer.concat([u64(6n), cstr("n", "m")]), ["rename", 5, "n", 6, "m", 0]],
  [abi.FUSE_RENAME2, Buffer.concat([u64(6n), u32(2, 0), cstr("n", "m")]), ["rename", 5, "n", 6, "m", 2]],
  [abi.FUSE_LINK, Buffer.concat([u64(9n), cstr("n")]), ["link", 9, 5, "n"]],
  [abi.FUSE_OPEN, u32(O_RDWR, 1), ["open", 5, O_RDWR, true]],
  [abi.FUSE_CREATE, Buffer.concat([u32(0o102, 0o644, 0o22, 0), cstr("n")]), ["create", 5, "n", 0o102, 0o644, 0, false]],
  [abi.FUSE_TMPFILE, Buffer.concat([u32(O_RDWR, 0o600, 0o22, 0), cstr("/")]), ["tmpfile", 5, O_RDWR, 0o600, 0]],
  [abi.FUSE_READ, reading, ["read", 5, 7, 4096, "100", O_RDWR]],
  [
    abi.FUSE_WRITE,
    Buffer.concat([u64(7n, 4096n), u32(3, 4), u64(0n), u32(O_RDWR, 0), Buffer.from("abc")]),
    ["write", 5, 7, 4096, "3", O_RDWR, false, true],
  ],
  [abi.FUSE_FLUSH, Buffer.concat([u64(7n), u32(0, 0), u64(8n)]), ["flush", 5, 7, 8n]],
  [abi.FUSE_RELEASE, Buffer.concat([u64(7n), u32(O_RDWR, 2), u64(8n)]), ["release", 5, 7, O_RDWR, 8n]],
  [abi.FUSE_RELEASE, Buffer.concat([u64(7n), u32(O_RDWR, 0), u64(8n)]), ["release", 5, 7, O_RDWR, null]],
  [abi.FUSE_FSYNC, Buffer.concat([u64(7n), u32(1, 0)]), ["fsync", 5, 7, true]],
  [abi.FUSE_FSYNCDIR, Buffer.concat([u64(7n), u32(0, 0)]), ["fsyncdir", 5, 7, false]],
  [abi.FUSE_FALLOCATE, Buffer.concat([u64(7n, 1n, 2n), u32(3, 0)]), ["fallocate", 5, 7, 1, 2, 3]],
  [abi.FUSE_LSEEK, Buffer.concat([u64(7n, 10n), u32(4, 0)]), ["lseek", 5, 7, 10, 4]],
  [abi.FUSE_COPY_FILE_RANGE, u64(7n, 1n, 6n, 8n, 2n, 3n, 0n), ["copyFileRange", 5, 7, 1, 6, 8, 2, 3]],
  [abi.FUSE_COPY_FILE_RANGE_64, u64(7n, 1n, 6n, 8n, 2n, 3n, 0n), ["copyFileRange", 5, 7, 1, 6, 8, 2, 3]],
  [abi.FUSE_OPENDIR, u32(0, 0), ["opendir", 5, 0]],
  [abi.FUSE_READDIR, reading, ["readdir", 5, 7, 4096n, false]],
  [abi.FUSE_READDIRPLUS, reading, ["readdir", 5, 7, 4096n, true]],
  [abi.FUSE_RELEASEDIR, Buffer.concat([u64(7n), u32(0, 0), u64(0n)]), ["releasedir", 5, 7]],
  [abi.FUSE_GETXATTR, Buffer.concat([u32(64, 0), cstr("user.a")]), ["getxattr", 5, "user.a", "64"]],
  [abi.FUSE_LISTXATTR, u32(0, 0), ["listxattr", 5, "0"]],
  [
    abi.FUSE_SETXATTR,
    Buffer.concat([u32(1, 2, 1, 0), cstr("user.a"), Buffer.from("v")]),
    ["setxattr", 5, "user.a", "1", 2, true],
  ],
  [abi.FUSE_REMOVEXATTR, cstr("user.a"), ["removexattr", 5, "user.a"]],
  [abi.FUSE_GETLK, lockBody, ["getlk", 5, lock]],
  [abi.FUSE_SETLK, lockBody, ["setlk", 5, lock, false]],
  [abi.FUSE_SETLKW, lockBody, ["setlk", 5, lock, true]],
  [abi.FUSE_STATFS, Buffer.alloc(0), ["statfs", 5]],
  [abi.FUSE_SYNCFS, u64(0n), ["syncfs", 5]],
  [abi.FUSE_ACCESS, u32(4, 0), [-ENOSYS]],
  [abi.FUSE_BMAP, Buffer.alloc(16), [-ENOSYS]],
  [abi.FUSE_IOCTL, Buffer.alloc(32), [-ENOTTY]],
];

describe("a request calls its method with its fields", () => {
  for (const [opcode, body, expected] of cases) {
    test(`${abi.opcodeName(opcode)}: ${expected.join(", ").replace("[object Object]", "lock")}`, () => {
      assert.deepEqual(called(opcode, body), expected);
    });
  }

  test("and the umask, where the kernel leaves that to us", () => {
    const mkdir = Buffer.concat([u32(0o755, 0o22), cstr("n")]);
    assert.deepEqual(called(abi.FUSE_MKDIR, mkdir, { dontMask: true }), ["mkdir", 5, "n", 0o755, 0o22]);
  });

  test("and is answered ENOSYS where there is no such method", () => {
    assert.deepEqual(called(abi.FUSE_STATX, Buffer.alloc(24), { without: "statx" }), [-ENOSYS]);
    assert.deepEqual(called(abi.FUSE_SETLK, lockBody, { without: "setlk" }), [-ENOSYS]);
    assert.deepEqual(called(abi.FUSE_GETLK, lockBody, { without: "getlk" }), [-ENOSYS]);
  });

  test("and is refused where it wants more than fits, or a lock of no kind", () => {
    const huge = Buffer.from(reading);
    huge.writeUInt32LE(1 << 20, 16);
    assert.deepEqual(called(abi.FUSE_READ, huge), [-EPROTO]);
    const noLock = Buffer.from(lockBody);
    noLock.writeUInt32LE(9, 32);
    assert.deepEqual(called(abi.FUSE_SETLK, noLock), [-EINVAL]);
  });
});
