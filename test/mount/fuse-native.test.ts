/** The second binding, as a user meets it: refused clearly, accepted explicitly, for root and for an ordinary user. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { loadBinding } from "../../src/fuse/native-binding.ts";
import { chironProgram, refused, run, Sandbox, sh } from "./sandbox.ts";

function unavailable(): string | false {
  try {
    loadBinding();
    return false;
  } catch {
    return "LEFT OUT: fuse-native is an optional dependency, and not here";
  }
}
const accepted = ["--binding", "fuse-native", "--accept-wrong-results"];

describe("through fuse-native", { skip: unavailable() }, () => {
  test("what it does wrongly or lacks is refused at mount, in one line", async (context) => {
    const box = new Sandbox(context);
    const replicas = ["--replica", box.makeDirectory("a"), "--replica", box.makeDirectory("b")];
    const mount = (...argv: string[]) => box.chiron("mount", "--log", box.log, ...argv, ...replicas, box.mountpoint);
    refused(
      await mount("--binding", "fuse-native"),
      64,
      /times: .*names: .*--accept-wrong-results.*docs\/fuse-native\.md/,
    );
    refused(await mount(...accepted, "--write-cache", "write-back"), 64, /writeback: there is no write cache/);
    refused(await mount(...accepted, "-o", "noatime"), 64, /no mount options/);
    refused(await mount("--binding", "libfuse"), 64, /--binding.*kernel, fuse-native/);
    assert.deepEqual([readdirSync(box.path("a")), readdirSync(box.path("b"))], [[], []]);
  });

  test("a volume is used, loses a replica and gets it back, and is unmounted", async (context) => {
    const box = new Sandbox(context);
    await box.mount(...accepted);
    await sh(`cd ${box.mountpoint} && echo hello > f && mkdir d && mv f d/g`);
    assert.equal(readFileSync(box.path("b/d/g"), "utf8"), "hello\n");
    refused(await box.chiron("handover", box.mountpoint), 64, /cannot be handed over/);
    await box.chiron("replica", "disable", box.mountpoint, "b");
    await sh(`echo missed > ${box.mountpoint}/missed`);
    await box.chiron("replica", "enable", box.mountpoint, "b");
    assert.equal((await box.chiron("resync", box.mountpoint)).code, 0);
    assert.equal(readFileSync(box.path("b/missed"), "utf8"), "missed\n");
    assert.deepEqual(await box.chiron("unmount", box.mountpoint), { code: 0, stdout: "", stderr: "" });
    assert.deepEqual(readdirSync(box.path("run")), []);
  });

  test("when its process is killed the mount is taken away, that is told, and it can be mounted again", async (context) => {
    const box = new Sandbox(context);
    await box.mount(...accepted, "--on-event", `cat >> ${box.path("events")}`);
    await sh(`echo hello > ${box.mountpoint}/f`);
    const { pid } = await box.status();
    process.kill(pid, "SIGKILL");
    await box.until("its holder ends", () => readdirSync(box.path("run")).length === 0);
    assert.notEqual((await sh(`mountpoint -q ${box.mountpoint}`)).code, 0);
    assert.match(readFileSync(box.path("events"), "utf8"), /volume-process-failing.*mount it again/);
    await box.mount();
    assert.equal((await sh(`cat ${box.mountpoint}/f`)).stdout, "hello\n");
  });

  test("an ordinary user mounts with it", async (context) => {
    if ((await sh("command -v fusermount && id nobody")).code !== 0) {
      return context.skip("LEFT OUT: there is no fusermount here, or no user nobody");
    }
    const box = new Sandbox(context);
    const replicas = `--replica ${box.makeDirectory("a")} --replica ${box.makeDirectory("b")}`;
    const script = `
      set -e
      ${chironProgram} mount ${accepted.join(" ")} --log ${box.log} ${replicas} ${box.mountpoint}
      echo hello > ${box.mountpoint}/f
      ${chironProgram} status ${box.mountpoint}
      ${chironProgram} unmount ${box.mountpoint}`;
    // In a namespace of its own, where everybody may open /dev/fuse, as with udev.
    const device = "mount -t tmpfs none /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse";
    const user = "exec setpriv --reuid=nobody --regid=nogroup --clear-groups bash -c";
    await sh(`chown -R nobody:nogroup ${box.directory} && chmod 755 ${box.directory}`);
    const argv = ["-m", "--propagation", "private", "bash", "-c", `${device} && ${user} "$0"`, script];
    const { code, stdout, stderr } = await run("unshare", argv, box.env);
    assert.equal(code, 0, `${stderr}\n${box.logText()}`);
    assert.match(stdout, /healthy/);
    assert.equal(readFileSync(box.path("b/f"), "utf8"), "hello\n");
  });
});
