import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { serve } from "./testing/mounted.ts";

const options = { timeout: 120_000 };

/** Each prints nothing and fails by an assertion; run in the mount by python3. */
const programs: Readonly<Record<string, string>> = {
  "data written in pieces of any size are read back": `
import os, random, hashlib
random.seed(1)
model = bytearray()
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
for i in range(300):
    offset, data = random.randrange(3 << 20), random.randbytes(random.choice([1, 100, 4096, 5000, 300000, 1 << 20]))
    assert os.pwrite(fd, data, offset) == len(data)
    if len(model) < offset + len(data): model.extend(bytes(offset + len(data) - len(model)))
    model[offset:offset + len(data)] = data
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
assert os.fstat(fd).st_size == len(model)
for i in range(100):
    offset, size = random.randrange(len(model)), random.choice([1, 4096, 1 << 20, 3 << 20])
    assert os.pread(fd, size, offset) == bytes(model[offset:offset + size])
os.ftruncate(fd, 1000); os.ftruncate(fd, 5000)
assert os.pread(fd, 9000, 0) == bytes(model[:1000]) + bytes(4000)
`,
  "O_DIRECT, O_APPEND and mmap see one file": `
import os, mmap
page = mmap.mmap(-1, 1 << 20)
page.write(bytes(range(256)) * 4096)
fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
assert os.pwritev(fd, [page], 0) == 1 << 20
back = mmap.mmap(-1, 1 << 20)
assert os.preadv(fd, [back], 0) == 1 << 20 and back[:] == page[:]
plain = os.open("f", os.O_RDWR)
shared = mmap.mmap(plain, 1 << 20)
assert shared[:] == page[:]
shared[5:8] = b"new"
shared.flush()
assert os.pread(plain, 8, 0) == b"\\0\\1\\2\\3\\4new"
appending = [os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for _ in range(3)]
for i in range(100): os.write(appending[i % 3], b"%d," % i)
assert open("log").read() == "".join("%d," % i for i in range(100))
`,
  "names, links, renames and attributes are those of Unix": `
import os, stat, errno, ctypes
name = bytes(b for b in range(1, 256) if b != 47)
os.mkdir(b"d\\xff"); open(b"d\\xff/" + name, "w").close()
assert os.listdir(b"d\\xff") == [name]
def fails(number, call, *args, **more):
    try: call(*args, **more)
    except OSError as error: assert error.errno == number, error
    else: assert False, "no error"
fails(errno.ENAMETOOLONG, open, "x" * 256, "w")
fails(errno.ENOTEMPTY, os.rmdir, b"d\\xff")
fails(errno.ENOENT, os.stat, "none")
open("none", "w").close(); os.stat("none"); os.unlink("none"); fails(errno.ENOENT, os.stat, "none")
os.symlink("to/../" + "x" * 4000, "s")
assert os.readlink("s") == "to/../" + "x" * 4000
open("a", "w").write("a"); os.link("a", "b")
assert os.stat("a").st_nlink == 2 and os.stat("a").st_ino == os.stat("b").st_ino
open("c", "w").write("c")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.renameat2(-100, b"a", -100, b"c", 2) == 0 and open("a").read() == "c" and open("c").read() == "a"
assert libc.renameat2(-100, b"a", -100, b"c", 1) == -1 and ctypes.get_errno() == errno.EEXIST
os.rename("a", "c"); assert open("c").read() == "c"
os.utime("c", ns=(10**18 + 7, -5)); s = os.stat("c"); assert (s.st_atime_ns, s.st_mtime_ns) == (10**18 + 7, -5)
os.chmod("c", 0o4711); assert stat.S_IMODE(os.stat("c").st_mode) == 0o4711
os.chown("c", 12, 34); s = os.stat("c"); assert (s.st_uid, s.st_gid) == (12, 34)
os.mkfifo("p"); assert stat.S_ISFIFO(os.stat("p").st_mode)
os.mknod("dev", stat.S_IFCHR | 0o600, os.makedev(260, 70000)); assert os.stat("dev").st_rdev == os.makedev(260, 70000)
fd = os.open("gone", os.O_RDWR | os.O_CREAT); os.unlink("gone"); os.write(fd, b"still"); assert os.pread(fd, 9, 0) == b"still"
assert os.fstat(fd).st_nlink == 0
deep = "."
for i in range(60): deep += "/" + "n" * 60; os.mkdir(deep)
open(deep + "/f", "w").write("deep"); assert open(deep + "/f").read() == "deep"
v = os.statvfs("."); assert (v.f_blocks, v.f_bfree, v.f_bavail, v.f_namemax) == (1 << 20, 1 << 19, 1 << 18, 255)
`,
  "extended attributes keep any value": `
import os, errno
open("f", "w").close()
value = bytes(range(256)) * 200
os.setxattr("f", "user.a", value); os.setxattr("f", "user.empty", b""); os.setxattr("f", "trusted.b", b"b")
assert os.getxattr("f", "user.a") == value and os.getxattr("f", "user.empty") == b""
assert sorted(os.listxattr("f")) == ["trusted.b", "user.a", "user.empty"]
for call, number in [(lambda: os.setxattr("f", "user.a", b"", os.XATTR_CREATE), errno.EEXIST),
                     (lambda: os.setxattr("f", "user.x", b"", os.XATTR_REPLACE), errno.ENODATA),
                     (lambda: os.getxattr("f", "user.x"), errno.ENODATA)]:
    try: call()
    except OSError as error: assert error.errno == number, error
    else: assert False
os.removexattr("f", "user.a"); assert sorted(os.listxattr("f")) == ["trusted.b", "user.empty"]
`,
  "holes, allocation, copying and files without a name": `
import os
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(fd, b"x" * 4096, 1 << 20)
os.fsync(fd) # with the writeback cache the kernel asks a server that does not know the data yet
assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20 and os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 4096
assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
os.posix_fallocate(fd, 0, 4096); assert os.lseek(fd, 0, os.SEEK_DATA) == 0
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.fallocate(fd, 3, ctypes.c_long(1 << 20), ctypes.c_long(4096)) == 0
assert os.pread(fd, 10, 1 << 20) == bytes(10)
os.pwrite(fd, b"source", 0)
to = os.open("g", os.O_RDWR | os.O_CREAT, 0o644)
assert os.copy_file_range(fd, to, 6, 0, 100) == 6 and os.pread(to, 9, 100) == b"source"
tmp = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(tmp, b"tmp"); assert os.fstat(tmp).st_nlink == 0
assert libc.linkat(-100, b"/proc/self/fd/%d" % tmp, -100, b"named", 0x400) == 0; assert open("named").read() == "tmp"
`,
  "the caller is known, and set-id bits go when others write": `
import os, stat, subprocess
os.chmod(".", 0o777)
def as_user(script):
    subprocess.run(["python3", "-c", "import os; " + script], check=True, user=1234, group=5678, extra_groups=[99], umask=0o027)
as_user("open('theirs', 'w').close(); os.mkdir('their-dir'); os.symlink('x', 'their-link')")
s = os.stat("theirs"); assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (1234, 5678, 0o640), s
s = os.stat("their-dir"); assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (1234, 5678, 0o750), s
assert os.lstat("their-link").st_uid == 1234
def setid(name):
    open(name, "w").write("#"); os.chmod(name, 0o6777)
for name, script in [("w", "os.write(os.open('w', os.O_WRONLY), b'x')"), ("t", "os.truncate('t', 0)"), ("o", "open('o', 'w')")]:
    setid(name); as_user(script)
    assert stat.S_IMODE(os.stat(name).st_mode) == 0o777, name
setid("r"); open("r", "a").write("x"); assert stat.S_IMODE(os.stat("r").st_mode) == 0o6777
os.chown("r", 1, 1); assert stat.S_IMODE(os.stat("r").st_mode) == 0o777
`,
  "birth times are known": `
import os, subprocess
open("f", "w").close()
born = os.stat("f").st_mtime
os.utime("f", (1, 1))
assert abs(float(subprocess.check_output(["stat", "-c", "%.W", "f"])) - born) < 0.01
`,
  "locks are held against other processes": `
import fcntl, os, subprocess
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
other = "import fcntl, os; fd = os.open('f', os.O_RDWR); fcntl.%s(fd, fcntl.LOCK_EX | fcntl.LOCK_NB%s)"
def run(*args): return subprocess.run(["python3", "-c", other % args], stderr=subprocess.DEVNULL).returncode
assert run("lockf", ", 1, 7") != 0 and run("lockf", ", 1, 20") == 0
fcntl.flock(fd, fcntl.LOCK_EX); assert run("flock", "") != 0
fcntl.flock(fd, fcntl.LOCK_UN); assert run("flock", "") == 0
`,
};

for (const mode of [[], ["--later"], ["--writeback"]]) {
  describe(`a mounted file system in memory ${mode.join(" ")}`, options, () => {
    for (const [name, program] of Object.entries(programs)) {
      test(name, options, async () => {
        await using mounted = await serve("serve-memory.ts", ...mode);
        await mounted.python(program);
        assert.deepEqual(mounted.log, []);
      });
    }

    test("a tree goes in and out by tar and cp, many processes at a time", options, async () => {
      await using mounted = await serve("serve-memory.ts", ...mode);
      await mounted.sh(`
        tree=/usr/include/linux
        for i in 1 2 3 4; do (mkdir d$i && tar -C $tree -cf - . | tar -C d$i -xpf - && diff -r $tree d$i && cp -a d$i e$i && diff -r d$i e$i) & done
        wait
        for i in 1 2 3 4; do diff -r $tree e$i; done
        rm -rf d1 e2
      `);
      assert.deepEqual(mounted.log, []);
    });
  });
}

describe("listing a large directory", options, () => {
  for (const mode of [[], ["--later"]]) {
    test(`of 100,000 entries shows each once, while others come and go ${mode.join(" ")}`, options, async () => {
      await using mounted = await serve("serve-memory.ts", ...mode);
      await mounted.python(`
import os, ctypes
os.mkdir("d")
for i in range(100000): os.mknod("d/kept%06d" % i)
libc = ctypes.CDLL(None)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
for name in ("readdir", "telldir", "rewinddir", "closedir"): getattr(libc, name).argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
def entry(d):
    e = libc.readdir(d)
    return None if e is None else ctypes.string_at(e + 19)
d = libc.opendir(b"d")
seen, places, n = [], [], 0
while (name := entry(d)) is not None:
    seen.append(name)
    if n % 500 == 0:
        places.append((libc.telldir(d), n))
        open("d/new%d" % n, "w").close()
        if n > 0: os.unlink("d/new%d" % (n - 500))
    n += 1
kept = [s for s in seen if s.startswith(b"kept")]
assert len(kept) == 100000 and len(set(kept)) == 100000, len(set(kept))
assert seen.count(b".") == 1 and seen.count(b"..") == 1
for place, n in reversed(places):
    libc.seekdir(d, place)
    assert entry(d) == seen[n + 1], (n, seen[n + 1])
libc.rewinddir(d)
assert entry(d) == seen[0]
libc.closedir(d)
for i in range(0, 100000, 2): os.unlink("d/kept%06d" % i)
left = [e for e in os.scandir("d") if e.name.startswith("kept")]
assert len(left) == 50000 and all(e.stat().st_size == 0 for e in left)
`);
      assert.deepEqual(mounted.log, []);
    });
  }
});

describe("a session", options, () => {
  test("gives nodes back that the kernel forgets", options, async () => {
    await using mounted = await serve("serve-memory.ts");
    await mounted.sh("for i in $(seq 500); do echo $i > f$i; done; ls -l > /dev/null; rm -f f*");
    await mounted.sh("echo 2 > /proc/sys/vm/drop_caches");
    const used = await mounted.python("import os; v = os.statvfs('.'); print(v.f_files - v.f_ffree)");
    assert.equal(Number(used), 1);
  });

  test("answers an interrupted request with EINTR", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--hang");
    const out = await mounted.python(`
import os, signal, time, errno
fd = os.open("f", os.O_RDWR | os.O_CREAT)
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
for i in range(3):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try: os.fsync(fd)
    except KeyboardInterrupt: print("interrupted")
pid = os.fork()
if pid == 0: os.fsync(fd)
time.sleep(0.1); os.kill(pid, signal.SIGKILL)
print(os.waitpid(pid, 0)[1])
`);
    assert.equal(out, "interrupted\ninterrupted\ninterrupted\n9\n");
    assert.deepEqual(mounted.log, []);
  });

  test("asks a file system that keeps locks itself, which may wait and be interrupted", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--locks");
    await mounted.python(`
import fcntl, os, signal, struct, time
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644)
def child(work):
    pid = os.fork()
    if pid == 0:
        os.close(fd)
        try: work(os.open("f", os.O_RDWR)); os._exit(0)
        except BlockingIOError: os._exit(11)
        except InterruptedError: os._exit(4)
    return pid
def status(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
assert status(child(lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7))) == 11
assert status(child(lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0))) == 0
def ask(f):
    got = struct.unpack("hhqqi4x", fcntl.fcntl(f, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))
    assert got[:4] == (fcntl.F_WRLCK, 0, 5, 10) and got[4] == os.getppid(), got
assert status(child(ask)) == 0
waiting = child(lambda f: fcntl.lockf(f, fcntl.LOCK_EX))
time.sleep(0.2); assert os.waitpid(waiting, os.WNOHANG)[0] == 0
fcntl.lockf(fd, fcntl.LOCK_UN, 3, 5); time.sleep(0.1); assert os.waitpid(waiting, os.WNOHANG)[0] == 0
fcntl.lockf(fd, fcntl.LOCK_UN); assert status(waiting) == 0
fcntl.flock(fd, fcntl.LOCK_EX)
def interrupted(f):
    def stop(*_): raise InterruptedError
    signal.signal(signal.SIGUSR1, stop)
    fcntl.flock(f, fcntl.LOCK_EX)
waiting = child(interrupted); time.sleep(0.3); os.kill(waiting, signal.SIGUSR1); assert status(waiting) == 4
waiting = child(lambda f: fcntl.flock(f, fcntl.LOCK_SH)); time.sleep(0.2); os.close(fd); assert status(waiting) == 0
`);
    assert.deepEqual(mounted.log, []);
  });

  test("leaves access control lists to the kernel, and the umask to the file system", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--acl");
    await mounted.python(`
import os, stat, struct, subprocess
os.umask(0o027); open("f", "w").close(); os.mkdir("d")
assert stat.S_IMODE(os.stat("f").st_mode) == 0o640 and stat.S_IMODE(os.stat("d").st_mode) == 0o750
os.chmod(".", 0o755)
def read(uid): return subprocess.run(["cat", "f"], user=uid, group=uid, extra_groups=[], stderr=subprocess.DEVNULL).returncode
assert read(1234) != 0
none = 0xffffffff # owner rw, user 1234 r, group -, mask r, others -
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in [(1, 6, none), (2, 4, 1234), (4, 0, none), (16, 4, none), (32, 0, none)])
os.setxattr("f", "system.posix_acl_access", acl)
assert os.getxattr("f", "system.posix_acl_access") == acl
assert read(1234) == 0 and read(1235) != 0
`);
    assert.deepEqual(mounted.log, []);
  });

  test("serves beside a request that hangs", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--hang");
    await mounted.python(`
import os, signal
fd = os.open("f", os.O_RDWR | os.O_CREAT)
pids = []
for i in range(20):
    pid = os.fork()
    if pid == 0: os.fsync(os.open("f%d" % i, os.O_RDWR | os.O_CREAT)) # each its own: fsync holds the file's lock
    pids.append(pid)
for i in range(1000): os.pwrite(fd, b"x" * 4096, i * 4096); os.stat(".")
for pid in pids: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
`);
  });

  test("hands over to another one under load, without an error", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--later");
    const work = mounted.python(`
import os, time
end = time.monotonic() + 3
n = 0
while time.monotonic() < end:
    name = "f%d" % n
    with open(name, "wb") as f: f.write(b"%d" % n)
    assert open(name, "rb").read() == b"%d" % n
    if n % 3: os.unlink(name)
    n += 1
print(n)
`);
    for (let i = 0; i < 10; i++) {
      const from = mounted.said.length;
      mounted.child.kill("SIGUSR1");
      assert.equal(await mounted.until("resumed", from), "resumed resent 0");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.ok(Number(await work) > 0);
    assert.deepEqual(mounted.log, []);
  });

  test("tells the kernel what has changed behind its back", options, async () => {
    await using mounted = await serve("serve-memory.ts");
    await assert.rejects(mounted.sh("cat changed"));
    mounted.child.kill("SIGUSR2");
    assert.match(await mounted.until("told"), /^told 0 (0|-22) (0|-2) (0|-2)$/);
    assert.equal(await mounted.sh("cat changed"), "after");
    await mounted.sh("echo before > changed; cat changed");
    const from = mounted.said.length;
    mounted.child.kill("SIGUSR2");
    await mounted.until("told", from);
    assert.equal(await mounted.sh("cat changed"), "after");
  });

  test("lets timers go on under load", options, async () => {
    await using mounted = await serve("serve-memory.ts", "--ticks");
    let busy = true;
    const load = [1, 2].map(async () => {
      while (busy) await mounted.sh("dd if=/dev/zero of=f$$ bs=4k count=20000 conv=notrunc status=none");
    });
    for (let i = 0; i < 50; i++) await mounted.until("tick", mounted.said.length);
    busy = false;
    await Promise.all(load);
  });

  test("costs nothing when idle", options, async () => {
    await using mounted = await serve("serve-memory.ts");
    await mounted.sh("for i in $(seq 200); do echo $i > f$i; done");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const before = processorTicks(mounted.child.pid);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.ok(processorTicks(mounted.child.pid) - before <= 2);
  });

  test("ends when it is unmounted by others", options, async () => {
    const mounted = await serve("serve-memory.ts");
    const exited = new Promise((resolve) => mounted.child.once("exit", resolve));
    await mounted.sh(`cd /; umount ${mounted.dir}`);
    assert.equal(await exited, 0);
    assert.ok(mounted.said.includes("unmounted"));
    await mounted[Symbol.asyncDispose]();
  });
});

/** User and system time of a process, in hundredths of a second. */
function processorTicks(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return Number(fields[11]) + Number(fields[12]);
}
