/** Rules on attributes: what setattr changes, in which order, to the nanosecond, and what else moves with it. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { EINVAL, EISDIR, ENOENT } from "../../util/errno.ts";
import { FileAttr, S_IFIFO, S_IFMT, S_ISGID, S_ISUID } from "../../util/file-attr.ts";
import type { TimeSpec } from "../replica.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root, type Subject } from "./subject.ts";

/** As the replica keeps it. */
function kept(s: Subject, time: TimeSpec): [number, number] {
  return [time.seconds, time.nsec - (time.nsec % s.capabilities.timeGranularityNsec)];
}

const past = { seconds: 1_234_567_890, nsec: 123_456_789 };
const future = { seconds: 2_000_000_000, nsec: 999_999_999 };

/** File systems stamp by a coarse clock: wait until its next tick. */
const nextTick = () => sleep(30);

function mtime(attr: FileAttr): bigint {
  return BigInt(attr.mtime) * 1_000_000_000n + BigInt(attr.mtimeNsec);
}
function ctime(attr: FileAttr): bigint {
  return BigInt(attr.ctime) * 1_000_000_000n + BigInt(attr.ctimeNsec);
}

export const attributeRules: readonly Rule[] = [
  {
    title: "setattr() changes what it is given and nothing else",
    run: async (s) => {
      const file = await s.file(s.work, "f", "12345678");
      const before = await s.change(file, { uid: 10, gid: 20, mode: 0o600, atime: past, mtime: past });
      const same = (after: FileAttr, but: Partial<FileAttr>) =>
        assert.deepEqual(
          { ...after, ctime: 0, ctimeNsec: 0, blocks: 0 },
          { ...before, ...but, ctime: 0, ctimeNsec: 0, blocks: 0 },
        );
      same(before, { uid: 10, gid: 20, mode: (before.mode & S_IFMT) | 0o600, size: 8 });
      same(await s.change(file, { mode: 0o1755 }), { mode: (before.mode & S_IFMT) | 0o1755 });
      same(await s.change(file, { mode: 0o600 }), {});
      same(await s.change(file, { uid: 11 }), { uid: 11 });
      same(await s.change(file, { uid: 10 }), {});
      same(await s.change(file, { gid: 21 }), { gid: 21 });
      same(await s.change(file, { gid: 20 }), {});
      same(await s.change(file, {}), {});
      same(await s.attr(file), {});
    },
  },
  {
    title: "setattr() keeps each time by itself, to the nanosecond where the backend can",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      const both = await s.change(file, { atime: future, mtime: past });
      assert.deepEqual([both.atime, both.atimeNsec], kept(s, future));
      assert.deepEqual([both.mtime, both.mtimeNsec], kept(s, past));
      const mtimeOnly = await s.change(file, { mtime: future });
      assert.deepEqual([mtimeOnly.atime, mtimeOnly.atimeNsec], kept(s, future));
      assert.deepEqual([mtimeOnly.mtime, mtimeOnly.mtimeNsec], kept(s, future));
      const atimeOnly = await s.change(file, { atime: { seconds: 0, nsec: 0 } });
      assert.deepEqual([atimeOnly.atime, atimeOnly.atimeNsec], [0, 0]);
      assert.deepEqual([atimeOnly.mtime, atimeOnly.mtimeNsec], kept(s, future));
    },
  },
  {
    title: "setattr() works on directories, symbolic links and special files themselves",
    needs: ["symlinks", "specialFiles"],
    run: async (s) => {
      const target = await s.file(s.work, "target");
      await s.change(target, { mtime: future });
      const link = await s.symlink(s.work, "link", "target");
      const directory = await s.directory(s.work, "d");
      await ok(s.replica.mknod(s.work, "fifo", S_IFIFO | 0o600, 0, root, null));
      for (const object of [link, directory, s.work.child("fifo")]) {
        const after = await s.change(object, { uid: 7, gid: 8, mtime: past, atime: past });
        assert.deepEqual([after.uid, after.gid], [7, 8]);
        assert.deepEqual([after.mtime, after.mtimeNsec], kept(s, past));
      }
      assert.equal((await s.change(directory, { mode: 0o3770 })).mode & 0o7777, 0o3770);
      assert.equal((await s.change(s.work.child("fifo"), { mode: 0o640 })).mode & 0o7777, 0o640);
      await s.replica.setattr(link, -1, { mode: 0o600 }, null); // Linux keeps no mode for links; the target's must stay
      const untouched = await s.attr(target);
      assert.deepEqual([untouched.uid, untouched.gid, untouched.mode & 0o7777], [0, 0, 0o644]);
      assert.deepEqual([untouched.mtime, untouched.mtimeNsec], kept(s, future));
    },
  },
  {
    title: "a change of owner clears set-user-id, but not a mode that the same call sets",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await s.change(file, { mode: 0o6755 });
      assert.equal((await s.change(file, { uid: 1000, gid: 1000 })).mode & (S_ISUID | S_ISGID), 0);
      const together = await s.change(file, { uid: 1001, gid: 1001, mode: 0o6755 });
      assert.deepEqual([together.uid, together.mode & 0o7777], [1001, 0o6755]);
    },
  },
  {
    title: "all at once: size, owner, mode and times each end as given",
    run: async (s) => {
      const file = await s.file(s.work, "f", "123456");
      const change = { size: 3, uid: 1, gid: 2, mode: 0o4711, atime: past, mtime: past };
      const after = await s.change(file, change);
      assert.deepEqual([after.size, after.uid, after.gid, after.mode & 0o7777], [3, 1, 2, 0o4711]);
      assert.deepEqual([after.mtime, after.mtimeNsec], kept(s, past));
      assert.equal(await s.content(file), "123");
    },
  },
  {
    title: "setattr() works through an open handle, also of a file that may only be read",
    run: async (s) => {
      const file = await s.file(s.work, "f", "123456");
      await s.using(file, "read-write", async (handle) => {
        const attr = new FileAttr();
        await ok(s.replica.setattr(file, handle, { size: 4, mtime: past }, attr));
        assert.equal(attr.size, 4);
        assert.deepEqual([attr.mtime, attr.mtimeNsec], kept(s, past));
        await ok(s.replica.fgetattr(handle, attr));
        assert.equal(attr.size, 4);
      });
      await s.change(file, { mode: 0 });
      await s.using(file, "read", async (handle) => {
        const attr = new FileAttr();
        await ok(s.replica.setattr(file, handle, { mode: 0o400, mtime: future }, attr));
        assert.equal(attr.mode & 0o7777, 0o400);
        await ok(s.replica.setattr(file, handle, { size: 2 }, attr));
        assert.equal(attr.size, 2);
      });
      assert.equal(await s.content(file), "12");
    },
  },
  {
    title: "a file that grows by setattr() reads as zeros, and what was cut off does not come back",
    run: async (s) => {
      const file = await s.file(s.work, "f", "0123456789");
      await s.change(file, { size: 4 });
      assert.equal((await s.change(file, { size: 10_000 })).size, 10_000);
      assert.equal(await s.content(file), `0123${"\0".repeat(9996)}`);
      assert.equal((await s.change(file, { size: 0 })).size, 0);
      assert.equal(await s.content(file), "");
    },
  },
  {
    title: "only regular files have a size to set",
    needs: ["symlinks"],
    run: async (s) => {
      const target = await s.file(s.work, "target", "kept");
      const link = await s.symlink(s.work, "link", "target");
      await refused(s.replica.setattr(s.work, -1, { size: 0 }, null), EISDIR, EINVAL);
      await refused(s.replica.setattr(link, -1, { size: 0 }, null));
      assert.equal(await s.content(target), "kept");
    },
  },
  {
    title: "what is not there has no attributes",
    run: async (s) => {
      const absent = s.work.child("absent");
      await refused(s.replica.getattr(absent, new FileAttr()), ENOENT);
      await refused(s.replica.setattr(absent, -1, { mode: 0o600 }, null), ENOENT);
      await refused(s.replica.setattr(absent, -1, { size: 0 }, null), ENOENT);
      await refused(s.replica.open(absent, "read"), ENOENT);
      await refused(s.replica.open(absent.child("below"), "read-write"), ENOENT);
    },
  },
  {
    title: "ctime moves with every change of an object, and not with reading it",
    needs: ["hardLinks"],
    run: async (s) => {
      const file = await s.file(s.work, "f", "content");
      let last = ctime(await s.attr(file));
      const steps: (() => Promise<unknown>)[] = [
        () => s.change(file, { mode: 0o600 }),
        () => s.change(file, { uid: 3 }),
        () => s.change(file, { mtime: past }),
        () => s.overwrite(file, "C"),
        () => s.change(file, { size: 3 }),
        () => ok(s.replica.link(file, s.work, "g", null)),
        () => ok(s.replica.unlink(s.work, "g")),
      ];
      for (const [index, step] of steps.entries()) {
        await nextTick();
        await s.content(file);
        assert.equal(ctime(await s.attr(file)), last, `reading, before step ${index}`);
        await step();
        const now = ctime(await s.attr(file));
        assert.ok(now > last, `step ${index}`);
        last = now;
      }
    },
  },
  {
    title: "mtime and ctime of a directory move with its entries, those of a file with its content",
    run: async (s) => {
      const directory = await s.directory(s.work, "d");
      const file = await s.file(s.work, "f", "x");
      const steps: (() => Promise<unknown>)[] = [
        () => s.file(directory, "new"),
        () => ok(s.replica.rename(directory, "new", directory, "renamed", 0)),
        () => ok(s.replica.unlink(directory, "renamed")),
        () => s.directory(directory, "sub"),
        () => ok(s.replica.rename(directory, "sub", s.work, "moved", 0)),
      ];
      for (const [index, step] of steps.entries()) {
        const before = await s.attr(directory);
        await nextTick();
        await step();
        const after = await s.attr(directory);
        assert.ok(mtime(after) > mtime(before) && ctime(after) > ctime(before), `step ${index}`);
      }
      await s.change(file, { mtime: past });
      await s.overwrite(file, "y");
      assert.ok(mtime(await s.attr(file)) > BigInt(past.seconds + 1) * 1_000_000_000n);
    },
  },
  {
    title: "blocks tell what is allocated: nothing for a hole",
    needs: ["holes"],
    run: async (s) => {
      const file = await s.file(s.work, "f");
      assert.ok((await s.change(file, { size: 1 << 24 })).blocks < 1024);
      await s.using(file, "read-write", async (handle) => {
        await ok(s.replica.write(handle, Buffer.alloc(1 << 20, 1), 0));
        await ok(s.replica.fsync(handle, false));
        const attr = new FileAttr();
        await ok(s.replica.fgetattr(handle, attr));
        assert.ok(attr.blocks >= 2048 && attr.blocks < 8192, `${attr.blocks} blocks`);
      });
    },
  },
  {
    title: "fgetattr() sees what was written through any handle",
    run: async (s) => {
      const file = await s.file(s.work, "f", "a");
      await s.using(file, "read", (reader) =>
        s.using(file, "read-write", async (writer) => {
          await ok(s.replica.write(writer, bytes("abcdef"), 0));
          const attr = new FileAttr();
          await ok(s.replica.fgetattr(reader, attr));
          assert.equal(attr.size, 6);
          assert.deepEqual({ ...(await s.attr(file)) }, { ...attr });
        }),
      );
    },
  },
];
