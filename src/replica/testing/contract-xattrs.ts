/** Rules on extended attributes and POSIX ACLs. */
import assert from "node:assert/strict";
import { XATTR_CREATE, XATTR_REPLACE } from "../../posix/constants.ts";
import { EEXIST, ENODATA, ENOENT, EOPNOTSUPP, ERANGE } from "../../util/errno.ts";
import { FileAttr } from "../../util/file-attr.ts";
import type { Rule } from "./contract.ts";
import { bytes, ok, refused, root } from "./subject.ts";

/** The kernel's form of an ACL: version 2, then tag, permissions and id of each entry. */
function acl(...entries: readonly (readonly [tag: number, permissions: number, id?: number])[]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2, 0);
  entries.forEach(([tag, permissions, id = 0xffffffff], index) => {
    bytes.writeUInt16LE(tag, 4 + 8 * index);
    bytes.writeUInt16LE(permissions, 6 + 8 * index);
    bytes.writeUInt32LE(id, 8 + 8 * index);
  });
  return bytes;
}
const ACL_USER_OBJ = 0x01;
const ACL_USER = 0x02;
const ACL_GROUP_OBJ = 0x04;
const ACL_MASK = 0x10;
const ACL_OTHER = 0x20;

export const xattrRules: readonly Rule[] = [
  {
    title: "extended attributes keep any bytes, empty values too, on files and directories",
    needs: ["userXattrs"],
    run: async (s) => {
      const every = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i));
      for (const object of [await s.file(s.work, "f"), await s.directory(s.work, "d")]) {
        assert.deepEqual(await s.xattrNames(object), []);
        await ok(s.replica.setxattr(object, "user.a", bytes(every), 0));
        await ok(s.replica.setxattr(object, "user.empty", new Uint8Array(0), 0));
        await ok(s.replica.setxattr(object, "user.caf\xe9", bytes("1"), 0));
        assert.equal(await s.xattr(object, "user.a"), every);
        assert.equal(await s.xattr(object, "user.empty"), "");
        assert.deepEqual(await s.xattrNames(object), ["user.a", "user.caf\xe9", "user.empty"]);
        await ok(s.replica.setxattr(object, "user.a", bytes("shorter"), 0));
        assert.equal(await s.xattr(object, "user.a"), "shorter");
        await ok(s.replica.removexattr(object, "user.a"));
        assert.deepEqual(await s.xattrNames(object), ["user.caf\xe9", "user.empty"]);
      }
    },
  },
  {
    title: "reading an extended attribute into too little room answers ERANGE, into none its length",
    needs: ["userXattrs"],
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await ok(s.replica.setxattr(file, "user.a", bytes("12345"), 0));
      assert.equal(await ok(s.replica.getxattr(file, "user.a", new Uint8Array(0))), 5);
      await refused(s.replica.getxattr(file, "user.a", new Uint8Array(4)), ERANGE);
      assert.equal(await ok(s.replica.getxattr(file, "user.a", new Uint8Array(100))), 5);
      assert.equal(await ok(s.replica.listxattr(file, new Uint8Array(0))), 7);
      await refused(s.replica.listxattr(file, new Uint8Array(3)), ERANGE);
    },
  },
  {
    title: "XATTR_CREATE and XATTR_REPLACE, and what is absent",
    needs: ["userXattrs"],
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await refused(s.replica.setxattr(file, "user.a", bytes("1"), XATTR_REPLACE), ENODATA);
      await ok(s.replica.setxattr(file, "user.a", bytes("1"), XATTR_CREATE));
      await refused(s.replica.setxattr(file, "user.a", bytes("2"), XATTR_CREATE), EEXIST);
      await ok(s.replica.setxattr(file, "user.a", bytes("3"), XATTR_REPLACE));
      assert.equal(await s.xattr(file, "user.a"), "3");
      await refused(s.replica.getxattr(file, "user.b", new Uint8Array(9)), ENODATA);
      await refused(s.replica.removexattr(file, "user.b"), ENODATA);
      await refused(s.replica.getxattr(s.work.child("absent"), "user.a", new Uint8Array(9)), ENOENT);
      await refused(s.replica.setxattr(s.work.child("absent"), "user.a", bytes("1"), 0), ENOENT);
    },
  },
  {
    title: "an unknown namespace is EOPNOTSUPP",
    run: async (s) => {
      const file = await s.file(s.work, "f");
      await refused(s.replica.setxattr(file, "nonsense.a", bytes("1"), 0), EOPNOTSUPP);
      if (s.capabilities.userXattrs) return;
      await refused(s.replica.setxattr(file, "user.a", bytes("1"), 0), EOPNOTSUPP);
      await refused(s.replica.getxattr(file, "user.a", new Uint8Array(9)), EOPNOTSUPP, ENODATA);
    },
  },
  {
    title: "extended attributes of a symbolic link are its own",
    needs: ["symlinks", "userXattrs"],
    run: async (s) => {
      const file = await s.file(s.work, "f");
      const link = await s.symlink(s.work, "l", "f");
      await ok(s.replica.setxattr(file, "user.a", bytes("of the file"), 0));
      await refused(s.replica.setxattr(link, "user.a", bytes("1"), 0)); // Linux: EPERM
      await refused(s.replica.getxattr(link, "user.a", new Uint8Array(32)));
      assert.equal(await s.xattr(file, "user.a"), "of the file");
      if (!s.capabilities.rootXattrs) return;
      await ok(s.replica.setxattr(link, "trusted.a", bytes("of the link"), 0));
      assert.equal(await s.xattr(link, "trusted.a"), "of the link");
      assert.deepEqual(await s.xattrNames(file), ["user.a"]);
    },
  },
  {
    title: "an ACL is kept, and its mask is the group bits of the mode",
    needs: ["acls"],
    run: async (s) => {
      const file = await s.file(s.work, "f");
      const value = acl([ACL_USER_OBJ, 6], [ACL_USER, 4, 1000], [ACL_GROUP_OBJ, 0], [ACL_MASK, 4], [ACL_OTHER, 0]);
      await ok(s.replica.setxattr(file, "system.posix_acl_access", value, 0));
      assert.equal(await s.xattr(file, "system.posix_acl_access"), value.toString("latin1"));
      assert.equal((await s.attr(file)).mode & 0o777, 0o640);
    },
  },
  {
    title: "a directory's default ACL goes to what is made in it, and limits its mode",
    needs: ["acls"],
    run: async (s) => {
      const directory = await s.directory(s.work, "d");
      const value = acl([ACL_USER_OBJ, 7], [ACL_USER, 7, 1000], [ACL_GROUP_OBJ, 5], [ACL_MASK, 5], [ACL_OTHER, 0]);
      await ok(s.replica.setxattr(directory, "system.posix_acl_default", value, 0));
      const attr = new FileAttr();
      const owner = { uid: 1000, gid: 1000 };
      await ok(s.replica.close(await ok(s.replica.create(directory, "f", 0o666, owner, attr))));
      assert.deepEqual([attr.mode & 0o7777, attr.uid], [0o640, 1000]);
      await ok(s.replica.mkdir(directory, "sub", 0o777, root, attr));
      assert.equal(attr.mode & 0o7777, 0o750);
      assert.equal(await s.xattr(directory.child("sub"), "system.posix_acl_default"), value.toString("latin1"));
      assert.ok((await s.xattrNames(directory.child("f"))).includes("system.posix_acl_access"));
    },
  },
];
