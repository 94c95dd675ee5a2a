/** Names, attributes and extended attributes, looked at with node's own calls and with coreutils. */
import assert from "node:assert/strict";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  EEXIST,
  EISDIR,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EOPNOTSUPP,
  EPERM,
  ERANGE,
  EXDEV,
} from "../util/errno.ts";
import { FileAttr, S_IFIFO, S_IFREG } from "../util/file-attr.ts";
import {
  AT_EMPTY_PATH,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TMPFILE,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  XATTR_CREATE,
  XATTR_REPLACE,
} from "./constants.ts";
import { decodeEntries, type Entries, getdents } from "./directories.ts";
import { close, open, openat, openat2, pwrite } from "./files.ts";
import {
  fchmod,
  fchmodat,
  fchmodatByProc,
  fchownat,
  KEEP_ID,
  linkat,
  mkdirat,
  mknodat,
  readlinkat,
  renameat2,
  rmdirat,
  symlinkat,
  umask,
  unlinkat,
  utimensat,
} from "./names.ts";
import { exists } from "./stat.ts";
import { statxBelow } from "./statx.ts";
import { getxattrat, listxattrat, removexattrat, setxattrat, useXattrAtCalls } from "./xattr.ts";

const base = mkdtempSync(join(tmpdir(), "chiron-names-"));
after(() => rmSync(base, { recursive: true }));
const isRoot = process.getuid?.() === 0;
let count = 0;

/** A directory of its own for each test. */
function fresh(): { readonly fd: number; readonly path: string } {
  const path = join(base, `${count++}`);
  mkdirSync(path);
  const fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  after(() => close(fd));
  return { fd, path };
}

function list(fd: number): Entries {
  const entries: Entries = { names: [], types: [], inos: [] };
  const own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  while (getdents(own, entries) > 0);
  close(own);
  return entries;
}

test("names are made, moved, linked and removed relative to a directory", () => {
  const { fd, path } = fresh();
  writeFileSync(join(path, "a"), "content");
  assert.equal(linkat(fd, "a", fd, "b"), 0);
  assert.equal(lstatSync(join(path, "b")).nlink, 2);
  assert.equal(mkdirat(fd, "d", 0o700), 0);
  const below = openat(fd, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);
  assert.equal(renameat2(fd, "b", below, "c", 0), 0);
  assert.equal(readFileSync(join(path, "d/c"), "utf8"), "content");
  assert.equal(renameat2(fd, "a", below, "c", RENAME_NOREPLACE), -EEXIST);
  assert.equal(mknodat(fd, "other", S_IFREG | 0o600, 0), 0);
  assert.equal(renameat2(fd, "other", below, "c", RENAME_EXCHANGE), 0);
  assert.equal(readFileSync(join(path, "other"), "utf8"), "content");
  assert.equal(rmdirat(fd, "d"), -ENOTEMPTY);
  assert.equal(unlinkat(below, "c"), 0);
  assert.equal(unlinkat(fd, "d"), -EISDIR);
  assert.equal(rmdirat(fd, "other"), -ENOTDIR);
  assert.equal(rmdirat(fd, "d"), 0);
  assert.equal(exists(fd, "d"), -ENOENT);
  assert.deepEqual(readdirSync(path).sort(), ["a", "other"]);
  close(below);
});

test("a link's target is bytes, and is read up to the room there is", () => {
  const { fd, path } = fresh();
  const target = "\xff../\xe9\x01";
  assert.equal(symlinkat(target, fd, "link"), 0);
  assert.equal(readlinkSync(join(path, "link"), "buffer").toString("latin1"), target);
  const into = Buffer.alloc(100);
  assert.equal(readlinkat(fd, "link", into), target.length);
  assert.equal(into.toString("latin1", 0, target.length), target);
  assert.equal(readlinkat(fd, "link", into.subarray(0, 3)), 3);
});

test("openat2 leaves no directory upwards, by a link, or across a mount", () => {
  const { fd, path } = fresh();
  mkdirSync(join(path, "d"));
  assert.equal(symlinkat("d", fd, "inside"), 0);
  assert.equal(symlinkat("/etc", fd, "outside"), 0);
  const below = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const opened = openat2(fd, "d", O_PATH | O_CLOEXEC, 0, below);
  assert.ok(opened >= 0);
  close(opened);
  assert.equal(openat2(fd, "d/../..", O_PATH | O_CLOEXEC, 0, below), -EXDEV);
  assert.equal(openat2(fd, "/etc", O_PATH | O_CLOEXEC, 0, below), -EXDEV);
  assert.equal(openat2(fd, "outside/passwd", O_RDONLY | O_CLOEXEC, 0, below), -ELOOP);
  assert.equal(openat2(fd, "inside/x", O_RDONLY | O_CLOEXEC, 0, below), -ELOOP);
  const root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  assert.equal(openat2(root, "proc/self", O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_NO_XDEV), -EXDEV);
  assert.equal(statxBelow(root, "proc", new FileAttr()), -EXDEV);
  close(root);
});

test("mode, owner and times change what is named, never what a link leads to", () => {
  const { fd, path } = fresh();
  writeFileSync(join(path, "f"), "");
  assert.equal(symlinkat("f", fd, "link"), 0);
  const mode = () => lstatSync(join(path, "f")).mode & 0o7777;
  assert.equal(fchmodat(fd, "f", 0o6750), 0);
  assert.equal(mode(), 0o6750);
  assert.equal(fchmodatByProc(fd, "f", 0o604), 0);
  assert.equal(mode(), 0o604);
  assert.equal(fchmodat(fd, "link", 0o777), -EOPNOTSUPP);
  assert.equal(fchmodatByProc(fd, "link", 0o777), -EOPNOTSUPP);
  assert.equal(mode(), 0o604);
  const pathOnly = openat(fd, "f", O_PATH | O_CLOEXEC);
  assert.equal(fchmodat(pathOnly, "", 0o611), 0);
  assert.equal(mode(), 0o611);
  assert.equal(fchmodatByProc(pathOnly, "", 0o612), 0);
  assert.equal(mode(), 0o612);

  const time = { seconds: 1_000_000_000, nsec: 5 };
  const before = lstatSync(join(path, "f"), { bigint: true });
  assert.equal(utimensat(fd, "link", undefined, time), 0);
  assert.equal(lstatSync(join(path, "f"), { bigint: true }).mtimeNs, before.mtimeNs);
  assert.equal(lstatSync(join(path, "link"), { bigint: true }).mtimeNs, 1_000_000_000_000_000_005n);
  assert.equal(utimensat(pathOnly, "", undefined, time), 0);
  const changed = lstatSync(join(path, "f"), { bigint: true });
  assert.deepEqual([changed.mtimeNs, changed.atimeNs], [1_000_000_000_000_000_005n, before.atimeNs]);
  if (isRoot) {
    assert.equal(fchownat(fd, "link", 7, KEEP_ID), 0);
    assert.equal(fchownat(pathOnly, "", KEEP_ID, 4_000_000_000), 0);
    const [file, link] = [lstatSync(join(path, "f")), lstatSync(join(path, "link"))];
    assert.deepEqual([file.uid, file.gid, link.uid, link.gid], [0, 4_000_000_000, 7, 0]);
  }
  close(pathOnly);
  const real = openat(fd, "f", O_RDWR | O_CLOEXEC);
  assert.equal(fchmod(real, 0o600), 0);
  assert.equal(utimensat(real, "", time, undefined), 0);
  assert.equal(mode(), 0o600);
  assert.equal(lstatSync(join(path, "f"), { bigint: true }).atimeNs, 1_000_000_000_000_000_005n);
  close(real);
});

test("the umask is the process's, and comes back", () => {
  const { fd, path } = fresh();
  const before = umask(0o077);
  mkdirat(fd, "masked", 0o777);
  assert.equal(umask(0), 0o077);
  mkdirat(fd, "open", 0o777);
  assert.equal(umask(before), 0);
  assert.equal(process.umask(), before);
  assert.equal(lstatSync(join(path, "masked")).mode & 0o777, 0o700);
  assert.equal(lstatSync(join(path, "open")).mode & 0o777, 0o777);
});

test("a file without a name gets one later", (t) => {
  const { fd, path } = fresh();
  const file = openat(fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0o600);
  if (file === -EOPNOTSUPP || file === -EISDIR) return t.skip("no O_TMPFILE here");
  assert.ok(file >= 0);
  pwrite(file, Buffer.from("later"), 0);
  assert.deepEqual(readdirSync(path), []);
  const linked = linkat(file, "", fd, "named", AT_EMPTY_PATH);
  if (linked !== -ENOENT) assert.equal(readFileSync(join(path, "named"), "utf8"), "later"); // CAP_DAC_READ_SEARCH
  close(file);
});

test("directories are listed with byte names, types and inode numbers", () => {
  const { fd, path } = fresh();
  const names = ["\xff\x80", "caf\xe9", "x".repeat(255), ".hidden", "..."];
  for (const name of names) close(openat(fd, name, O_CREAT | O_RDWR | O_CLOEXEC, 0o600));
  for (let i = 0; i < 3000; i++) mknodat(fd, `fifo-${i}`, S_IFIFO | 0o600, 0);
  const entries = list(fd);
  assert.equal(entries.names.length, 3005);
  assert.equal(new Set(entries.names).size, 3005);
  for (const name of names) {
    const at = entries.names.indexOf(name);
    const real = lstatSync(Buffer.concat([Buffer.from(`${path}/`), Buffer.from(name, "latin1")]));
    assert.equal(entries.inos[at], real.ino);
    assert.equal(entries.types[at], S_IFREG);
  }
  assert.equal(entries.types[entries.names.indexOf("fifo-7")], S_IFIFO);
});

test("decodeEntries() stops a name at its NUL, whatever bytes the padding holds", () => {
  const buffer = Buffer.alloc(56, 0xaa);
  for (const [at, ino, name] of [
    [0, 5, "abc"],
    [24, 6, "0123456789ab"],
  ] as const) {
    buffer.writeBigUInt64LE(BigInt(ino), at); // d_ino
    buffer.writeBigUInt64LE(99n, at + 8); // d_off
    buffer.writeUInt16LE(at === 0 ? 24 : 32, at + 16); // d_reclen
    buffer.writeUInt8(8, at + 18); // d_type: DT_REG
    buffer.write(`${name}\0`, at + 19, "latin1");
  }
  const entries: Entries = { names: [], types: [], inos: [] };
  decodeEntries(buffer, new Uint32Array(buffer.buffer, buffer.byteOffset, 14), 56, entries);
  assert.deepEqual(entries, { names: ["abc", "0123456789ab"], types: [S_IFREG, S_IFREG], inos: [5, 6] });
});

for (const atCalls of [true, false]) {
  const how = atCalls ? "" : ", as kernels before 6.13 do it";
  test(`extended attributes of files, directories and links themselves${how}`, (t) => {
    useXattrAtCalls(atCalls);
    const { fd, path } = fresh();
    writeFileSync(join(path, "f"), "");
    symlinkat("f", fd, "link");
    const value = Uint8Array.of(0, 255, 10);
    if (setxattrat(fd, "f", "user.a", value, 0) === -EOPNOTSUPP) return t.skip("no user xattrs here");
    const into = Buffer.alloc(16);
    assert.equal(getxattrat(fd, "f", "user.a", into), 3);
    assert.deepEqual([...into.subarray(0, 3)], [...value]);
    assert.equal(getxattrat(fd, "f", "user.a", new Uint8Array(0)), 3);
    assert.equal(getxattrat(fd, "f", "user.a", into.subarray(0, 2)), -ERANGE);
    assert.equal(getxattrat(fd, "f", "user.b", into), -ENODATA);
    assert.equal(setxattrat(fd, "f", "user.a", value, XATTR_CREATE), -EEXIST);
    assert.equal(setxattrat(fd, "f", "user.b", value, XATTR_REPLACE), -ENODATA);
    assert.equal(setxattrat(fd, "", "user.root", value, 0), 0);
    assert.equal(getxattrat(fd, "", "user.root", into), 3);
    assert.equal(setxattrat(fd, "link", "user.a", value, 0), -EPERM); // users' attributes are for files and directories
    assert.equal(getxattrat(fd, "link", "user.a", into) < 0, true);
    if (isRoot) {
      const link = openat(fd, "link", O_PATH | O_NOFOLLOW | O_CLOEXEC);
      assert.equal(setxattrat(link, "", "trusted.l", value, 0), 0);
      close(link);
      assert.equal(getxattrat(fd, "link", "trusted.l", into), 3);
      assert.equal(getxattrat(fd, "f", "trusted.l", into), -ENODATA);
      const bytes = listxattrat(fd, "link", into);
      assert.equal(into.toString("latin1", 0, bytes), "trusted.l\0");
    }
    assert.equal(removexattrat(fd, "f", "user.a"), 0);
    assert.equal(removexattrat(fd, "f", "user.a"), -ENODATA);
  });
}
