import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FileAttr } from "../util/file-attr.ts";
import * as encode from "./encode.ts";
import { DirectoryWriter, OUT_HEADER_BYTES, ReplyBuffer, WORD_REPLY } from "./encode.ts";

function someAttr(): FileAttr {
  const attr = new FileAttr();
  return Object.assign(attr, {
    ino: 2 ** 48 + 5,
    mode: 0o100644,
    nlink: 2,
    uid: 1000,
    gid: 0xffff_fffe,
    rdev: 0x0801,
    size: 2 ** 40 + 1,
    blocks: 9,
    blksize: 4096,
    atime: 1_700_000_000,
    atimeNsec: 1,
    mtime: -1,
    mtimeNsec: 999_999_999,
    ctime: 2 ** 33,
    ctimeNsec: 3,
  });
}

/** What `put` writes behind the header, on a buffer that was dirty. */
function written(bytes: number, put: (buffer: ReplyBuffer) => void): Buffer {
  const buffer = new ReplyBuffer(512);
  buffer.bytes.fill(0xa5);
  put(buffer);
  return Buffer.from(buffer.bytes.subarray(OUT_HEADER_BYTES, OUT_HEADER_BYTES + bytes));
}

const attrBytes = [
  "0500000000000100", // ino
  "0100000000010000", // size
  "0900000000000000", // blocks
  "00f1536500000000", // atime
  "ffffffffffffffff", // mtime, before 1970
  "0000000002000000", // ctime, after 2106
  "01000000ffc99a3b03000000", // their nanoseconds
  "a4810000", // mode
  "02000000", // nlink
  "e8030000", // uid
  "feffffff", // gid
  "01080000", // rdev
  "00100000", // blksize
  "00000000", // flags
].join("");

describe("replies", () => {
  test("have a header of length, error and number", () => {
    const buffer = new ReplyBuffer(8);
    buffer.header(24, -2, 6, 0x8000_0005);
    assert.equal(buffer.bytes.toString("hex", 0, 16), `18000000${"feffffff"}${"06000000"}${"05000080"}`);
  });

  test("ENTRY: node, generation, validity of name and attributes, attributes", () => {
    const entry = { nodeId: 2 ** 33 + 7, attr: someAttr(), entryValidSeconds: 3600, attrValidSeconds: 0.5 };
    const bytes = written(encode.ENTRY_BYTES, ({ words }) => encode.putEntry(words, WORD_REPLY, entry));
    const expected = [
      "0700000002000000", // nodeid
      "0000000000000000", // generation
      "100e000000000000", // entry_valid
      "0000000000000000", // attr_valid
      "00000000", // entry_valid_nsec
      "0065cd1d", // attr_valid_nsec
      attrBytes,
    ];
    assert.equal(bytes.toString("hex"), expected.join(""));
  });

  test("ATTR: validity and attributes; for ever is a very long time", () => {
    const out = { attr: someAttr(), attrValidSeconds: Number.POSITIVE_INFINITY };
    const bytes = written(encode.ATTR_BYTES, ({ words }) => encode.putAttr(words, WORD_REPLY, out));
    assert.equal(bytes.toString("hex"), `0000000001000000${"00000000"}${"00000000"}${attrBytes}`);
  });

  test("OPEN: handle and flags", () => {
    const bytes = written(16, ({ words }) => encode.putOpen(words, WORD_REPLY, { handle: 2 ** 32, openFlags: 2 }));
    assert.equal(bytes.toString("hex"), `0000000001000000${"02000000"}${"00000000"}`);
  });

  test("STATFS: counts, sizes, and nothing in what is spare", () => {
    const out = {
      blocks: 1,
      freeBlocks: 2,
      availableBlocks: 3,
      files: 4,
      freeFiles: 5,
      blockSizeBytes: 4096,
      maxNameBytes: 255,
    };
    const bytes = written(80, ({ words }) => encode.putStatfs(words, WORD_REPLY, out));
    const counts = [1, 2, 3, 4, 5].map((n) => `0${n}00000000000000`).join("");
    assert.equal(bytes.toString("hex"), `${counts}00100000ff00000000100000${"00".repeat(28)}`);
  });

  test("STATX: what is known, with the birth time if there is one", () => {
    const out = { attr: someAttr(), attrValidSeconds: 1, btime: { seconds: 7, nsec: 8 } };
    const bytes = written(encode.STATX_BYTES, ({ words }) => encode.putStatx(words, WORD_REPLY, out));
    const stat = bytes.subarray(32);
    assert.equal(bytes.readBigUInt64LE(0), 1n); // attr_valid
    assert.equal(stat.readUInt32LE(0), 0xfff); // mask: all basic fields, and birth time
    assert.equal(stat.readUInt32LE(16), 2); // nlink
    assert.equal(stat.readUInt16LE(28), 0o100644); // mode
    assert.equal(stat.readBigUInt64LE(40), BigInt(2 ** 40 + 1)); // size
    assert.equal(stat.readBigInt64LE(64), 1_700_000_000n); // atime
    assert.equal(stat.readBigInt64LE(80), 7n); // btime
    assert.equal(stat.readUInt32LE(88), 8);
    assert.equal(stat.readBigInt64LE(96), BigInt(2 ** 33)); // ctime
    assert.equal(stat.readBigInt64LE(112), -1n); // mtime
    assert.equal(stat.readUInt32LE(128), 8); // major number of 0x801
    assert.equal(stat.readUInt32LE(132), 1); // minor
    const unknown = written(encode.STATX_BYTES, ({ words }) =>
      encode.putStatx(words, WORD_REPLY, { ...out, btime: null }),
    );
    assert.equal(unknown.readUInt32LE(32), 0x7ff);
  });

  test("LOCK: range, type, process", () => {
    const lock = { start: 1n, end: (1n << 63n) - 1n, type: "write", pid: 9 } as const;
    const bytes = written(24, (buffer) => encode.putLock(buffer, WORD_REPLY, lock));
    assert.equal(bytes.toString("hex"), `0100000000000000${"ffffffffffffff7f"}${"01000000"}${"09000000"}`);
  });

  test("payload views are made once for each size", () => {
    const buffer = new ReplyBuffer(4096);
    assert.equal(buffer.payload(100), buffer.payload(100));
    assert.equal(buffer.payload(100).byteOffset, OUT_HEADER_BYTES);
    assert.equal(buffer.payload(0).byteLength, 0);
  });
});

describe("directory listings", () => {
  test("READDIR: node, cookie, length, type, name, padded to 8 bytes", () => {
    const buffer = new ReplyBuffer(512);
    buffer.bytes.fill(0xa5);
    const writer = new DirectoryWriter();
    writer.begin(buffer, 512);
    assert.ok(writer.add("a", 3, 0o040755, 1n));
    assert.ok(writer.add("\xffbcdefgh", 2 ** 40, 0o100000, (1n << 63n) - 1n));
    assert.equal(writer.bytes, 64);
    const first = `0300000000000000${"0100000000000000"}${"01000000"}${"04000000"}${"6100000000000000"}`;
    const second = `0000000000010000${"ffffffffffffff7f"}${"08000000"}${"08000000"}${"ff62636465666768"}`;
    assert.equal(buffer.bytes.toString("hex", 16, 16 + 64), first + second);
  });

  test("READDIRPLUS: an entry in front of each", () => {
    const buffer = new ReplyBuffer(512);
    const writer = new DirectoryWriter();
    writer.begin(buffer, 512);
    const entry = { nodeId: 7, attr: someAttr(), entryValidSeconds: 1, attrValidSeconds: 1 };
    assert.ok(writer.addPlus("name", entry, 0o100000, 5n));
    assert.equal(writer.bytes, 128 + 32);
    assert.equal(buffer.bytes.readBigUInt64LE(16), 7n);
    assert.equal(buffer.bytes.readBigUInt64LE(16 + 128), BigInt(2 ** 48 + 5));
    assert.equal(buffer.bytes.toString("latin1", 16 + 128 + 24, 16 + 128 + 28), "name");
  });

  test("an entry that does not fit is not taken, and nothing of it is left", () => {
    const buffer = new ReplyBuffer(512);
    const writer = new DirectoryWriter();
    const entry = { nodeId: 7, attr: someAttr(), entryValidSeconds: 1, attrValidSeconds: 1 };
    writer.begin(buffer, 159);
    assert.equal(writer.addPlus("name", entry, 0, 1n), false);
    assert.equal(writer.bytes, 0);
    writer.begin(buffer, 63);
    assert.ok(writer.add("12345678", 1, 0, 1n));
    assert.equal(writer.add("b", 1, 0, 2n), false);
    assert.equal(writer.bytes, 32);
  });
});
