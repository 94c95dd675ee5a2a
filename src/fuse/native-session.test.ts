import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadBinding } from "./native-binding.ts";
import { serve } from "./testing/mounted.ts";

const options = { timeout: 60_000, skip: cannotLoad() };

function cannotLoad(): string | false {
  try {
    loadBinding();
    return false;
  } catch (error) {
    return String(error);
  }
}

describe("a file system in memory through fuse-native", options, () => {
  test("does what its limits leave", options, async () => {
    await using mounted = await serve("serve-native.ts");
    await mounted.python(`
import os, stat, errno, random
random.seed(2)
data = random.randbytes(3 << 20)
open("f", "wb").write(data)
assert open("f", "rb").read() == data
fd = os.open("f", os.O_RDWR)
os.pwrite(fd, b"new", 5); assert os.pread(fd, 9, 3) == data[3:5] + b"new" + data[8:12]
os.ftruncate(fd, 6); assert os.fstat(fd).st_size == 6
os.fsync(fd); os.close(fd)
os.mkdir("d"); os.symlink("to/ü", "d/link"); assert os.readlink("d/link") == "to/ü"
os.link("f", "d/g"); os.rename("d/g", "d/ü"); assert sorted(os.listdir("d")) == ["link", "ü"]
assert os.stat("f").st_ino == os.stat("d/ü").st_ino
os.chmod("f", 0o600); os.chown("f", 12, 34); s = os.stat("f"); assert (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) == (0o600, 12, 34)
os.utime("f", (100, 100)); assert os.stat("f").st_mtime == 100
os.mkfifo("p"); assert stat.S_ISFIFO(os.stat("p").st_mode)
for call, args, number in [(os.rmdir, ("d",), errno.ENOTEMPTY), (os.stat, ("none",), errno.ENOENT), (os.mkdir, ("d",), errno.EEXIST)]:
    try: call(*args)
    except OSError as error: assert error.errno == number, error
    else: assert False
os.mkdir("many")
for i in range(2000): open("many/%d" % i, "w").close()
assert sorted(os.listdir("many"), key=int) == [str(i) for i in range(2000)]
assert os.statvfs(".").f_namemax == 255
`);
    await mounted.sh("rm -r d many f p; test -z $(ls)");
    const nodes = await mounted.python("import os; v = os.statvfs('.'); print(v.f_files - v.f_ffree)");
    assert.equal(Number(nodes), 1);
    assert.deepEqual(mounted.log, []);
  });

  test("ends when it is unmounted by others", options, async () => {
    const mounted = await serve("serve-native.ts");
    await mounted.sh(`cd /; umount ${mounted.dir}`);
    await mounted.until("unmounted");
    await mounted[Symbol.asyncDispose]();
  });
});
