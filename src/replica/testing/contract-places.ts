/** Rules on finding objects: symbolic links lead nowhere, deep trees, and what changed behind the replica's back. */
import assert from "node:assert/strict";
import { EISDIR, ELOOP, ENOENT, ENOTDIR, ESTALE } from "../../util/errno.ts";
import { FileAttr, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../../util/file-attr.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root } from "./subject.ts";

export const placeRules: readonly Rule[] = [
  {
    title: "the root has attributes and entries, and objects can be made and removed right in it",
    run: async (s) => {
      assert.equal((await s.attr(s.top)).mode & S_IFMT, S_IFDIR);
      await s.file(s.top, "in-root", "x");
      assert.ok((await s.names(s.top)).includes("in-root"));
      assert.equal(await s.content(s.top.child("in-root")), "x");
      await s.change(s.top, { mode: 0o750 });
      assert.equal((await s.attr(s.top)).mode & 0o7777, 0o750);
      await ok(s.replica.fsyncdir(s.top));
      await ok(s.replica.unlink(s.top, "in-root"));
    },
  },
  {
    title: "no call goes through a symbolic link, neither out of the tree nor within it",
    needs: ["symlinks"],
    run: async (s) => {
      const inside = await s.directory(s.work, "inside");
      await s.file(inside, "f", "kept");
      for (const target of ["inside", "../work/inside", "/", "/etc", "/proc/self/root"]) {
        const link = await s.symlink(s.work, "link", target);
        const through = link.child(target === "/etc" ? "passwd" : "f");
        const { replica } = s;
        const no = (answer: number | Promise<number>) => refused(answer, ENOTDIR, ELOOP);
        await no(replica.lookup(link, through.name, new FileAttr()));
        await no(replica.getattr(through, new FileAttr()));
        await no(replica.setattr(through, -1, { mode: 0o777 }, null));
        await no(replica.setattr(through, -1, { size: 0 }, null));
        await no(replica.open(through, "read"));
        await no(replica.open(through, "read-write"));
        await no(replica.create(link, "chiron-was-here", 0o644, root, null));
        await no(replica.mkdir(link, "chiron-was-here", 0o755, root, null));
        await no(replica.symlink(link, "chiron-was-here", "x", root, null));
        await no(replica.mknod(link, "chiron-was-here", S_IFREG | 0o600, 0, root, null));
        await no(replica.unlink(link, "f"));
        await no(replica.rmdir(link, "f"));
        await no(replica.rename(link, "f", s.work, "stolen", 0));
        await no(replica.rename(s.work, "inside", link, "moved", 0));
        await no(replica.readdir(link, { names: [], types: [], inos: [] }));
        await no(replica.readlink(through, Buffer.alloc(100)));
        await no(replica.fsyncdir(link));
        await refused(replica.getxattr(through, "user.a", new Uint8Array(10)));
        await refused(replica.setxattr(through, "user.a", bytes("x"), 0));
        await refused(replica.link(through, s.work, "linked", null));
        await refused(replica.link(inside.child("f"), link, "linked", null));
        await ok(replica.unlink(s.work, "link"));
      }
      assert.deepEqual(await s.names(s.work), ["inside"]);
      assert.deepEqual(await s.names(inside), ["f"]);
      assert.equal(await s.content(inside.child("f")), "kept");
    },
  },
  {
    title: "open() and setattr(size) do not follow a symbolic link at the end either",
    needs: ["symlinks"],
    run: async (s) => {
      const file = await s.file(s.work, "f", "kept");
      const link = await s.symlink(s.work, "l", "f");
      assert.equal((await s.attr(link)).mode & S_IFMT, S_IFLNK);
      await refused(s.replica.open(link, "read"));
      await refused(s.replica.open(link, "read-write"));
      await refused(s.replica.setattr(link, -1, { size: 1 }, null));
      await refused(s.replica.readdir(link, { names: [], types: [], inos: [] }), ENOTDIR, ELOOP);
      assert.equal(await s.content(file), "kept");
    },
  },
  {
    title: "a tree may be deeper than any path can be long",
    run: async (s) => {
      const depth = 60;
      let at = s.work;
      for (let i = 0; i < depth; i++) at = await s.directory(at, `${i}-`.padEnd(200, "d"));
      const file = await s.file(at, "bottom", "reached");
      assert.equal(await s.content(file), "reached");
      await s.change(file, { mode: 0o600, mtime: { seconds: 1, nsec: 0 } });
      await ok(s.replica.rename(at, "bottom", s.work, "top", 0));
      await ok(s.replica.rename(s.work, "top", at, "bottom", 0));
      if (s.capabilities.userXattrs) {
        await ok(s.replica.setxattr(file, "user.depth", bytes("60"), 0));
        assert.equal(await s.xattr(file, "user.depth"), "60");
      }
      if (s.capabilities.symlinks) {
        await s.symlink(at, "link", "bottom");
        assert.equal(await s.target(at.child("link")), "bottom");
      }
      // The same through objects that the replica has not seen.
      let again = s.work;
      for (let i = 0; i < depth; i++) again = again.child(`${i}-`.padEnd(200, "d"));
      assert.equal(await s.content(again.child("bottom")), "reached");
    },
  },
  {
    title: "thousands of objects in use exhaust nothing, and forgotten ones are found again",
    run: async (s) => {
      const directories = [];
      for (let i = 0; i < 3000; i++) directories.push(await s.directory(s.work, `d${i}`));
      for (const directory of directories) await ok(s.replica.mknod(directory, "f", S_IFREG | 0o644, 0, root, null));
      for (const directory of directories) assert.equal((await s.attr(directory.child("f"))).size, 0);
      for (const directory of directories) s.replica.forget(directory);
      for (const directory of directories) assert.deepEqual(await s.names(directory), ["f"]);
    },
  },
  {
    title: "an object may be forgotten at any time, twice, and while a file below it is open",
    run: async (s) => {
      const directory = await s.directory(s.work, "d");
      const file = await s.file(directory, "f", "content");
      await s.using(file, "read", async (handle) => {
        for (const object of [file, directory, directory, s.work, s.top, s.work.child("never-seen")]) {
          s.replica.forget(object);
        }
        assert.equal(await s.readHandle(handle, 0, 10), "content");
      });
      assert.equal(await s.content(file), "content");
    },
  },
  {
    title: "what another client makes, changes and removes is seen",
    needs: ["another"],
    run: async (s) => {
      const file = await s.file(s.work, "f", "mine");
      assert.equal(await s.content(file), "mine");
      await s.behindTheBack(async (other) => {
        await other.overwrite(other.work.child("f"), "THEIRS");
        await other.file(other.work, "new", "n");
      });
      assert.equal(await s.content(file), "THEIRS");
      assert.deepEqual(await s.names(s.work), ["f", "new"]);
      await s.behindTheBack(async (other) => void (await ok(other.replica.unlink(other.work, "f"))));
      await refused(s.replica.getattr(file, new FileAttr()), ENOENT, ESTALE);
      await refused(s.replica.open(file, "read"), ENOENT, ESTALE);
    },
  },
  {
    title: "a file that was replaced behind the back is found by its name",
    needs: ["another"],
    run: async (s) => {
      const file = await s.file(s.work, "f", "old");
      await s.change(file, { mode: 0o600 });
      assert.equal(await s.content(file), "old");
      await s.behindTheBack(async (other) => {
        await ok(other.replica.unlink(other.work, "f"));
        await other.file(other.work, "f", "replaced");
      });
      assert.equal((await s.attr(file)).size, 8);
      assert.equal(await s.content(file), "replaced");
      assert.equal((await s.change(file, { mode: 0o640 })).mode & 0o7777, 0o640);
      await s.overwrite(file, "R");
      assert.equal(await s.content(file), "Replaced");
    },
  },
  {
    title: "a directory that was removed and made again behind the back is found by its name",
    needs: ["another"],
    run: async (s) => {
      const a = await s.directory(s.work, "a");
      const b = await s.directory(a, "b");
      await s.file(b, "f", "old");
      assert.equal(await s.content(b.child("f")), "old");
      await s.behindTheBack(async (other) => {
        const theirA = other.work.child("a");
        const theirB = theirA.child("b");
        await ok(other.replica.unlink(theirB, "f"));
        await ok(other.replica.rmdir(theirA, "b"));
        await ok(other.replica.rmdir(other.work, "a"));
        await other.directory(other.work, "a");
        await other.directory(theirA, "b");
        await other.file(theirB, "g", "again");
      });
      assert.deepEqual(await s.names(b), ["g"]);
      assert.equal(await s.content(b.child("g")), "again");
      await refused(s.replica.lookup(b, "f", new FileAttr()), ENOENT);
      await s.file(b, "h", "mine");
      await ok(s.replica.mkdir(a, "c", 0o755, root, null));
      await s.behindTheBack(async (other) => {
        assert.deepEqual(await other.names(other.work.child("a")), ["b", "c"]);
        assert.deepEqual(await other.names(other.work.child("a").child("b")), ["g", "h"]);
      });
    },
  },
  {
    title: "a directory that became a file or a symbolic link behind the back is a directory no more",
    needs: ["another", "symlinks"],
    run: async (s) => {
      const a = await s.directory(s.work, "a");
      const b = await s.directory(s.work, "b");
      await s.directory(s.work, "target");
      assert.deepEqual([...(await s.names(a)), ...(await s.names(b))], []);
      await s.behindTheBack(async (other) => {
        await ok(other.replica.rmdir(other.work, "a"));
        await other.symlink(other.work, "a", "target");
        await ok(other.replica.rmdir(other.work, "b"));
        await other.file(other.work, "b");
      });
      for (const object of [a, b]) {
        await refused(s.replica.create(object, "x", 0o644, root, null), ENOTDIR, ELOOP, ENOENT, ESTALE);
        await refused(s.replica.readdir(object, { names: [], types: [], inos: [] }), ENOTDIR, ELOOP, ENOENT, ESTALE);
      }
      assert.deepEqual(await s.names(s.work.child("target")), []);
      assert.equal((await s.attr(a)).mode & S_IFMT, S_IFLNK);
      await refused(s.replica.open(s.work, "read-write"), EISDIR);
    },
  },
];
