#!/usr/bin/env python3
"""workload.py DIRECTORY SEED SECONDS: changes a tree at random and knows what must be in it.

Any error of the file system, and any difference from what was written, ends it with status 1 and a line that says
what. Runs until the time is over and at least 200 changes are done, or until a file named "stop" beside DIRECTORY
appears; then looks at everything once more. Prints how many operations were done and the longest one, in milliseconds."""
import errno, os, random, sys, time

root, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
draw = random.Random(seed)
os.makedirs(root, exist_ok=True)
os.chdir(root)
files, directories, links = {}, [""], {}
kept = {}  # descriptors of files that may have lost their name: fd -> content
longest, operations, slow = 0.0, 0, ""


def fail(message):
    print("workload (seed %d): %s" % (seed, message))
    sys.exit(1)


def fresh():
    return os.path.join(draw.choice(directories), "%s%d" % (draw.choice("abcäöü"), draw.randrange(10**9)))


def check(name):
    with open(name, "rb") as file:
        got = file.read()
    want = files[name]
    if got != want:
        at = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
        fail("%s differs at byte %d: %d bytes read, %d written" % (name, at, len(got), len(want)))


def create():
    name = fresh()
    data = draw.randbytes(draw.choice([0, 10, 4096, 20000, 150000]))
    with open(name, "xb") as file:
        file.write(data)
    files[name] = data


def overwrite():
    name = draw.choice(list(files))
    data = bytearray(files[name])
    at = draw.randrange(len(data) + 1)
    piece = draw.randbytes(draw.choice([1, 100, 4096, 9000]))
    if at > len(data):
        data.extend(bytes(at - len(data)))
    data[at : at + len(piece)] = piece
    with open(name, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), piece, at)
        if draw.random() < 0.2:
            os.fsync(file.fileno())
    files[name] = bytes(data)


def append():
    name = draw.choice(list(files))
    piece = draw.randbytes(draw.randrange(1, 5000))
    with open(name, "ab") as file:
        file.write(piece)
    files[name] += piece


def truncate():
    name = draw.choice(list(files))
    size = draw.randrange(len(files[name]) + 5000)
    os.truncate(name, size)
    files[name] = files[name][:size].ljust(size, b"\0")


def unlink():
    name = draw.choice(list(files))
    if draw.random() < 0.3 and len(kept) < 8:
        kept[os.open(name, os.O_RDWR)] = files[name]
    os.unlink(name)
    del files[name]


def use_kept():
    if not kept:
        return
    fd = draw.choice(list(kept))
    if os.pread(fd, 1 << 20, 0) != kept[fd]:
        fail("a file that was deleted while open differs")
    if draw.random() < 0.5:
        os.close(fd)
        del kept[fd]
    else:
        os.pwrite(fd, b"still here", 0)
        kept[fd] = b"still here" + kept[fd][10:]


def rename():
    old, new = draw.choice(list(files)), fresh()
    if draw.random() < 0.3 and len(files) > 1:
        new = draw.choice(list(files))
    if os.path.exists(new) and os.path.samefile(old, new):
        return
    os.rename(old, new)
    files[new] = files.pop(old)


def mkdir():
    name = fresh()
    os.mkdir(name)
    directories.append(name)


def rename_directory():
    if len(directories) < 3:
        return
    old = draw.choice(directories[1:])
    new = os.path.join(draw.choice([d for d in directories if d != old and not d.startswith(old + "/")]), "d%d" % draw.randrange(10**9))
    os.rename(old, new)
    moved = lambda name: new + name[len(old) :] if name == old or name.startswith(old + "/") else name
    directories[:] = [moved(d) for d in directories]
    for table in (files, links):
        for name in list(table):
            if moved(name) != name:
                table[moved(name)] = table.pop(name)


def symlink():
    name = fresh()
    target = "target-%d" % draw.randrange(10**6)
    os.symlink(target, name)
    links[name] = target


def metadata():
    name = draw.choice(list(files))
    os.chmod(name, draw.choice([0o644, 0o600, 0o4755]))
    os.utime(name, ns=(10**18, 10**18 + draw.randrange(10**9)))
    try:
        os.setxattr(name, "user.test", b"%d" % draw.randrange(1000))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # NFS v3 has none
            raise


def look():
    check(draw.choice(list(files)))


def listing():
    directory = draw.choice(directories)
    prefix = directory + "/" if directory else ""
    want = {n[len(prefix) :] for n in list(files) + list(links) + directories[1:] if n.startswith(prefix) and "/" not in n[len(prefix) :]}
    got = set(os.listdir(directory or "."))
    if got != want:
        fail("listing of %r: %d unknown, %d missing: %r" % (directory, len(got - want), len(want - got), sorted(got ^ want)[:5]))


needs_files = [overwrite, append, truncate, rename, metadata, look, look]
end = time.monotonic() + seconds
stop = os.path.join(os.path.dirname(os.path.abspath(".")), "stop")
while not (time.monotonic() > end and operations >= 200) and not os.path.exists(stop):
    choices = [create, create, mkdir, symlink, listing, use_kept, rename_directory]
    if files:
        choices += needs_files * 2
    if len(files) > 60:
        choices += [unlink] * 8
    act = draw.choice(choices)
    if act is mkdir and len(directories) > 15:
        continue
    began = time.monotonic()
    try:
        act()
    except OSError as error:
        fail("%s: %s after %.1f s" % (act.__name__, error, time.monotonic() - began))
    took = time.monotonic() - began
    if took > longest:
        longest, slow = took, act.__name__
    operations += 1

for fd, content in kept.items():
    if os.pread(fd, 1 << 20, 0) != content:
        fail("a file that was deleted while open differs at the end")
    os.close(fd)
for name in files:
    check(name)
for name, target in links.items():
    if os.readlink(name) != target:
        fail("link %s differs" % name)
print("%d operations, the longest %d ms (%s)" % (operations, longest * 1000, slow))
