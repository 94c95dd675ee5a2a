/** Rules on what files hold: reads, writes, holes, allocation, copies, large offsets. */
import assert from "node:assert/strict";
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  SEEK_DATA,
  SEEK_HOLE,
} from "../../posix/constants.ts";
import { EBADF, ENXIO, EOPNOTSUPP } from "../../util/errno.ts";
import { FileAttr } from "../../util/file-attr.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root } from "./subject.ts";

const mebibyte = 1 << 20;

/** Bytes that differ from place to place. */
function pattern(length: number, seed = 1): Buffer {
  const buffer = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) buffer[i] = (i * 31 + (i >>> 8) * 17 + seed) & 0xff;
  return buffer;
}

export const contentRules: readonly Rule[] = [
  {
    title: "read() answers fewer bytes only at the end of the file, and 0 past it",
    run: async (s) => {
      const file = await s.file(s.work, "f", "0123456789");
      await s.using(file, "read", async (handle) => {
        assert.equal(await s.readHandle(handle, 0, 10), "0123456789");
        assert.equal(await s.readHandle(handle, 3, 4), "3456");
        assert.equal(await s.readHandle(handle, 8, 100), "89");
        assert.equal(await s.readHandle(handle, 10, 100), "");
        assert.equal(await s.readHandle(handle, 2 ** 40, 100), "");
        assert.equal(await s.readHandle(handle, 0, 0), "");
        const into = Buffer.alloc(16, 0xaa);
        assert.equal(await ok(s.replica.read(handle, into.subarray(4, 8), 0)), 4);
        assert.equal(into.toString("latin1"), `\xaa\xaa\xaa\xaa0123${"\xaa".repeat(8)}`);
      });
    },
  },
  {
    title: "write() takes all its data, overwrites, extends, and leaves zeros in a gap",
    run: async (s) => {
      const file = await s.file(s.work, "f", "0123456789");
      await s.using(file, "read-write", async (handle) => {
        assert.equal(await ok(s.replica.write(handle, bytes("AB"), 2)), 2);
        assert.equal(await ok(s.replica.write(handle, bytes("CD"), 9)), 2);
        assert.equal(await ok(s.replica.write(handle, bytes("E"), 5000)), 1);
        assert.equal(await ok(s.replica.write(handle, new Uint8Array(0), 9000)), 0);
      });
      assert.equal(await s.content(file), `01AB45678CD${"\0".repeat(4989)}E`);
    },
  },
  {
    title: "a buffer is the caller's again once write() has answered",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await s.using(file, "read-write", async (handle) => {
        const buffer = Buffer.alloc(9000, "a");
        await ok(s.replica.write(handle, buffer, 0));
        buffer.fill("b");
        await ok(s.replica.write(handle, buffer.subarray(0, 10), 9000));
      });
      assert.equal(await s.content(file), "a".repeat(9000) + "b".repeat(10));
    },
  },
  {
    title: "a view into a larger buffer is written as far as it reaches, and no further",
    run: async (s) => {
      const whole = pattern(4096);
      const file = await s.file(s.work, "f", whole.subarray(100, 200));
      assert.equal(await s.content(file), whole.toString("latin1", 100, 200));
    },
  },
  {
    title: "large requests at odd offsets come back whole",
    run: async (s) => {
      const data = pattern(3 * mebibyte + 17);
      const file = await s.file(s.work, "f");
      await s.overwrite(file, data, 12_345);
      const into = Buffer.alloc(data.length);
      await s.using(file, "read", async (handle) => {
        assert.equal(await ok(s.replica.read(handle, into, 12_345)), data.length);
      });
      assert.ok(into.equals(data));
    },
  },
  {
    title: "offsets beyond 32 bits are exact",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await s.using(file, "read-write", async (handle) => {
        for (const position of [2 ** 31 - 3, 2 ** 32 - 3, 2 ** 32 + 4096, 5 * 2 ** 30 + 1, 2 ** 40 + 7]) {
          assert.equal(await ok(s.replica.write(handle, bytes(`at${position % 97}`.padEnd(6, ".")), position)), 6);
        }
        for (const position of [2 ** 31 - 3, 2 ** 32 - 3, 2 ** 32 + 4096, 5 * 2 ** 30 + 1, 2 ** 40 + 7]) {
          assert.equal(await s.readHandle(handle, position, 6), `at${position % 97}`.padEnd(6, "."));
        }
        assert.equal(await s.readHandle(handle, 0, 4), "\0\0\0\0");
        const attr = new FileAttr();
        await ok(s.replica.fgetattr(handle, attr));
        assert.equal(attr.size, 2 ** 40 + 13);
      });
      assert.equal((await s.change(file, { size: 2 ** 33 + 1 })).size, 2 ** 33 + 1);
    },
  },
  {
    title: "a handle for reading does not write, and a closed one does nothing",
    run: async (s) => {
      const file = await s.file(s.work, "f", "kept");
      const handle = await ok(s.replica.open(file, "read"));
      await refused(s.replica.write(handle, bytes("x"), 0), EBADF);
      await ok(s.replica.close(handle));
      // A descriptor's number may belong to something else by now: only EBADF where nothing can have it.
      await refused(s.replica.read(handle, new Uint8Array(4), 0));
      await refused(s.replica.write(handle, bytes("x"), 0));
      await refused(s.replica.read(-1, new Uint8Array(4), 0), EBADF);
      assert.equal(await s.content(file), "kept");
    },
  },
  {
    title: "root reads and writes whatever the mode says",
    run: async (s) => {
      const file = await s.file(s.work, "f", "secret");
      await s.change(file, { mode: 0, uid: 1000, gid: 1000 });
      await s.overwrite(file, "S");
      assert.equal(await s.content(file), "Secret");
    },
  },
  {
    title: "many handles of many files at once stay apart",
    run: async (s) => {
      const handles = await Promise.all(
        Array.from({ length: 200 }, async (_, i) => ok(s.replica.create(s.work, `f${i}`, 0o644, root, null))),
      );
      assert.equal(new Set(handles).size, 200);
      await Promise.all(handles.map((handle, i) => ok(s.replica.write(handle, bytes(`content ${i}`), i))));
      const contents = await Promise.all(handles.map((handle, i) => s.readHandle(handle, i, 100)));
      assert.deepEqual(
        contents,
        handles.map((_, i) => `content ${i}`),
      );
      await Promise.all(handles.map((handle) => ok(s.replica.close(handle))));
    },
  },
  {
    title: "calls in flight together on one handle all take effect",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await s.using(file, "read-write", async (handle) => {
        const blocks = Array.from({ length: 64 }, (_, i) => pattern(4096, i));
        await Promise.all(blocks.map((block, i) => ok(s.replica.write(handle, block, i * 4096))));
        const read = await Promise.all(blocks.map((_, i) => s.readHandle(handle, i * 4096, 4096)));
        assert.ok(read.every((text, i) => text === blocks[i]?.toString("latin1")));
      });
    },
  },
  {
    title: "SEEK_DATA and SEEK_HOLE tell where data are, and ENXIO past the end",
    needs: ["holes"],
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await s.using(file, "read-write", async (handle) => {
        await ok(s.replica.write(handle, pattern(mebibyte), 4 * mebibyte));
        await ok(s.replica.setattr(file, handle, { size: 8 * mebibyte }, null));
        await ok(s.replica.fsync(handle, false));
        const { replica } = s;
        assert.equal(await ok(replica.seek(handle, 0, SEEK_HOLE)), 0);
        assert.equal(await ok(replica.seek(handle, 0, SEEK_DATA)), 4 * mebibyte);
        assert.equal(await ok(replica.seek(handle, 4 * mebibyte + 5, SEEK_DATA)), 4 * mebibyte + 5);
        assert.equal(await ok(replica.seek(handle, 4 * mebibyte, SEEK_HOLE)), 5 * mebibyte);
        assert.equal(await ok(replica.seek(handle, 8 * mebibyte - 1, SEEK_HOLE)), 8 * mebibyte - 1);
        await refused(replica.seek(handle, 5 * mebibyte, SEEK_DATA), ENXIO);
        await refused(replica.seek(handle, 8 * mebibyte, SEEK_DATA), ENXIO);
        await refused(replica.seek(handle, 8 * mebibyte, SEEK_HOLE), ENXIO);
      });
      const full = await s.file(s.work, "full", pattern(5000));
      await s.using(full, "read", async (handle) => {
        assert.equal(await ok(s.replica.seek(handle, 100, SEEK_HOLE)), 5000);
      });
    },
  },
  {
    title: "punching a hole zeroes the range and keeps the size",
    needs: ["holes"],
    run: async (s) => {
      const data = pattern(2 * mebibyte, 3);
      const file = await s.file(s.work, "f", data);
      await s.using(file, "read-write", async (handle) => {
        const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        await ok(s.replica.fallocate(handle, mode, 100, mebibyte));
        await ok(s.replica.fallocate(handle, mode, 2 * mebibyte - 10, mebibyte));
        await ok(s.replica.fsync(handle, false));
        const hole = await ok(s.replica.seek(handle, 0, SEEK_HOLE));
        assert.ok(hole >= 100 && hole <= 65_536, `the hole begins at ${hole}`);
      });
      data.fill(0, 100, 100 + mebibyte);
      data.fill(0, 2 * mebibyte - 10);
      assert.equal(await s.content(file), data.toString("latin1"));
    },
  },
  {
    title: "fallocate() makes room: longer by default, KEEP_SIZE not, and what was there stays",
    needs: ["fallocate"],
    run: async (s) => {
      const file = await s.file(s.work, "f", "data");
      await s.using(file, "read-write", async (handle) => {
        await ok(s.replica.fallocate(handle, FALLOC_FL_KEEP_SIZE, 0, mebibyte));
        const attr = new FileAttr();
        await ok(s.replica.fgetattr(handle, attr));
        assert.equal(attr.size, 4);
        assert.ok(attr.blocks >= 2048, `${attr.blocks} blocks`);
        await ok(s.replica.fallocate(handle, 0, 0, 2 * mebibyte));
        await ok(s.replica.fgetattr(handle, attr));
        assert.equal(attr.size, 2 * mebibyte);
        await ok(s.replica.fallocate(handle, 0, 0, 100));
        await ok(s.replica.fgetattr(handle, attr));
        assert.equal(attr.size, 2 * mebibyte);
        const zeroed = await s.replica.fallocate(handle, FALLOC_FL_ZERO_RANGE, 1, 2);
        if (zeroed !== -EOPNOTSUPP) {
          await ok(zeroed);
          assert.equal(await s.readHandle(handle, 0, 6), "d\0\0a\0\0");
          await ok(s.replica.write(handle, bytes("data"), 0));
        }
        await refused(s.replica.fallocate(handle, 0, 0, 0));
      });
      const content = await s.content(file);
      assert.equal(content.slice(0, 4), "data");
      assert.ok(/^\0*$/.test(content.slice(4)));
    },
  },
  {
    title: "copyRange() copies within the tree, fewer bytes only at the end of the source",
    run: async (s) => {
      const data = pattern(mebibyte + 77);
      const from = await s.file(s.work, "from", data);
      const to = await s.file(s.work, "to", "abc");
      await s.using(from, "read", (source) =>
        s.using(to, "read-write", async (target) => {
          assert.equal(await ok(s.replica.copyRange(source, 0, target, 10, mebibyte)), mebibyte);
          assert.equal(await ok(s.replica.copyRange(source, mebibyte, target, 10 + mebibyte, 4096)), 77);
          assert.equal(await ok(s.replica.copyRange(source, data.length, target, 0, 4096)), 0);
          assert.equal(await ok(s.replica.copyRange(source, 2 ** 40, target, 0, 4096)), 0);
        }),
      );
      assert.equal(await s.content(to), `abc${"\0".repeat(7)}${data.toString("latin1")}`);
      await s.using(to, "read-write", async (handle) => {
        assert.equal(await ok(s.replica.copyRange(handle, 0, handle, 2 * mebibyte, 3)), 3);
        assert.equal(await s.readHandle(handle, 2 * mebibyte, 10), "abc");
      });
    },
  },
  {
    title: "fsync(), fsyncdir(), sync() and statfs() answer",
    run: async (s) => {
      const directory = await s.directory(s.work, "d");
      const file = await s.file(directory, "f", "x");
      await s.using(file, "read-write", async (handle) => {
        await ok(s.replica.write(handle, bytes("yz"), 1));
        await ok(s.replica.fsync(handle, true));
        await ok(s.replica.fsync(handle, false));
      });
      await s.using(file, "read", async (handle) => void (await ok(s.replica.fsync(handle, false))));
      await ok(s.replica.fsyncdir(directory));
      await ok(s.replica.sync());
      const stats = {
        blockSizeBytes: -1,
        blocks: -1,
        freeBlocks: -1,
        availableBlocks: -1,
        files: -1,
        freeFiles: -1,
        maxNameBytes: -1,
      };
      await ok(s.replica.statfs(stats));
      assert.ok(stats.blockSizeBytes >= 512 && stats.blocks > 0 && stats.maxNameBytes <= 255);
      assert.ok(stats.freeBlocks >= 0 && stats.freeBlocks <= stats.blocks && stats.availableBlocks >= 0);
      assert.ok(stats.files >= 0 && stats.freeFiles >= 0);
      assert.equal(await s.content(file), "xyz");
    },
  },
];
