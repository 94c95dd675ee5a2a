/** Rules on rename: what it replaces, its flags, and that objects and open files go with it. */
import assert from "node:assert/strict";
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from "../../posix/constants.ts";
import { EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY } from "../../util/errno.ts";
import { FileAttr, S_IFDIR, S_IFMT, S_IFREG } from "../../util/file-attr.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root } from "./subject.ts";

export const renameRules: readonly Rule[] = [
  {
    title: "rename() moves a file with its inode, and replaces what has the new name",
    run: async (s) => {
      const from = await s.directory(s.work, "from");
      const to = await s.directory(s.work, "to");
      const file = await s.file(from, "a", "moved");
      await s.file(to, "b", "replaced");
      const { ino } = await s.attr(file);
      await ok(s.replica.rename(from, "a", to, "b", 0));
      file.move(to, "b");
      assert.equal((await s.attr(file)).ino, ino);
      assert.equal(await s.content(file), "moved");
      assert.deepEqual(await s.names(from), []);
      assert.deepEqual(await s.names(to), ["b"]);
    },
  },
  {
    title:
      "rename() through one object of a directory is seen through another one: a name never leads where it led before",
    run: async (s) => {
      const one = await s.directory(s.work, "d");
      await s.file(one, "x", "first");
      await ok(s.replica.lookup(s.work, "d", null));
      const other = s.work.child("d");
      await s.file(other, "keep");
      assert.deepEqual(await s.names(one), ["keep", "x"]);
      await ok(s.replica.lookup(one, "x", null));
      await ok(s.replica.lookup(other, "x", null));
      await ok(s.replica.lookup(one, "keep", null));
      await ok(s.replica.rename(other, "x", other, "y", 0));
      await refused(s.replica.getattr(one.child("x"), new FileAttr()), ENOENT);
      await s.file(other, "x", "second");
      assert.equal(await s.content(one.child("x")), "second");
    },
  },
  {
    title: "rename() keeps files and directories apart, and replaces only an empty directory",
    run: async (s) => {
      await s.file(s.work, "f");
      const full = await s.directory(s.work, "full");
      await s.file(full, "x");
      await s.directory(s.work, "empty");
      await refused(s.replica.rename(s.work, "f", s.work, "empty", 0), EISDIR);
      await refused(s.replica.rename(s.work, "empty", s.work, "f", 0), ENOTDIR);
      await refused(s.replica.rename(s.work, "empty", s.work, "full", 0), ENOTEMPTY, EEXIST);
      await refused(s.replica.rename(s.work, "absent", s.work, "g", 0), ENOENT);
      await refused(s.replica.rename(s.work, "full", full, "inside-itself", 0), EINVAL);
      await ok(s.replica.rename(s.work, "full", s.work, "empty", 0));
      full.move(s.work, "empty");
      assert.deepEqual(await s.names(full), ["x"]);
      assert.deepEqual(await s.names(s.work), ["empty", "f"]);
    },
  },
  {
    title: "rename() of one name of a file onto another of its names changes nothing",
    needs: ["hardLinks"],
    run: async (s) => {
      const a = await s.file(s.work, "a", "x");
      await ok(s.replica.link(a, s.work, "b", null));
      await ok(s.replica.rename(s.work, "a", s.work, "b", 0));
      assert.deepEqual(await s.names(s.work), ["a", "b"]);
      await ok(s.replica.rename(s.work, "a", s.work, "a", 0));
      assert.equal((await s.attr(a)).nlink, 2);
    },
  },
  {
    title: "rename() moves symbolic links themselves, and replaces them",
    needs: ["symlinks"],
    run: async (s) => {
      await s.file(s.work, "f", "kept");
      await s.symlink(s.work, "l", "f");
      await s.symlink(s.work, "m", "elsewhere");
      await ok(s.replica.rename(s.work, "l", s.work, "m", 0));
      assert.equal(await s.target(s.work.child("m")), "f");
      await s.file(s.work, "g", "new");
      await ok(s.replica.rename(s.work, "g", s.work, "m", 0));
      assert.equal(await s.content(s.work.child("m")), "new");
      assert.equal(await s.content(s.work.child("f")), "kept");
    },
  },
  {
    title: "RENAME_NOREPLACE answers EEXIST and changes nothing, and moves where there is room",
    needs: ["renameFlags"],
    run: async (s) => {
      await s.file(s.work, "a", "a");
      await s.file(s.work, "b", "b");
      await refused(s.replica.rename(s.work, "a", s.work, "b", RENAME_NOREPLACE), EEXIST);
      assert.equal(await s.content(s.work.child("b")), "b");
      await ok(s.replica.rename(s.work, "a", s.work, "c", RENAME_NOREPLACE));
      assert.deepEqual(await s.names(s.work), ["b", "c"]);
    },
  },
  {
    title: "RENAME_EXCHANGE swaps a file and a full directory, and needs both",
    needs: ["renameFlags"],
    run: async (s) => {
      const inner = await s.directory(s.work, "inner");
      const file = await s.file(inner, "file", "f");
      const directory = await s.directory(s.work, "directory");
      const child = await s.file(directory, "child", "c");
      await ok(s.replica.rename(inner, "file", s.work, "directory", RENAME_EXCHANGE));
      file.move(s.work, "directory");
      directory.move(inner, "file");
      assert.equal((await s.attr(directory)).mode & S_IFMT, S_IFDIR);
      assert.equal((await s.attr(file)).mode & S_IFMT, S_IFREG);
      assert.equal(await s.content(child), "c");
      assert.equal(await s.content(file), "f");
      await refused(s.replica.rename(inner, "file", s.work, "absent", RENAME_EXCHANGE), ENOENT);
      await refused(s.replica.rename(s.work, "inner", directory, "child", RENAME_EXCHANGE), EINVAL);
    },
  },
  {
    title: "an open file goes on being the same file when it is renamed, or moved aside and replaced",
    run: async (s) => {
      const aside = await s.directory(s.top, "aside");
      const file = await s.file(s.work, "a", "old");
      const handle = await ok(s.replica.open(file, "read-write"));
      await ok(s.replica.rename(s.work, "a", aside, "17", 0));
      file.move(aside, "17");
      const replacement = await s.file(s.work, "a", "new");
      assert.equal(await s.readHandle(handle, 0, 10), "old");
      await ok(s.replica.write(handle, bytes("OLDER"), 0));
      await ok(s.replica.fsync(handle, false));
      assert.equal(await s.content(file), "OLDER");
      assert.equal(await s.content(replacement), "new");
      await ok(s.replica.close(handle));
      await ok(s.replica.unlink(aside, "17"));
    },
  },
  {
    title: "objects below a renamed directory are found through the same objects",
    run: async (s) => {
      const a = await s.directory(s.work, "a");
      const b = await s.directory(a, "b");
      const file = await s.file(b, "file", "content");
      const handle = await ok(s.replica.open(file, "read"));
      await ok(s.replica.rename(s.work, "a", s.work, "moved", 0));
      a.move(s.work, "moved");
      assert.equal(await s.content(file), "content");
      assert.equal(await s.readHandle(handle, 0, 10), "content");
      await s.file(b, "another");
      assert.deepEqual(await s.names(b), ["another", "file"]);

      const other = await s.directory(s.work, "a"); // the old name now belongs to another directory
      await s.directory(other, "b");
      assert.deepEqual(await s.names(b), ["another", "file"]);
      assert.deepEqual(await s.names(other.child("b")), []);

      await ok(s.replica.rename(a, "b", other, "c", 0));
      b.move(other, "c");
      assert.equal(await s.content(file), "content");
      await ok(s.replica.unlink(b, "another"));
      await ok(s.replica.close(handle));
    },
  },
  {
    title: "two directories that swap places keep their children",
    needs: ["renameFlags"],
    run: async (s) => {
      const a = await s.directory(s.work, "a");
      const b = await s.directory(s.work, "b");
      const inA = await s.file(a, "x", "in a");
      const inB = await s.file(b, "x", "in b");
      assert.deepEqual([await s.content(inA), await s.content(inB)], ["in a", "in b"]);
      await ok(s.replica.rename(s.work, "a", s.work, "b", RENAME_EXCHANGE));
      a.move(s.work, "b");
      b.move(s.work, "a");
      assert.deepEqual([await s.content(inA), await s.content(inB)], ["in a", "in b"]);
      await ok(s.replica.mkdir(a, "new", 0o755, root, null));
      assert.deepEqual(await s.names(s.work.child("b")), ["new", "x"]);
    },
  },
  {
    title: "a new object at a name that another object had before is not taken for the old one",
    run: async (s) => {
      const old = await s.directory(s.work, "d");
      await s.file(old, "x", "old");
      await ok(s.replica.rename(s.work, "d", s.work, "e", 0));
      old.move(s.work, "e");
      const fresh = await s.directory(s.work, "d");
      await s.file(fresh, "x", "fresh");
      assert.equal(await s.content(old.child("x")), "old");
      assert.equal(await s.content(fresh.child("x")), "fresh");
      await ok(s.replica.unlink(fresh, "x"));
      await ok(s.replica.rmdir(s.work, "d"));
      await ok(s.replica.rename(s.work, "e", s.work, "d", 0));
      old.move(s.work, "d");
      assert.equal(await s.content(old.child("x")), "old");
    },
  },
];
