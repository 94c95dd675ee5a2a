import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as abi from "./abi.ts";
import { Frame } from "./decode.ts";
import { ReplyBuffer } from "./encode.ts";
import { decodeInit, defaultSessionOptions, mayWritePastCache, negotiate, putInit } from "./negotiate.ts";
import { request, u32 } from "./testing/requests.ts";

const all = (1n << 64n) - 1n;
const offer = { major: 7, minor: 45, maxReadaheadBytes: 131_072, flags: all };

function taken(options: Partial<typeof defaultSessionOptions>, locks = false, flags = all) {
  const result = negotiate({ ...offer, flags }, { ...defaultSessionOptions, ...options }, locks);
  assert.ok(typeof result !== "string");
  return result;
}

function has(flags: bigint, flag: bigint): boolean {
  return (flags & flag) !== 0n;
}

describe("negotiation with the kernel", () => {
  test("reads both words of flags of INIT", () => {
    const frame = new Frame(8192);
    const bytes = request(
      abi.FUSE_INIT,
      {},
      u32(7, 45, 131_072, Number(abi.FUSE_INIT_EXT) | 1, 0x80),
      Buffer.alloc(44),
    );
    frame.bytes.set(bytes);
    assert.equal(frame.parse(bytes.byteLength), null);
    assert.deepEqual(decodeInit(frame.words), {
      major: 7,
      minor: 45,
      maxReadaheadBytes: 131_072,
      flags: abi.FUSE_INIT_EXT | 1n | abi.FUSE_HAS_RESEND,
    });
  });

  test("takes the first word alone from kernels that have no second", () => {
    const frame = new Frame(8192);
    const bytes = request(abi.FUSE_INIT, {}, u32(7, 31, 131_072, 1));
    frame.bytes.fill(0xff);
    frame.bytes.set(bytes);
    assert.equal(frame.parse(bytes.byteLength), null);
    assert.equal(decodeInit(frame.words).flags, 1n);
  });

  test("takes nothing that was not offered", () => {
    assert.equal(taken({ writebackCache: true, posixAcl: true }, true, 0n).flags, 0n);
    assert.equal(taken({}, false, 0n).maxWriteBytes, 32 * 4096);
  });

  test("leaves locks to the kernel unless the file system has them", () => {
    assert.ok(!has(taken({}).flags, abi.FUSE_POSIX_LOCKS | abi.FUSE_FLOCK_LOCKS));
    assert.ok(has(taken({}, true).flags, abi.FUSE_POSIX_LOCKS));
  });

  test("takes the umask with access control lists only", () => {
    assert.ok(!has(taken({}).flags, abi.FUSE_DONT_MASK));
    assert.ok(has(taken({ posixAcl: true }).flags, abi.FUSE_DONT_MASK));
  });

  test("refuses what is too old or of another major version", () => {
    assert.match(String(negotiate({ ...offer, minor: 30 }, defaultSessionOptions, false)), /7\.31/);
    assert.match(String(negotiate({ ...offer, major: 8 }, defaultSessionOptions, false)), /8\.45/);
  });

  test("answers with what was taken", () => {
    const reply = new ReplyBuffer(64);
    reply.bytes.fill(0xa5);
    const agreed = { minor: 40, flags: 0x80_0000_0009n, maxWriteBytes: 1 << 20 };
    putInit(reply, offer, agreed, { ...defaultSessionOptions, maxBackground: 64 });
    const expected = [
      "07000000", // major
      "28000000", // minor
      "00000200", // max_readahead
      "09000000", // flags
      "40003000", // max_background 64, congestion_threshold 48
      "00001000", // max_write
      "01000000", // time_gran
      "00010000", // max_pages 256, map_alignment
      "80000000", // flags2
      "00".repeat(28),
    ];
    assert.equal(reply.bytes.toString("hex", 16, 80), expected.join(""));
  });

  test("lets writers pass the cache where the kernel keeps readers right, and no write-back cache was asked for", () => {
    assert.equal(mayWritePastCache(taken({})), true);
    assert.equal(mayWritePastCache({ ...taken({}), minor: 44 }), false);
    assert.equal(mayWritePastCache(taken({ writebackCache: true })), false);
  });
});
