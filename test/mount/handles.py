#!/usr/bin/env python3
"""Holds on to much of a mount while what serves it is killed or changes hands, and checks that it all stays what it was.

    handles.py DIRECTORY ENTRIES

Prints "ready", then for each line of input does its checks and prints "well"; ends at the end of its input.
"""
import ctypes
import fcntl
import mmap
import os
import random
import subprocess
import sys

directory, count = sys.argv[1], int(sys.argv[2])
os.chdir(directory)
libc = ctypes.CDLL(None, use_errno=True)
draw = random.Random(1)

# Without a name.
removed = os.open("removed", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.write(removed, b"still here")
os.unlink("removed")
replaced = os.open("replaced", os.O_RDWR | os.O_CREAT)
os.write(replaced, b"the old one")
with open("new", "w") as file:
    file.write("the new one")
os.rename("new", "replaced")
unnamed = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(unnamed, b"never had a name")
appended = os.open("appended", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
inodes = {fd: os.fstat(fd).st_ino for fd in (removed, replaced, unnamed, appended)}
# Mapped.
mapped = os.open("mapped", os.O_RDWR | os.O_CREAT)
os.ftruncate(mapped, 1 << 20)
area = mmap.mmap(mapped, 1 << 20)
# Locked.
locks = [os.open(name, os.O_RDWR | os.O_CREAT) for name in ("flock", "lockf")]
fcntl.flock(locks[0], fcntl.LOCK_EX)
fcntl.lockf(locks[1], fcntl.LOCK_EX, 10, 5)
# Watched by nobody: a directory that is read slowly. Entries that stay, and others that come and go.
os.mkdir("many")
for i in range(count):
    os.mknod("many/stays-%d" % i)
moves = set()


class Reader:
    """opendir, and again and again some entries, a telldir, a seekdir back to it."""

    def __init__(self):
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir64.restype = ctypes.c_void_p
        libc.readdir64.argtypes = libc.telldir.argtypes = [ctypes.c_void_p]
        libc.telldir.restype = ctypes.c_long
        libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
        self.handle = libc.opendir(b"many")
        self.seen = []
        self.done = False

    def next(self):
        """The next one of those that stay; None at the end."""
        while True:
            entry = libc.readdir64(self.handle)
            name = ctypes.string_at(entry + 19).decode() if entry else None
            if name is None or name.startswith("stays-"):
                return name

    def some(self, number):
        for _ in range(number):
            name = self.next()
            if name is None:
                self.done = True
                return
            self.seen.append(name)
        place = libc.telldir(self.handle)
        following = [self.next() for _ in range(20)]
        libc.seekdir(self.handle, place)
        assert [self.next() for _ in range(20)] == following, "seekdir leads elsewhere"
        self.seen += [name for name in following if name is not None]


reader = Reader()
rounds = 0
record = b""
print("ready", flush=True)
for line in sys.stdin:
    rounds += 1
    # Entries come and go while the directory is read.
    for _ in range(50):
        name = "many/moves-%d" % draw.randrange(500)
        if name in moves:
            os.unlink(name)
            moves.remove(name)
        else:
            os.mknod(name)
            moves.add(name)
    reader.some(count // 12)
    assert os.fstat(removed).st_nlink == 0 and os.fstat(unnamed).st_nlink == 0
    assert os.pread(removed, 100, 0) == b"still here", "a removed file"
    assert os.pread(replaced, 100, 0) == b"the old one", "a replaced file"
    assert os.pread(unnamed, 100, 0) == b"never had a name", "a file without a name"
    assert open("replaced").read() == "the new one"
    for fd, ino in inodes.items():
        assert os.fstat(fd).st_ino == ino, "an inode number has changed"
    record += b"round %d\n" % rounds
    os.write(appended, b"round %d\n" % rounds)
    os.fsync(appended)
    assert open("appended", "rb").read() == record, "O_APPEND"
    area[4096 * rounds : 4096 * rounds + 8] = b"round%03d" % rounds
    area.flush()
    assert os.pread(mapped, 8, 4096 * rounds) == b"round%03d" % rounds, "a mapping"
    # Somebody else does not get what is locked, and gets the rest.
    taken = subprocess.run(
        [sys.executable, "-c", """
import fcntl, os
a, b = os.open("flock", os.O_RDWR), os.open("lockf", os.O_RDWR)
for lock in (lambda: fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB), lambda: fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)):
    try:
        lock()
        print("taken")
    except BlockingIOError:
        pass
fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
"""], capture_output=True, text=True)
    assert (taken.returncode, taken.stdout) == (0, ""), taken
    print("well", flush=True)

while not reader.done:
    reader.some(10000)
names = reader.seen
assert len(names) == len(set(names)), "an entry twice"
assert len(names) == count, "%d of %d entries" % (len(names), count)
assert {name for name in os.listdir("many") if name.startswith("moves-")} == {name.split("/")[1] for name in moves}
print("done", flush=True)
