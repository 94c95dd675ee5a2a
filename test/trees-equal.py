#!/usr/bin/env python3
"""Compares trees, byte for byte and attribute for attribute, without a line of Chiron's own code.

    test/trees-equal.py [options] TREE TREE...

Compares the first tree with each other one: names, types, contents, modes, owners, modification times to the
nanosecond, extended attributes, hard-link topology, symbolic links' targets, device numbers, and holes. `.chiron` at
the top is left out. Prints one line for each difference; exit status 0: equal, 1: different, 2: could not compare.

Holes: file systems allocate differently, so a difference counts where one copy has at least 64 KiB of zeros on disk
that are a hole in the other (--holes strict: any difference; --holes off: none).
"""

import argparse
import errno
import os
import stat
import sys

BLOCK = 1 << 20
BIG_HOLE = 64 << 10
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Tree:
    """One tree: what is where, by path, and which paths are one file."""

    def __init__(self, root, options):
        self.root = os.fsencode(root)
        self.objects = {}  # path below the root (bytes) -> lstat
        self.links = {}  # (dev, ino) -> paths
        self.options = options
        top = os.lstat(self.root)
        if not stat.S_ISDIR(top.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "is no directory", root)
        self.objects[b""] = top
        self._walk()

    def _walk(self):
        stack = [b""]
        while stack:
            path = stack.pop()
            fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                for name in os.listdir(fd):
                    name = os.fsencode(name)
                    if path == b"" and name == b".chiron":
                        continue
                    below = path + b"/" + name if path else name
                    if below in self.options.exclude:
                        continue
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    self.objects[below] = info
                    if stat.S_ISDIR(info.st_mode):
                        stack.append(below)
                    elif info.st_nlink > 1:
                        self.links.setdefault((info.st_dev, info.st_ino), []).append(below)
            finally:
                os.close(fd)

    def parent(self, path):
        """A descriptor of the directory that holds this path, and the last name. One step at a time: a tree may be
        deeper than a path can be long, and no symbolic link is to be followed."""
        *directories, name = path.split(b"/") if path else [b"."]
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = os.open(self.root, flags)
        for directory in directories:
            following = os.open(directory, flags, dir_fd=fd)
            os.close(fd)
            fd = following
        return fd, name

    def open(self, path, flags=os.O_RDONLY | os.O_NOFOLLOW):
        fd, name = self.parent(path)
        try:
            return os.open(name, flags | os.O_NOATIME, dir_fd=fd)
        finally:
            os.close(fd)

    def target(self, path):
        fd, name = self.parent(path)
        try:
            return os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)

    def xattrs(self, path):
        fd, name = self.parent(path)
        try:
            # Without following, and for special files without opening: /proc/self/fd leads to the very directory.
            place = b"/proc/self/fd/%d/%s" % (fd, name)
            found = {}
            for attribute in os.listxattr(place, follow_symlinks=False):
                if attribute in self.options.ignore_xattr:
                    continue
                found[attribute] = os.getxattr(place, attribute, follow_symlinks=False)
            return found
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EPERM):
                return {}
            raise
        finally:
            os.close(fd)


def show(path):
    return "/" + "".join(chr(b) if 32 <= b < 127 and b != 92 else "\\x%02x" % b for b in path)


def data_map(fd, size):
    """Where the data are, as (start, end) pairs; everything if the file system cannot tell."""
    ranges, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return [(0, size)]
        at = os.lseek(fd, start, os.SEEK_HOLE)
        ranges.append((start, min(at, size)))
    return ranges


def merge(x, y):
    """What either covers."""
    merged = []
    for start, end in sorted(x + y):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def minus(x, y):
    """What the first covers and the second does not."""
    y = iter(y)
    hole = next(y, None)
    for start, end in x:
        while start < end:
            while hole is not None and hole[1] <= start:
                hole = next(y, None)
            if hole is None or hole[0] >= end:
                yield start, end
                break
            if hole[0] > start:
                yield start, hole[0]
            start = hole[1]


class Comparison:
    def __init__(self, a, b, options):
        self.a, self.b, self.options = a, b, options
        self.count = 0
        self.bytes = 0

    def differ(self, path, what):
        self.count += 1
        if self.count <= self.options.limit:
            print("%s: %s" % (show(path), what))

    def run(self):
        a, b = self.a.objects, self.b.objects
        for path in sorted(set(a) | set(b)):
            if path not in b:
                self.missing(path, self.b, a)
            elif path not in a:
                self.missing(path, self.a, b)
            else:
                self.object(path, a[path], b[path])
        self.topology()

    def missing(self, path, where, other):
        directory = path.rsplit(b"/", 1)[0] if b"/" in path else b""
        if directory in where.objects:  # otherwise its directory has been named already
            kind = TYPES.get(stat.S_IFMT(other[path].st_mode), "object")
            self.differ(path, "%s is missing in %s" % (kind, os.fsdecode(where.root)))

    def object(self, path, x, y):
        kind, other = stat.S_IFMT(x.st_mode), stat.S_IFMT(y.st_mode)
        if kind != other:
            self.differ(path, "%s <> %s" % (TYPES.get(kind, kind), TYPES.get(other, other)))
            return
        if x.st_mode != y.st_mode:
            self.differ(path, "mode %04o <> %04o" % (stat.S_IMODE(x.st_mode), stat.S_IMODE(y.st_mode)))
        if (x.st_uid, x.st_gid) != (y.st_uid, y.st_gid):
            self.differ(path, "owner %d:%d <> %d:%d" % (x.st_uid, x.st_gid, y.st_uid, y.st_gid))
        # The root's own time tells when `.chiron` was made in it, which is each tree's own affair.
        if self.options.times and path and x.st_mtime_ns != y.st_mtime_ns:
            self.differ(path, "mtime %s <> %s" % tuple("%d.%09d" % divmod(t, 10**9) for t in (x.st_mtime_ns, y.st_mtime_ns)))
        if kind != stat.S_IFDIR and x.st_nlink != y.st_nlink:
            self.differ(path, "%d links <> %d links" % (x.st_nlink, y.st_nlink))
        if self.options.xattrs:
            self.xattrs(path)
        if kind == stat.S_IFLNK:
            targets = self.a.target(path), self.b.target(path)
            if targets[0] != targets[1]:
                self.differ(path, "target %r <> %r" % targets)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if x.st_rdev != y.st_rdev:
                numbers = tuple(f(s.st_rdev) for s in (x, y) for f in (os.major, os.minor))
                self.differ(path, "device %d:%d <> %d:%d" % numbers)
        elif kind == stat.S_IFREG:
            if x.st_size != y.st_size:
                self.differ(path, "size %d <> %d" % (x.st_size, y.st_size))
            else:
                self.content(path, x.st_size)

    def xattrs(self, path):
        x, y = self.a.xattrs(path), self.b.xattrs(path)
        for name in sorted(set(x) | set(y)):
            if x.get(name) != y.get(name):
                values = tuple("absent" if v is None else repr(v) for v in (x.get(name), y.get(name)))
                self.differ(path, "xattr %s: %s <> %s" % ((name,) + values))

    def content(self, path, size):
        fd_a, fd_b = self.a.open(path), -1
        try:
            fd_b = self.b.open(path)
            map_a, map_b = data_map(fd_a, size), data_map(fd_b, size)
            for start, end in merge(map_a, map_b):  # where both have holes, both read as zeros
                if not self.same(path, fd_a, fd_b, start, end):
                    return
            if self.options.holes != "off":
                self.holes(path, fd_a, minus(map_a, map_b), self.b)
                self.holes(path, fd_b, minus(map_b, map_a), self.a)
        finally:
            os.close(fd_a)
            if fd_b >= 0:
                os.close(fd_b)

    def same(self, path, fd_a, fd_b, start, end):
        while start < end:
            x = os.pread(fd_a, min(BLOCK, end - start), start)
            y = os.pread(fd_b, min(BLOCK, end - start), start)
            self.bytes += len(x)
            if x != y:
                at = next((i for i in range(min(len(x), len(y))) if x[i] != y[i]), min(len(x), len(y)))
                self.differ(path, "content differs from byte %d on: %r <> %r" % (start + at, x[at : at + 16], y[at : at + 16]))
                return False
            if not x:
                return True
            start += len(x)
        return True

    def holes(self, path, fd, ranges, other):
        """`ranges` are data here and a hole in the other copy; both read as zeros, or `same` had told."""
        least = 1 if self.options.holes == "strict" else BIG_HOLE
        for start, end in ranges:
            if end - start >= least:
                self.differ(path, "bytes %d to %d are zeros on disk here, a hole in %s" % (start, end, os.fsdecode(other.root)))

    def topology(self):
        """Names of one file in one tree must be names of one file in the other."""
        def groups(tree):
            return {tuple(sorted(paths)) for paths in tree.links.values() if len(paths) > 1}

        a, b = groups(self.a), groups(self.b)
        for group in sorted(a - b):
            self.differ(group[0], "one file with %s in %s only" % (", ".join(map(show, group[1:])), os.fsdecode(self.a.root)))
        for group in sorted(b - a):
            self.differ(group[0], "one file with %s in %s only" % (", ".join(map(show, group[1:])), os.fsdecode(self.b.root)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="TREE")
    parser.add_argument("--holes", choices=("big", "strict", "off"), default="big", help="see above")
    parser.add_argument("--no-times", dest="times", action="store_false", help="leave modification times out")
    parser.add_argument("--no-xattrs", dest="xattrs", action="store_false", help="leave extended attributes out")
    parser.add_argument("--ignore-xattr", action="append", default=[], metavar="NAME")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATH", type=os.fsencode, help="below the root")
    parser.add_argument("--limit", type=int, default=100, help="print at most so many differences of two trees")
    parser.add_argument("--quiet", action="store_true", help="only differences")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    if len(options.trees) < 2:
        parser.error("two trees at least")
    try:
        trees = [Tree(root, options) for root in options.trees]
        different = 0
        for other in trees[1:]:
            comparison = Comparison(trees[0], other, options)
            comparison.run()
            different += comparison.count
            names = "%s and %s" % (os.fsdecode(trees[0].root), os.fsdecode(other.root))
            if comparison.count > options.limit:
                print("... %d more" % (comparison.count - options.limit))
            if comparison.count:
                print("%s: %d differences" % (names, comparison.count))
            elif not options.quiet:
                print("%s are equal: %d objects, %d bytes compared" % (names, len(trees[0].objects), comparison.bytes))
    except OSError as error:
        print("trees-equal: %s" % error, file=sys.stderr)
        return 2
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
