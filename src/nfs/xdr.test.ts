import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { RecordReader } from "./rpc-record.ts";
import { XdrError, XdrReader, XdrWriter } from "./xdr.ts";

const hex = (writer: XdrWriter) => Buffer.concat(writer.finish()).toString("hex");

describe("XDR", () => {
  test("numbers are big-endian, of 32 and 64 bits, signed where times are", () => {
    assert.equal(hex(new XdrWriter().u32(0x01020304)), "01020304");
    assert.equal(hex(new XdrWriter().u32(0xfffffffe)), "fffffffe");
    assert.equal(hex(new XdrWriter().u64(2 ** 53 - 1)), "001fffffffffffff");
    assert.equal(hex(new XdrWriter().i64(-1)), "ffffffffffffffff");
    assert.equal(hex(new XdrWriter().big64(0x0102030405060708n)), "0102030405060708");
    const reader = new XdrReader(Buffer.from("001fffffffffffffffffffffffffffff0102030405060708", "hex"));
    assert.equal(reader.u64(), 2 ** 53 - 1);
    assert.equal(reader.i64(), -1);
    assert.equal(reader.big64(), 0x0102030405060708n);
  });

  test("strings and opaques carry a length and are padded to four bytes", () => {
    // length 5, "abc\xff\0", three bytes of padding
    assert.equal(hex(new XdrWriter().string("abc\xff\0")), "00000005" + "616263ff00" + "000000");
    assert.equal(hex(new XdrWriter().opaque(Buffer.from([1, 2, 3, 4]))), "00000004" + "01020304");
    assert.equal(hex(new XdrWriter().fixed(Buffer.from([1]))), "01000000");
    const reader = new XdrReader(Buffer.from("00000005616263ff00000000" + "0000000401020304", "hex"));
    assert.equal(reader.string(), "abc\xff\0");
    assert.deepEqual([...reader.opaque()], [1, 2, 3, 4]);
    assert.equal(reader.remaining, 0);
  });

  test("a payload is sent from where it is, with its padding, and what comes behind it stays in order", () => {
    const data = Buffer.from([9, 8, 7]);
    const writer = new XdrWriter(8).u32(1).payload(data).u32(2);
    const segments = writer.finish();
    assert.ok(segments.includes(data));
    assert.equal(Buffer.concat(segments).toString("hex"), "00000001" + "00000003" + "090807" + "00" + "00000002");
    assert.equal(writer.length, 16);
  });

  test("a hole is filled after the buffer was outgrown", () => {
    const writer = new XdrWriter(8).u32(1);
    const hole = writer.hole();
    writer.string("x".repeat(3_000)).u32(5);
    hole.writeUInt32BE(0xabcdef01);
    const bytes = Buffer.concat(writer.finish());
    assert.equal(bytes.subarray(0, 8).toString("hex"), "00000001abcdef01");
    assert.equal(bytes.length, 8 + 4 + 3_000 + 4);
  });

  test("a message that is cut anywhere throws, and nothing is read beyond it", () => {
    const whole = Buffer.concat(new XdrWriter().u32(7).string("hello").u64(1).finish());
    const read = (bytes: Buffer) => {
      const reader = new XdrReader(bytes);
      return [reader.u32(), reader.string(), reader.u64()];
    };
    assert.deepEqual(read(whole), [7, "hello", 1]);
    for (let length = 0; length < whole.length; length++) {
      assert.throws(() => read(whole.subarray(0, length)), XdrError, `${length} bytes`);
    }
    assert.throws(() => new XdrReader(Buffer.from("ffffffff", "hex")).string(), XdrError);
    assert.throws(() => new XdrReader(Buffer.from("0000000500000000000000", "hex")).opaque(4), XdrError);
  });
});

describe("record marking", () => {
  const record = (bytes: Buffer, last = true) => {
    const mark = Buffer.alloc(4);
    mark.writeUInt32BE((bytes.length | (last ? 0x80000000 : 0)) >>> 0);
    return Buffer.concat([mark, bytes]);
  };
  const collect = (chunks: Iterable<Buffer>) => {
    const records: string[] = [];
    const reader = new RecordReader((bytes) => records.push(bytes.toString("latin1")), 1_000);
    for (const chunk of chunks) reader.push(chunk);
    return records;
  };
  const stream = Buffer.concat([
    record(Buffer.from("first")),
    record(Buffer.from("in "), false),
    record(Buffer.alloc(0), false),
    record(Buffer.from("pieces")),
    record(Buffer.from("")),
    record(Buffer.from("ended by nothing"), false),
    record(Buffer.alloc(0)),
  ]);
  const expected = ["first", "in pieces", "", "ended by nothing"];

  test("records are found however the stream is cut", () => {
    assert.deepEqual(collect([stream]), expected);
    for (let size = 1; size < stream.length; size++) {
      const chunks: Buffer[] = [];
      for (let at = 0; at < stream.length; at += size) chunks.push(stream.subarray(at, at + size));
      assert.deepEqual(collect(chunks), expected, `in pieces of ${size}`);
    }
  });

  test("the data of a large record go straight to their place, however the stream is cut", () => {
    const data = Buffer.from(Array.from({ length: 40_001 }, (_, i) => i % 251));
    const large = record(Buffer.concat(new XdrWriter().u32(7).opaque(data).finish()));
    const all = Buffer.concat([record(Buffer.from("before")), large, large, record(Buffer.from("after"))]);
    for (const size of [1, 3, 4, 7, 8, 9, 1_000, 16_383, 40_010, 65_536, all.length]) {
      const seen: string[] = [];
      let into = Buffer.alloc(data.length);
      const whole = (bytes: Buffer) => {
        if (bytes.length < 100) return void seen.push(bytes.toString("latin1"));
        const reader = new XdrReader(bytes);
        reader.u32();
        assert.equal(reader.opaqueInto(into), data.length);
        assert.equal(reader.rest, null);
        end();
      };
      const end = () => {
        assert.ok(into.equals(data));
        into = Buffer.alloc(data.length);
        seen.push("data");
      };
      const begin = (start: Buffer, totalBytes: number) => {
        assert.equal(totalBytes, 4 + 4 + 40_004);
        if (start.length < 8) return null;
        const reader = new XdrReader(start, totalBytes);
        reader.u32();
        assert.equal(reader.opaqueInto(into), data.length);
        return reader.rest;
      };
      const reader = new RecordReader(whole, 100_000, { begin, end });
      for (let at = 0; at < all.length; at += size) reader.push(all.subarray(at, at + size));
      assert.deepEqual(seen, ["before", "data", "data", "after"], `in pieces of ${size}`);
    }
  });

  test("a place that was abandoned is not touched any more, and the next record is found", () => {
    const large = record(Buffer.concat(new XdrWriter().opaque(Buffer.alloc(40_000, 1)).finish()));
    const into = Buffer.alloc(40_000);
    const seen: string[] = [];
    const begin = (start: Buffer, totalBytes: number) => {
      const reader = new XdrReader(start, totalBytes);
      reader.opaqueInto(into);
      return reader.rest;
    };
    const reader = new RecordReader((bytes) => seen.push(bytes.toString("latin1")), 100_000, { begin, end: () => {} });
    reader.push(large.subarray(0, 1_000));
    reader.abandon();
    into.fill(0);
    reader.push(Buffer.concat([large.subarray(1_000), record(Buffer.from("next"))]));
    assert.ok(into.every((byte) => byte === 0));
    assert.deepEqual(seen, ["next"]);
  });

  test("a record beyond the bound is refused before any memory is taken for it", () => {
    assert.throws(() => collect([Buffer.from("fffffff0", "hex")]), XdrError);
    assert.throws(() => collect([record(Buffer.alloc(900), false), record(Buffer.alloc(900))]), XdrError);
  });
});
