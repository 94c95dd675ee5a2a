#!/usr/bin/env python3
"""A workload that knows what it has done and checks it: any error and any wrong byte ends it with status 1.

    workload.py DIRECTORY SEED [--processes N] [--no-fsync]

Each process works in a directory of its own: creates, writes, appends, truncates, reads back, renames, links, unlinks,
directories, attributes, extended attributes, fsync. Prints "N" (operations done, all processes) about once a second.
On SIGTERM every process checks all that it left, by content, type, mode, times; then status 0 and "done N".
"""

import argparse
import os
import random
import signal
import stat
import sys
import time


class Wrong(Exception):
    pass


class Worker:
    def __init__(self, directory, seed, fsync):
        self.draw = random.Random(seed)
        self.at = directory
        self.fsync = fsync
        self.files = {}  # name -> key into contents
        self.contents = {}  # key -> (bytearray, mode, names)
        self.directories = [""]
        self.next = 0
        self.last = ""
        self.operations = 0
        os.makedirs(directory, exist_ok=True)
        self.block = bytes(self.draw.randrange(256) for _ in range(1 << 16))

    def path(self, name):
        return os.path.join(self.at, name)

    def some_bytes(self, size):
        start = self.draw.randrange(1 << 15)
        return (self.block[start:] + self.block * (size // (1 << 16) + 1))[:size]

    def new_name(self):
        self.next += 1
        return os.path.join(self.draw.choice(self.directories), "f%d" % self.next)

    def step(self):
        weights = (
            (self.create, 12 if len(self.files) < 200 else 2),
            (self.overwrite, 20), (self.append, 12), (self.truncate, 4), (self.read, 20), (self.rename, 8),
            (self.replace, 6), (self.unlink, 6 if len(self.files) > 50 else 1), (self.link, 3), (self.mode, 4), (self.time, 3),
            (self.mkdir, 2 if len(self.directories) < 20 else 0), (self.move_directory, 1), (self.xattr, 2), (self.listing, 2),
            (self.open_unlinked, 1),
        )
        operation = self.draw.choices([w[0] for w in weights], [w[1] for w in weights])[0]
        self.last = operation.__name__
        if operation in (self.create, self.mkdir, self.listing, self.open_unlinked, self.move_directory) or self.files:
            operation()
        self.operations += 1

    def pick(self):
        return self.draw.choice(sorted(self.files))

    def create(self):
        name = self.new_name()
        data = bytearray(self.some_bytes(int(self.draw.expovariate(1 / 6000))))
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self.write(fd, data, 0)
        self.finish(fd)
        self.files[name] = self.next
        self.contents[self.next] = [data, 0o644, {name}, None]

    def write(self, fd, data, offset):
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)

    def finish(self, fd):
        if self.fsync and self.draw.random() < 0.05:
            os.fsync(fd)
        os.close(fd)

    def overwrite(self):
        content = self.contents[self.files[name := self.pick()]]
        data = self.some_bytes(self.draw.choice((1, 100, 4096, 20000)))
        offset = self.draw.randrange(len(content[0]) + 5000)
        if offset > len(content[0]):
            content[0].extend(bytes(offset - len(content[0])))
        content[0][offset : offset + len(data)] = data
        content[3] = None
        fd = os.open(self.path(name), os.O_RDWR)
        self.write(fd, data, offset)
        self.finish(fd)

    def append(self):
        content = self.contents[self.files[name := self.pick()]]
        if len(content[0]) > 1 << 20:
            return self.truncate()
        data = self.some_bytes(self.draw.randrange(1, 3000))
        content[0].extend(data)
        content[3] = None
        fd = os.open(self.path(name), os.O_WRONLY | os.O_APPEND)
        if os.write(fd, data) != len(data):
            raise Wrong("short append")
        self.finish(fd)

    def truncate(self):
        content = self.contents[self.files[name := self.pick()]]
        size = self.draw.randrange(len(content[0]) + 3000)
        os.truncate(self.path(name), size)
        if size < len(content[0]):
            del content[0][size:]
        else:
            content[0].extend(bytes(size - len(content[0])))
        content[3] = None

    def check(self, name):
        data, mode, names, mtime = self.contents[self.files[name]]
        with open(self.path(name), "rb") as file:
            found = file.read()
            info = os.fstat(file.fileno())
        if found != data:
            at = next((i for i, (x, y) in enumerate(zip(found, data)) if x != y), min(len(found), len(data)))
            raise Wrong("%s: %d bytes, expected %d; they differ from byte %d on" % (name, len(found), len(data), at))
        if stat.S_IMODE(info.st_mode) != mode or info.st_size != len(data) or info.st_nlink != len(names):
            raise Wrong("%s: mode %o size %d links %d, expected %o %d %d" % (name, stat.S_IMODE(info.st_mode), info.st_size, info.st_nlink, mode, len(data), len(names)))
        if mtime is not None and info.st_mtime_ns != mtime:
            raise Wrong("%s: mtime %d, expected %d" % (name, info.st_mtime_ns, mtime))

    def read(self):
        self.check(self.pick())

    def forget(self, name):
        key = self.files.pop(name)
        self.contents[key][2].discard(name)
        if not self.contents[key][2]:
            del self.contents[key]

    def called(self, key, name):
        self.files[name] = key
        self.contents[key][2].add(name)

    def rename(self):
        old, new = self.pick(), self.new_name()
        os.rename(self.path(old), self.path(new))
        key = self.files[old]
        self.called(key, new)
        self.forget(old)

    def replace(self):
        """As editors and databases do: write a new file, fsync, rename over the old one."""
        name = self.pick()
        temporary = name + ".tmp"
        data = bytearray(self.some_bytes(self.draw.randrange(1, 8000)))
        fd = os.open(self.path(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.write(fd, data, 0)
        self.finish(fd)
        os.rename(self.path(temporary), self.path(name))
        self.forget(name)
        self.next += 1
        self.files[name] = self.next
        self.contents[self.next] = [data, 0o600, {name}, None]

    def unlink(self):
        name = self.pick()
        os.unlink(self.path(name))
        self.forget(name)
        if os.path.lexists(self.path(name)):
            raise Wrong("%s is still there" % name)

    def link(self):
        name, new = self.pick(), self.new_name()
        os.link(self.path(name), self.path(new))
        self.called(self.files[name], new)

    def mode(self):
        name = self.pick()
        mode = self.draw.choice((0o600, 0o644, 0o755, 0o4711, 0o400))
        os.chmod(self.path(name), mode)
        self.contents[self.files[name]][1] = mode

    def time(self):
        name = self.pick()
        time = self.draw.randrange(10**18, 2 * 10**18)
        os.utime(self.path(name), ns=(time, time))
        self.contents[self.files[name]][3] = time

    def mkdir(self):
        self.next += 1
        name = os.path.join(self.draw.choice(self.directories), "d%d" % self.next)
        os.mkdir(self.path(name))
        self.directories.append(name)

    def move_directory(self):
        movable = [d for d in self.directories if d and not any(o != d and o.startswith(d + "/") for o in self.directories)]
        if not movable:
            return
        old = self.draw.choice(movable)
        self.next += 1
        new = os.path.join(self.draw.choice([d for d in self.directories if d != old]), "d%d" % self.next)
        os.rename(self.path(old), self.path(new))
        self.directories.remove(old)
        self.directories.append(new)
        for name in [name for name in self.files if os.path.dirname(name) == old]:
            key = self.files[name]
            self.called(key, os.path.join(new, os.path.basename(name)))
            self.forget(name)

    def xattr(self):
        name = self.pick()
        value = self.some_bytes(self.draw.randrange(1, 50))
        os.setxattr(self.path(name), "user.test", value)
        if os.getxattr(self.path(name), "user.test") != value:
            raise Wrong("%s: xattr" % name)

    def listing(self):
        directory = self.draw.choice(self.directories)
        found = set(os.listdir(self.path(directory)))
        expected = {os.path.basename(n) for n in self.files if os.path.dirname(n) == directory}
        expected |= {os.path.basename(d) for d in self.directories if d and os.path.dirname(d) == directory}
        if found != expected:
            raise Wrong("%s/: missing %r, too many %r" % (directory, expected - found, found - expected))

    def open_unlinked(self):
        name = self.path("open-unlinked")
        fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, b"before", 0)
        os.unlink(name)
        os.pwrite(fd, b" after", 6)
        if os.pread(fd, 100, 0) != b"before after":
            raise Wrong("an open file without a name")
        os.close(fd)

    def check_all(self):
        for name in sorted(self.files):
            self.check(name)
        for directory in list(self.directories):
            found = set(os.listdir(self.path(directory)))
            expected = {os.path.basename(n) for n in self.files if os.path.dirname(n) == directory}
            expected |= {os.path.basename(d) for d in self.directories if d and os.path.dirname(d) == directory}
            if found != expected:
                raise Wrong("%s/: missing %r, too many %r" % (directory, expected - found, found - expected))


def work(directory, seed, fsync, report):
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    worker = Worker(directory, seed, fsync)
    try:
        told = slowest = 0.0
        while not stop:
            before = time.monotonic()
            worker.step()
            now = time.monotonic()
            slowest = max(slowest, now - before)
            if now - told > 0.5:
                os.write(report, b"%d %d %d\n" % (seed, worker.operations, slowest * 1000))
                told = now
        worker.last = "the check at the end"
        worker.check_all()
        os.write(report, b"%d %d %d\n" % (seed, worker.operations, slowest * 1000))
        return 0
    except (OSError, Wrong) as error:
        print("workload %s, operation %d (%s): %s: %s" % (directory, worker.operations, worker.last, type(error).__name__, error), flush=True)
        return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("seed", type=int)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--no-fsync", dest="fsync", action="store_false")
    options = parser.parse_args()
    reading, report = os.pipe()
    children = []
    for index in range(options.processes):
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os._exit(work(os.path.join(options.directory, "w%d" % index), options.seed * 100 + index, options.fsync, report))
        children.append(pid)
    os.close(report)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in children])
    done, slowest = {}, 0
    with os.fdopen(reading, "r") as lines:
        for line in lines:
            seed, operations, slow = map(int, line.split())
            done[seed] = operations
            slowest = max(slowest, slow)
            print("%d operations, slowest %d ms" % (sum(done.values()), slowest), flush=True)
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children)
    print("done: %d operations, slowest %d ms, %d processes failed" % (sum(done.values()), slowest, failed), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
