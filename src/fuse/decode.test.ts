import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import * as abi from "./abi.ts";
import { Call, decodeLock } from "./call.ts";
import { Frame, number64, offset64, signed64, WORD_BODY } from "./decode.ts";
import { cstr, request, u32, u64 } from "./testing/requests.ts";

const { FUSE_SETXATTR } = abi;

function frameOf(bytes: Uint8Array, extendedSetxattr = true): { frame: Frame; problem: string | null } {
  const frame = new Frame(1 << 16);
  frame.bytes.fill(0xa5); // what an earlier request left
  frame.bytes.set(bytes);
  frame.extendedSetxattr = extendedSetxattr;
  return { frame, problem: frame.parse(bytes.byteLength) };
}

/** One well-formed request for each opcode; `open`: it may be longer than its fields. */
const samples: readonly { opcode: number; body: Buffer; open?: true }[] = [
  { opcode: abi.FUSE_LOOKUP, body: cstr("name") },
  { opcode: abi.FUSE_FORGET, body: u64(3n) },
  { opcode: abi.FUSE_GETATTR, body: Buffer.concat([u32(abi.FUSE_GETATTR_FH, 0), u64(7n)]) },
  { opcode: abi.FUSE_SETATTR, body: Buffer.alloc(88) },
  { opcode: abi.FUSE_READLINK, body: Buffer.alloc(0) },
  { opcode: abi.FUSE_SYMLINK, body: cstr("name", "../target") },
  { opcode: abi.FUSE_MKNOD, body: Buffer.concat([u32(0o100644, 0, 0o22, 0), cstr("name")]) },
  { opcode: abi.FUSE_MKDIR, body: Buffer.concat([u32(0o755, 0o22), cstr("name")]) },
  { opcode: abi.FUSE_UNLINK, body: cstr("name") },
  { opcode: abi.FUSE_RMDIR, body: cstr("name") },
  { opcode: abi.FUSE_RENAME, body: Buffer.concat([u64(1n), cstr("name", "new name")]) },
  { opcode: abi.FUSE_RENAME2, body: Buffer.concat([u64(1n), u32(1, 0), cstr("name", "new name")]) },
  { opcode: abi.FUSE_LINK, body: Buffer.concat([u64(9n), cstr("name")]) },
  { opcode: abi.FUSE_OPEN, body: u32(0o2, 0) },
  { opcode: abi.FUSE_OPENDIR, body: u32(0, 0) },
  { opcode: abi.FUSE_READ, body: Buffer.alloc(40) },
  { opcode: abi.FUSE_READDIR, body: Buffer.alloc(40) },
  { opcode: abi.FUSE_READDIRPLUS, body: Buffer.alloc(40) },
  { opcode: abi.FUSE_WRITE, body: writeBody(Buffer.from("data")) },
  { opcode: abi.FUSE_STATFS, body: Buffer.alloc(0) },
  { opcode: abi.FUSE_RELEASE, body: Buffer.alloc(24) },
  { opcode: abi.FUSE_RELEASEDIR, body: Buffer.alloc(24) },
  { opcode: abi.FUSE_FSYNC, body: Buffer.alloc(16) },
  { opcode: abi.FUSE_FSYNCDIR, body: Buffer.alloc(16) },
  { opcode: abi.FUSE_SETXATTR, body: Buffer.concat([u32(5, 0, 0, 0), cstr("user.a"), Buffer.from("value")]) },
  { opcode: abi.FUSE_GETXATTR, body: Buffer.concat([u32(64, 0), cstr("user.a")]) },
  { opcode: abi.FUSE_LISTXATTR, body: u32(64, 0) },
  { opcode: abi.FUSE_REMOVEXATTR, body: cstr("user.a") },
  { opcode: abi.FUSE_FLUSH, body: Buffer.alloc(24) },
  { opcode: abi.FUSE_INIT, body: u32(7, 31, 131072, 0), open: true },
  { opcode: abi.FUSE_GETLK, body: Buffer.alloc(48) },
  { opcode: abi.FUSE_SETLK, body: Buffer.alloc(48) },
  { opcode: abi.FUSE_SETLKW, body: Buffer.alloc(48) },
  { opcode: abi.FUSE_ACCESS, body: Buffer.alloc(8) },
  { opcode: abi.FUSE_CREATE, body: Buffer.concat([u32(0o102, 0o644, 0o22, 0), cstr("name")]) },
  { opcode: abi.FUSE_TMPFILE, body: Buffer.concat([u32(0o2, 0o644, 0o22, 0), cstr("/")]), open: true },
  { opcode: abi.FUSE_INTERRUPT, body: u64(4n) },
  { opcode: abi.FUSE_BMAP, body: Buffer.alloc(16) },
  { opcode: abi.FUSE_DESTROY, body: Buffer.alloc(0) },
  { opcode: abi.FUSE_IOCTL, body: Buffer.alloc(32), open: true },
  { opcode: abi.FUSE_POLL, body: Buffer.alloc(24) },
  { opcode: abi.FUSE_BATCH_FORGET, body: Buffer.concat([u32(2, 0), u64(2n, 1n, 3n, 5n)]) },
  { opcode: abi.FUSE_FALLOCATE, body: Buffer.alloc(32) },
  { opcode: abi.FUSE_LSEEK, body: Buffer.alloc(24) },
  { opcode: abi.FUSE_COPY_FILE_RANGE, body: Buffer.alloc(56) },
  { opcode: abi.FUSE_COPY_FILE_RANGE_64, body: Buffer.alloc(56) },
  { opcode: abi.FUSE_SYNCFS, body: Buffer.alloc(8) },
  { opcode: abi.FUSE_STATX, body: Buffer.alloc(24) },
];

/** `struct fuse_write_in` and data. */
function writeBody(data: Buffer): Buffer {
  // fh, offset; size, write_flags; lock_owner; flags, padding
  return Buffer.concat([u64(7n, 4096n), u32(data.byteLength, 0), u64(0n), u32(0o1, 0), data]);
}

describe("the decoder of requests", () => {
  for (const { opcode, body, open } of samples) {
    const whole = request(opcode, {}, body);

    test(`takes a whole ${abi.opcodeName(opcode)} and refuses each that is cut short`, () => {
      assert.equal(frameOf(whole).problem, null);
      for (let length = 0; length < whole.byteLength; length++) {
        const cut = Buffer.from(whole.subarray(0, length));
        assert.notEqual(frameOf(cut).problem, null, `length as sent, ${length} bytes`);
        if (length < 4 || (opcode === abi.FUSE_TMPFILE && length >= 56)) continue; // its name is not looked at
        cut.writeUInt32LE(length, 0);
        assert.notEqual(frameOf(cut).problem, null, `length set right, ${length} bytes`);
      }
    });

    if (!open) {
      test(`refuses a ${abi.opcodeName(opcode)} with more behind it`, () => {
        const longer = Buffer.concat([whole, Buffer.from([1, 0])]);
        assert.notEqual(frameOf(longer).problem, null);
        longer.writeUInt32LE(longer.byteLength, 0);
        assert.notEqual(frameOf(longer).problem, null);
      });
    }
  }

  test("takes the fields of a SETATTR from their places", () => {
    const body = Buffer.concat([
      u32(0xfff, 0), // valid: all; padding
      u64(7n, 123_456_789_012n, 0n), // fh, size, lock_owner
      u64(1_700_000_000n, 2n ** 64n - 5n, 3n), // atime; mtime = -5; ctime
      u32(111, 222, 333), // their nanoseconds
      u32(0o4755, 0, 1000, 2000, 0), // mode, unused, uid, gid, unused
    ]);
    body.writeUInt32LE(0xfff & ~(abi.FATTR_ATIME_NOW | abi.FATTR_MTIME_NOW), 0);
    const change = new Call().change.decode(frameOf(request(abi.FUSE_SETATTR, {}, body)).frame.words);
    assert.deepEqual(
      { ...change },
      {
        handle: 7,
        mode: 0o4755,
        uid: 1000,
        gid: 2000,
        size: 123_456_789_012,
        atime: change.atime,
        mtime: change.mtime,
        ctime: change.ctime,
        killSuidgid: true,
      },
    );
    assert.deepEqual({ ...(change.atime as object) }, { seconds: 1_700_000_000, nsec: 111 });
    assert.deepEqual({ ...(change.mtime as object) }, { seconds: -5, nsec: 222 });
    assert.deepEqual({ ...change.ctime }, { seconds: 3, nsec: 333 });
    body.writeUInt32LE(0xfff, 0);
    const now = new Call().change.decode(frameOf(request(abi.FUSE_SETATTR, {}, body)).frame.words);
    assert.deepEqual([now.atime, now.mtime], ["now", "now"]);
  });

  test("takes who asks from the header, and the resend bit from the number", () => {
    const unique = (1n << 63n) | (5n << 32n) | 6n;
    const { frame } = frameOf(request(abi.FUSE_STATFS, { unique, uid: 1, gid: 2, pid: 3 }));
    const call = new Call();
    call.begin(frame, 0);
    assert.deepEqual([call.uid, call.gid, call.pid, call.resent, call.unique], [1, 2, 3, true, (5n << 32n) | 6n]);
    assert.deepEqual([call.uniqueLow, call.uniqueHigh], [6, 0x8000_0005]);
  });

  test("takes a lock with its owner and its range in 64 bits", () => {
    const end = (1n << 63n) - 1n;
    const body = Buffer.concat([u64(7n, 2n ** 64n - 1n, 10n, end), u32(1, 99), u32(abi.FUSE_LK_FLOCK, 0)]);
    assert.deepEqual(decodeLock(frameOf(request(abi.FUSE_SETLK, {}, body)).frame), {
      handle: 7,
      owner: 2n ** 64n - 1n,
      start: 10n,
      end,
      type: "write",
      pid: 99,
      flock: true,
    });
    body.writeUInt32LE(3, 32);
    assert.equal(decodeLock(frameOf(request(abi.FUSE_SETLK, {}, body)).frame), null);
  });

  test("keeps every byte of a name", () => {
    const bytes = Array.from({ length: 255 }, (_, i) => i + 1).filter((byte) => byte !== 0x2f);
    const name = Buffer.from(bytes).toString("latin1");
    const { frame, problem } = frameOf(request(abi.FUSE_LOOKUP, {}, cstr(name)));
    assert.equal(problem, null);
    assert.equal(frame.name, name);
  });

  for (const name of ["", ".", "..", "a/b", "/", "a\0b"]) {
    test(`refuses ${JSON.stringify(name)} as a name`, () => {
      assert.notEqual(frameOf(request(abi.FUSE_LOOKUP, {}, cstr(name))).problem, null);
      assert.notEqual(frameOf(request(abi.FUSE_RENAME, {}, u64(1n), cstr("a", name))).problem, null);
      assert.notEqual(frameOf(request(abi.FUSE_RENAME, {}, u64(1n), cstr(name, "a"))).problem, null);
    });
  }

  test("takes two names apart, and any target of a symbolic link", () => {
    const rename = frameOf(request(abi.FUSE_RENAME2, {}, u64(1n), u32(2, 0), cstr("from", "to"))).frame;
    assert.deepEqual([rename.name, rename.secondName], ["from", "to"]);
    const link = frameOf(request(abi.FUSE_SYMLINK, {}, cstr("name", "/a/../b"))).frame;
    assert.deepEqual([link.name, link.secondName], ["name", "/a/../b"]);
    assert.notEqual(frameOf(request(abi.FUSE_SYMLINK, {}, cstr("name", ""))).problem, null);
  });

  test("leaves the data of a WRITE where they are", () => {
    const { frame, problem } = frameOf(request(abi.FUSE_WRITE, {}, writeBody(Buffer.from("data"))));
    assert.equal(problem, null);
    assert.equal(Buffer.from(frame.data).toString(), "data");
    assert.equal(frame.data.buffer, frame.bytes.buffer);
    const view = frame.data;
    frame.bytes.set(request(abi.FUSE_WRITE, {}, writeBody(Buffer.from("more"))));
    assert.equal(frame.parse(84), null);
    assert.equal(frame.data, view);
    assert.equal(Buffer.from(view).toString(), "more");
  });

  test("takes the value of SETXATTR, empty ones and the short form too", () => {
    const value = frameOf(request(FUSE_SETXATTR, {}, u32(3, 1, 0, 0), cstr("user.a"), Buffer.from([1, 0, 2]))).frame;
    assert.equal(value.name, "user.a");
    assert.deepEqual([...value.data], [1, 0, 2]);
    const none = frameOf(request(FUSE_SETXATTR, {}, u32(0, 0, 0, 0), cstr("user.a")));
    assert.equal(none.problem, null);
    assert.equal(none.frame.data.byteLength, 0);
    const short = frameOf(request(FUSE_SETXATTR, {}, u32(2, 0), cstr("user.a"), Buffer.from([1, 2])), false);
    assert.equal(short.problem, null);
    assert.deepEqual([...short.frame.data], [1, 2]);
    assert.notEqual(frameOf(request(FUSE_SETXATTR, {}, u32(2 ** 32 - 8, 0, 0, 0), cstr("user.a"))).problem, null);
  });

  test("leaves extensions out, and refuses those that are longer than the request", () => {
    const groups = Buffer.alloc(16);
    const body = Buffer.concat([u32(0o755, 0), cstr("name")]);
    const { frame, problem } = frameOf(request(abi.FUSE_MKDIR, { extensions: 2 }, body, groups));
    assert.equal(problem, null);
    assert.equal(frame.name, "name");
    assert.notEqual(frameOf(request(abi.FUSE_MKDIR, { extensions: 9 }, body, groups)).problem, null);
  });

  test("passes an unknown request on, to be answered ENOSYS", () => {
    for (const opcode of [0, 63, 64, 4096, 2 ** 32 - 1]) {
      assert.equal(frameOf(request(opcode, {}, Buffer.alloc(5))).problem, null);
    }
  });

  test("never throws, and never reads past what was received, whatever that is", () => {
    const bodies = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.constantFrom(...samples).map(({ body }) => new Uint8Array(body)),
    );
    const header = fc.record({
      opcode: fc.oneof(fc.integer({ min: 0, max: 64 }), fc.nat(2 ** 32 - 1)),
      length: fc.option(fc.nat(300)),
      extensions: fc.oneof(fc.constant(0), fc.nat(40)),
    });
    fc.assert(
      fc.property(
        bodies,
        header,
        fc.array(fc.tuple(fc.nat(240), fc.nat(255)), { maxLength: 4 }),
        (body, head, flips) => {
          const bytes = request(head.opcode, { extensions: head.extensions }, body);
          if (head.length !== null) bytes.writeUInt32LE(head.length, 0);
          for (const [at, value] of flips) if (at < bytes.byteLength) bytes[at] = value;
          const { frame, problem } = frameOf(bytes);
          if (problem !== null) return;
          // 0xa5 is what lies behind the request: no name may hold it that the request does not
          const end = bytes.byteLength;
          assert.ok(frame.data.byteOffset + frame.data.byteLength <= Math.max(end, 0) || frame.data.byteLength === 0);
          assert.ok(frame.name.length + frame.secondName.length <= end);
        },
      ),
      { numRuns: 3000 },
    );
  });
});

test("64-bit numbers come out of two words", () => {
  const words = new Uint32Array(WORD_BODY + 2);
  const set = (value: bigint) => new BigUint64Array(words.buffer, WORD_BODY * 4, 1).set([value]);
  set(2n ** 53n - 1n);
  assert.equal(number64(words, WORD_BODY), Number.MAX_SAFE_INTEGER);
  set(2n ** 63n - 1n);
  assert.equal(offset64(words, WORD_BODY), Number.MAX_SAFE_INTEGER);
  set(BigInt.asUintN(64, -1n));
  assert.equal(signed64(words, WORD_BODY), -1);
});
