/** Rules on names: creation, links, removal, listings, and which bytes a name may hold. */
import assert from "node:assert/strict";
import {
  EEXIST,
  EINVAL,
  EISDIR,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EOPNOTSUPP,
  EPERM,
} from "../../util/errno.ts";
import {
  FileAttr,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  S_ISGID,
} from "../../util/file-attr.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root } from "./subject.ts";

const nobody = { uid: 65_534, gid: 65_534 };

export const nameRules: readonly Rule[] = [
  {
    title: "create() makes an empty regular file and answers a handle for reading and writing",
    run: async (s) => {
      const attr = new FileAttr();
      const handle = await ok(s.replica.create(s.work, "a", 0o640, { uid: 1000, gid: 1001 }, attr));
      assert.equal(attr.mode, S_IFREG | 0o640);
      assert.deepEqual([attr.uid, attr.gid, attr.nlink, attr.size], [1000, 1001, 1, 0]);
      assert.ok(attr.ino > 0);
      assert.equal(await ok(s.replica.write(handle, bytes("hello"), 0)), 5);
      assert.equal(await s.readHandle(handle, 0, 16), "hello");
      await ok(s.replica.close(handle));
      assert.equal(await s.content(s.work.child("a")), "hello");
    },
  },
  {
    title: "create() takes the mode as it is, whatever the process's umask, with set-user-id beside an owner",
    run: async (s) => {
      const umask = process.umask(0o077);
      try {
        const attr = new FileAttr();
        await ok(s.replica.close(await ok(s.replica.create(s.work, "a", 0o666, root, attr))));
        assert.equal(attr.mode & 0o7777, 0o666);
        await ok(s.replica.close(await ok(s.replica.create(s.work, "b", 0o4755, { uid: 1000, gid: 1000 }, attr))));
        assert.equal(attr.mode & 0o7777, 0o4755);
        assert.equal((await s.attr(s.work.child("b"))).mode & 0o7777, 0o4755);
        await ok(s.replica.mkdir(s.work, "d", 0o1777, nobody, attr));
        assert.equal(attr.mode & 0o7777, 0o1777);
      } finally {
        process.umask(umask);
      }
    },
  },
  {
    title: "create() is exclusive: EEXIST for a file, a directory and a dangling symbolic link",
    needs: ["symlinks"],
    run: async (s) => {
      await s.file(s.work, "f", "kept");
      await s.directory(s.work, "d");
      await s.symlink(s.work, "l", "nowhere");
      for (const name of ["f", "d", "l"]) {
        await refused(s.replica.create(s.work, name, 0o644, root, null), EEXIST);
        await refused(s.replica.mkdir(s.work, name, 0o755, root, null), EEXIST);
        await refused(s.replica.symlink(s.work, name, "x", root, null), EEXIST);
        await refused(s.replica.mknod(s.work, name, S_IFREG | 0o644, 0, root, null), EEXIST);
        await refused(s.replica.link(s.work.child("f"), s.work, name, null), EEXIST, EOPNOTSUPP);
      }
      assert.equal(await s.content(s.work.child("f")), "kept");
      await refused(s.replica.lookup(s.work, "nowhere", null), ENOENT);
    },
  },
  {
    title: "of many exclusive creates of one name at once exactly one succeeds",
    run: async (s) => {
      const answers = await Promise.all(
        Array.from({ length: 16 }, async () => s.replica.create(s.work, "one", 0o644, root, null)),
      );
      const handles = answers.filter((answer) => answer >= 0);
      assert.equal(handles.length, 1);
      assert.ok(answers.every((answer) => answer >= 0 || answer === -EEXIST));
      for (const handle of handles) await ok(s.replica.close(handle));
    },
  },
  {
    title: "lookup() fills the attributes, and answers ENOENT or ENOTDIR",
    run: async (s) => {
      const made = await s.attr(await s.file(s.work, "f", "12345"));
      const found = await s.lookup(s.work, "f");
      assert.deepEqual({ ...found }, { ...made });
      assert.equal(found.size, 5);
      await ok(s.replica.lookup(s.work, "f", null));
      await refused(s.replica.lookup(s.work, "absent", new FileAttr()), ENOENT);
      await refused(s.replica.lookup(s.work.child("f"), "x", new FileAttr()), ENOTDIR);
      await refused(s.replica.lookup(s.work.child("absent"), "x", new FileAttr()), ENOENT);
    },
  },
  {
    title: "nothing is made, removed or listed in a directory that is not there, or is a file",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      for (const [where, errno] of [
        [s.work.child("gone"), ENOENT],
        [s.work.child("gone").child("deeper"), ENOENT],
        [file, ENOTDIR],
        [file.child("deeper"), ENOTDIR],
      ] as const) {
        await refused(s.replica.create(where, "x", 0o644, root, null), errno);
        await refused(s.replica.mkdir(where, "x", 0o755, root, null), errno);
        await refused(s.replica.mknod(where, "x", S_IFREG | 0o644, 0, root, null), errno);
        await refused(s.replica.symlink(where, "x", "y", root, null), errno, EOPNOTSUPP);
        await refused(s.replica.link(file, where, "x", null), errno, EOPNOTSUPP);
        await refused(s.replica.unlink(where, "x"), errno);
        await refused(s.replica.rmdir(where, "x"), errno);
        await refused(s.replica.rename(where, "x", s.work, "y", 0), errno);
        await refused(s.replica.rename(s.work, "f", where, "y", 0), errno);
        await refused(s.replica.readdir(where, { names: [], types: [], inos: [] }), errno);
      }
      assert.deepEqual(await s.names(s.work), ["f"]);
    },
  },
  {
    title: "mkdir() makes an empty directory of this owner",
    run: async (s) => {
      const attr = new FileAttr();
      await ok(s.replica.mkdir(s.work, "d", 0o750, { uid: 1000, gid: 1001 }, attr));
      assert.equal(attr.mode, S_IFDIR | 0o750);
      assert.deepEqual([attr.uid, attr.gid], [1000, 1001]);
      assert.deepEqual(await s.names(s.work.child("d")), []);
    },
  },
  {
    title: "in a set-group-id directory new objects take its group, and directories the bit as well",
    needs: ["symlinks", "specialFiles"],
    run: async (s) => {
      const parent = await s.directory(s.work, "shared");
      await s.change(parent, { uid: 1000, gid: 2000, mode: 0o2775 });
      const owner = { uid: 1000, gid: 1000 };
      const attr = new FileAttr();
      await ok(s.replica.close(await ok(s.replica.create(parent, "f", 0o644, owner, attr))));
      assert.deepEqual([attr.uid, attr.gid, attr.mode & S_ISGID], [1000, 2000, 0]);
      await ok(s.replica.mkdir(parent, "d", 0o755, owner, attr));
      assert.deepEqual([attr.uid, attr.gid, attr.mode & 0o7777], [1000, 2000, 0o2755]);
      await ok(s.replica.mknod(parent, "p", S_IFIFO | 0o600, 0, owner, attr));
      assert.deepEqual([attr.uid, attr.gid], [1000, 2000]);
      await ok(s.replica.symlink(parent, "l", "f", owner, attr));
      assert.deepEqual([attr.uid, attr.gid], [1000, 2000]);
      await ok(s.replica.mkdir(parent.child("d"), "below", 0o700, owner, attr));
      assert.deepEqual([attr.uid, attr.gid, attr.mode & 0o7777], [1000, 2000, 0o2700]);
    },
  },
  {
    title: "mknod() makes FIFOs, sockets, devices with their numbers, and regular files",
    needs: ["specialFiles"],
    run: async (s) => {
      const device = (7 << 8) | (300 & 0xff) | ((300 & ~0xff) << 12);
      for (const [name, type, rdev] of [
        ["fifo", S_IFIFO, 0],
        ["socket", S_IFSOCK, 0],
        ["char", S_IFCHR, device],
        ["block", S_IFBLK, device],
        ["regular", S_IFREG, 0],
      ] as const) {
        const attr = new FileAttr();
        await ok(s.replica.mknod(s.work, name, type | 0o620, rdev, { uid: 5, gid: 6 }, attr));
        assert.deepEqual([attr.mode, attr.rdev, attr.uid, attr.gid, attr.nlink], [type | 0o620, rdev, 5, 6, 1], name);
        assert.deepEqual({ ...(await s.lookup(s.work, name)) }, { ...attr }, name);
      }
      await s.overwrite(s.work.child("regular"), "data");
      assert.equal(await s.content(s.work.child("regular")), "data");
    },
  },
  {
    title: "open() never waits on a FIFO, and refuses directories",
    needs: ["specialFiles"],
    run: async (s) => {
      await ok(s.replica.mknod(s.work, "fifo", S_IFIFO | 0o666, 0, root, null));
      for (const access of ["read", "read-write"] as const) {
        const handle = await s.replica.open(s.work.child("fifo"), access);
        if (handle >= 0) await ok(s.replica.close(handle));
      }
      await refused(s.replica.open(s.work, "read-write"), EISDIR);
    },
  },
  {
    title: "symlink() keeps the target's bytes, and the link has an owner of its own",
    needs: ["symlinks"],
    run: async (s) => {
      const attr = new FileAttr();
      const long = "x".repeat(1000);
      for (const [name, target] of [
        ["plain", "../elsewhere"],
        ["bytes", "\xff\xfe\x01 \n\xc3"],
        ["long", long],
      ] as const) {
        await ok(s.replica.symlink(s.work, name, target, { uid: 1000, gid: 1001 }, attr));
        assert.deepEqual([attr.mode & S_IFMT, attr.size, attr.uid, attr.gid], [S_IFLNK, target.length, 1000, 1001]);
        assert.equal(await s.target(s.work.child(name)), target);
      }
      const file = await s.file(s.work, "f");
      await refused(s.replica.readlink(file, Buffer.alloc(64)), EINVAL);
      await refused(s.replica.readlink(s.work, Buffer.alloc(64)), EINVAL);
      await refused(s.replica.readlink(s.work.child("absent"), Buffer.alloc(64)), ENOENT);
    },
  },
  {
    title: "link() gives a file a second name: same inode, one more link, the same content",
    needs: ["hardLinks"],
    run: async (s) => {
      const a = await s.file(s.work, "a", "shared");
      const elsewhere = await s.directory(s.work, "d");
      const attr = new FileAttr();
      await ok(s.replica.link(a, elsewhere, "b", attr));
      const b = elsewhere.child("b");
      assert.equal(attr.nlink, 2);
      assert.equal((await s.attr(a)).ino, (await s.attr(b)).ino);
      await s.overwrite(b, "SHARED");
      assert.equal(await s.content(a), "SHARED");
      await ok(s.replica.unlink(s.work, "a"));
      assert.equal((await s.attr(b)).nlink, 1);
      assert.equal(await s.content(b), "SHARED");
    },
  },
  {
    title: "link() makes a second name of a symbolic link itself and of a FIFO, and refuses directories",
    needs: ["hardLinks", "symlinks", "specialFiles"],
    run: async (s) => {
      const link = await s.symlink(s.work, "l", "f");
      await s.file(s.work, "f");
      const attr = new FileAttr();
      await ok(s.replica.link(link, s.work, "l2", attr));
      assert.deepEqual([attr.mode & S_IFMT, attr.nlink], [S_IFLNK, 2]);
      assert.equal((await s.attr(s.work.child("f"))).nlink, 1);
      await ok(s.replica.mknod(s.work, "p", S_IFIFO | 0o600, 0, root, null));
      await ok(s.replica.link(s.work.child("p"), s.work, "p2", attr));
      assert.equal(attr.nlink, 2);
      const directory = await s.directory(s.work, "d");
      await refused(s.replica.link(directory, s.work, "d2", null), EPERM, EISDIR);
      await refused(s.replica.link(s.work.child("absent"), s.work, "x", null), ENOENT);
    },
  },
  {
    title: "a file of 300 names is one file under each of them",
    needs: ["hardLinks"],
    run: async (s) => {
      const first = await s.file(s.work, "0", "x");
      for (let i = 1; i < 300; i++) await ok(s.replica.link(first, s.work, `${i}`, null));
      const { ino, nlink } = await s.attr(s.work.child("299"));
      assert.equal(nlink, 300);
      assert.ok((await s.entries(s.work)).inos.every((entry) => entry === ino));
    },
  },
  {
    title: "unlink() and rmdir() remove names of their kind only",
    run: async (s) => {
      await s.file(s.work, "f");
      const directory = await s.directory(s.work, "d");
      await s.file(directory, "inside");
      await refused(s.replica.unlink(s.work, "d"), EISDIR, EPERM);
      await refused(s.replica.rmdir(s.work, "f"), ENOTDIR);
      await refused(s.replica.rmdir(s.work, "d"), ENOTEMPTY, EEXIST);
      await refused(s.replica.unlink(s.work, "absent"), ENOENT);
      await refused(s.replica.rmdir(s.work, "absent"), ENOENT);
      await ok(s.replica.unlink(directory, "inside"));
      await ok(s.replica.rmdir(s.work, "d"));
      await ok(s.replica.unlink(s.work, "f"));
      assert.deepEqual(await s.names(s.work), []);
      await refused(s.replica.getattr(directory, new FileAttr()), ENOENT);
    },
  },
  {
    title: "unlink() of a symbolic link removes the link, and rmdir() does not follow one",
    needs: ["symlinks"],
    run: async (s) => {
      await s.file(s.work, "f", "kept");
      await s.directory(s.work, "d");
      await s.symlink(s.work, "to-f", "f");
      await s.symlink(s.work, "to-d", "d");
      await refused(s.replica.rmdir(s.work, "to-d"), ENOTDIR);
      await ok(s.replica.unlink(s.work, "to-f"));
      await ok(s.replica.unlink(s.work, "to-d"));
      assert.deepEqual(await s.names(s.work), ["d", "f"]);
    },
  },
  {
    title: "what was unlinked and made again is new",
    run: async (s) => {
      const place = await s.file(s.work, "a", "old");
      assert.equal(await s.content(place), "old");
      await ok(s.replica.unlink(s.work, "a"));
      await s.file(s.work, "a", "new!");
      assert.equal(await s.content(place), "new!");
      await ok(s.replica.unlink(s.work, "a"));
      await s.directory(s.work, "a");
      assert.equal((await s.attr(place)).mode & S_IFMT, S_IFDIR);
    },
  },
  {
    title: "readdir() lists each of 5,000 entries once, with its inode and type, without . and ..",
    run: async (s) => {
      const many = await s.directory(s.work, "many");
      const expected: string[] = [];
      for (let i = 0; i < 5000; i++) {
        const name = `entry-${i}-${"n".repeat(i % 90)}`;
        expected.push(name);
        if (i % 100 === 0) await ok(s.replica.mkdir(many, name, 0o755, root, null));
        else await ok(s.replica.mknod(many, name, S_IFREG | 0o644, 0, root, null));
      }
      const { names, types, inos } = await s.entries(many);
      assert.equal(types.length, names.length);
      assert.equal(inos.length, names.length);
      assert.deepEqual([...names].sort(), expected.sort());
      for (let i = 0; i < names.length; i += 499) {
        const attr = await s.lookup(many, names[i] as string);
        assert.equal(inos[i], attr.ino);
        assert.ok(types[i] === 0 || types[i] === (attr.mode & S_IFMT));
      }
    },
  },
  {
    title: "readdir() refuses what is no directory",
    run: async (s) => {
      await s.file(s.work, "b");
      const into = { names: [], types: [], inos: [] };
      await refused(s.replica.readdir(s.work.child("b"), into), ENOTDIR);
      await refused(s.replica.readdir(s.work.child("absent"), into), ENOENT);
    },
  },
  {
    title: "names are bytes: every one but / and NUL comes back as it was given",
    run: async (s) => {
      const names = ["\xff\xfe\x80", "\xc3", "caf\xe9", "caf\xc3\xa9", " ", "\n", "\\", "*?[", "-rf", "...", ".hidden"];
      for (let byte = 1; byte < 256; byte++) if (byte !== 0x2f) names.push(`b${String.fromCharCode(byte)}`);
      for (const name of names) {
        await s.file(s.work, name, name);
        assert.equal(await s.content(s.work.child(name)), name);
      }
      assert.deepEqual(await s.names(s.work), [...names].sort());
      for (const name of names) await ok(s.replica.rename(s.work, name, s.work, `${name}\xf0`, 0));
      for (const name of names) await ok(s.replica.unlink(s.work, `${name}\xf0`));
    },
  },
  {
    title: "a name has up to 255 bytes, and more is ENAMETOOLONG",
    run: async (s) => {
      const limit = s.capabilities.maxNameBytes;
      assert.ok(limit <= 255);
      const longest = "\xe9".repeat(limit);
      const tooLong = `${longest}x`;
      await s.file(s.work, longest, "content");
      assert.equal(await s.content(s.work.child(longest)), "content");
      await ok(s.replica.rename(s.work, longest, s.work, "n".repeat(limit), 0));
      await refused(s.replica.create(s.work, tooLong, 0o644, root, null), ENAMETOOLONG);
      await refused(s.replica.mkdir(s.work, tooLong, 0o755, root, null), ENAMETOOLONG);
      await refused(s.replica.lookup(s.work, tooLong, new FileAttr()), ENAMETOOLONG);
      await refused(s.replica.rename(s.work, "n".repeat(limit), s.work, tooLong, 0), ENAMETOOLONG);
      assert.deepEqual(await s.names(s.work), ["n".repeat(limit)]);
    },
  },
];
