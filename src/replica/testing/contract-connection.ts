/** Rules on the connection: before it, after it, again, and a tree that is no longer where it was. */
import assert from "node:assert/strict";
import { ENODEV, ENOTCONN } from "../../util/errno.ts";
import { FileAttr, S_IFREG } from "../../util/file-attr.ts";
import type { Answer } from "../replica.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root, type Subject } from "./subject.ts";

/** One of each call, on a file that is there. */
function everyCall(s: Subject, handle: number): Record<string, Answer> {
  const { replica: r, work } = s;
  const file = work.child("f");
  const into = Buffer.alloc(8);
  return {
    check: r.check(),
    lookup: r.lookup(work, "f", new FileAttr()),
    create: r.create(work, "new", 0o644, root, null),
    mkdir: r.mkdir(work, "new-d", 0o755, root, null),
    mknod: r.mknod(work, "new-n", S_IFREG | 0o644, 0, root, null),
    symlink: r.symlink(work, "new-s", "x", root, null),
    link: r.link(file, work, "new-l", null),
    unlink: r.unlink(work, "f"),
    rmdir: r.rmdir(work, "d"),
    rename: r.rename(work, "f", work, "g", 0),
    readdir: r.readdir(work, { names: [], types: [], inos: [] }),
    getattr: r.getattr(file, new FileAttr()),
    setattr: r.setattr(file, -1, { mode: 0 }, null),
    readlink: r.readlink(file, into),
    getxattr: r.getxattr(file, "user.a", into),
    setxattr: r.setxattr(file, "user.a", into, 0),
    listxattr: r.listxattr(file, into),
    removexattr: r.removexattr(file, "user.a"),
    fsyncdir: r.fsyncdir(work),
    open: r.open(file, "read"),
    fgetattr: r.fgetattr(handle, new FileAttr()),
    read: r.read(handle, into, 0),
    write: r.write(handle, bytes("x"), 0),
    fsync: r.fsync(handle, false),
    fallocate: r.fallocate(handle, 0, 0, 10),
    seek: r.seek(handle, 0, 4),
    copyRange: r.copyRange(handle, 0, handle, 100, 1),
    statfs: r.statfs({
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    }),
    sync: r.sync(),
  };
}

async function nothingWorks(s: Subject, handle: number): Promise<void> {
  for (const [call, answer] of Object.entries(everyCall(s, handle))) {
    assert.equal(await answer, -ENOTCONN, call);
  }
}

export const connectionRules: readonly Rule[] = [
  {
    title: "every call answers ENOTCONN after disconnect(), and nothing of it happens",
    run: async (s) => {
      const file = await s.file(s.work, "f", "kept");
      await s.directory(s.work, "d");
      const handle = await ok(s.replica.open(file, "read-write"));
      await s.replica.disconnect();
      await nothingWorks(s, handle);
      await refused(s.replica.close(handle));
      s.replica.forget(file);
      await s.replica.disconnect();
      await s.replica.connect({ signal: AbortSignal.timeout(60_000) });
      assert.deepEqual(await s.names(s.work), ["d", "f"]);
      assert.equal(await s.content(file), "kept");
    },
  },
  {
    title: "after connecting again objects are found, and old handles are worth nothing",
    run: async (s) => {
      const directory = await s.directory(s.work, "d");
      const file = await s.file(directory, "f", "content");
      const old = await ok(s.replica.open(file, "read-write"));
      await s.replica.disconnect();
      await s.replica.connect({ signal: AbortSignal.timeout(60_000) });
      await refused(s.replica.write(old, bytes("late"), 0));
      assert.equal(await s.content(file), "content");
      await s.overwrite(file, "C");
      await s.file(directory, "g");
      assert.deepEqual(await s.names(directory), ["f", "g"]);
    },
  },
  {
    title: "what was written before disconnect() is there afterwards",
    run: async (s) => {
      const handle = await ok(s.replica.create(s.work, "f", 0o644, root, null));
      await ok(s.replica.write(handle, bytes("written"), 0));
      await s.replica.disconnect();
      await s.replica.connect({ signal: AbortSignal.timeout(60_000) });
      assert.equal(await s.content(s.work.child("f")), "written");
    },
  },
  {
    title: "check() answers 0 while the root is where it was",
    run: async (s) => {
      assert.equal(await s.replica.check(), 0);
      await s.file(s.top, "something");
      assert.equal(await s.replica.check(), 0);
    },
  },
  {
    title: "check() answers ENODEV once something else is where the root was, and connect() looks afresh",
    needs: ["vanish"],
    run: async (s) => {
      await s.file(s.work, "f", "here");
      await s.made.vanish?.();
      assert.equal(await s.replica.check(), -ENODEV);
      await s.replica.disconnect();
      try {
        await s.replica.connect({ signal: AbortSignal.timeout(60_000) });
      } catch {
        return; // there is nothing to connect to
      }
      await refused(s.replica.lookup(s.work, "f", new FileAttr()));
    },
  },
  {
    title: "connect() gives up when it is told to",
    run: async (s) => {
      await s.replica.disconnect();
      await assert.rejects(s.replica.connect({ signal: AbortSignal.abort(new Error("told to")) }));
      await refused(s.replica.getattr(s.top, new FileAttr()), ENOTCONN);
    },
  },
];
