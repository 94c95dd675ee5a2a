/**
 * `kernel=1` on a kernel that has an NFS client: in the guest of `knfsd.ts`, with Node.js and this source put beside, the
 * replica contract runs through that kernel's client against its own server.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { available, buildGuest, built, emulator } from "./knfsd.ts";

const root = join(import.meta.dirname, "../..");
const timeoutMs = 290_000;

/** What the guest gets on top: a second archive behind the first, whose files replace those of the same name. */
function addition(directory: string): void {
  const tree = join(directory, "tree");
  const into = join(tree, "opt/chiron");
  mkdirSync(into, { recursive: true });
  cpSync(join(root, "src"), join(into, "src"), { recursive: true });
  cpSync(join(root, "package.json"), join(into, "package.json"));
  cpSync(join(root, "test/nfs/guest/kernel-contract.ts"), join(into, "test/nfs/guest/kernel-contract.ts"));
  const modules = realpathSync(join(root, "node_modules"));
  for (const name of ["koffi", "@koromix/koffi-linux-x64"]) {
    cpSync(join(modules, name), join(into, "node_modules", name), { recursive: true });
  }
  const node = realpathSync(process.execPath);
  mkdirSync(join(tree, "bin"));
  cpSync(node, join(tree, "bin/node"));
  const libraries = execFileSync("ldd", [node], { encoding: "utf8" });
  for (const [, path = ""] of libraries.matchAll(/=> (\/\S+)/g)) {
    mkdirSync(join(tree, "lib/x86_64-linux-gnu"), { recursive: true });
    cpSync(realpathSync(path), join(tree, "lib/x86_64-linux-gnu", path.split("/").at(-1) ?? ""));
  }
  symlinkSync("busybox", join(tree, "bin/umount"));
  symlinkSync("busybox", join(tree, "bin/poweroff"));
  const init = execFileSync("sh", ["-c", `gzip -dc '${built}/init.gz' | cpio -i --to-stdout init 2>/dev/null`]);
  // The grace period first; then the test, and the end.
  const after =
    "sleep 12; cd /opt/chiron; node --test-reporter=tap test/nfs/guest/kernel-contract.ts; echo ENDED=$?; poweroff -f";
  writeFileSync(join(tree, "init"), init.toString().replace(/^while :;.*$/m, after));
  chmodSync(join(tree, "init"), 0o755);
  const archive = "find . | cpio -o -H newc 2>/dev/null | gzip -1";
  execFileSync("sh", ["-c", `cat '${built}/init.gz' >../init.gz; ${archive} >>../init.gz`], { cwd: tree });
}

/** Not run in any place yet: asked for by `npm run test:kernel-nfs` alone, until it has been. */
const wanted = available && process.env["CHIRON_KERNEL_NFS"] === "1";

test("the kernel's client keeps the replica contract, v3 and v4.1", {
  timeout: timeoutMs,
  skip: !wanted,
}, async () => {
  buildGuest();
  const directory = mkdtempSync(join(tmpdir(), "chiron-kernel-nfs-"));
  let child: ChildProcess | null = null;
  try {
    addition(directory);
    const disk = join(directory, "disk.img");
    execFileSync("truncate", ["-s", "512M", disk]);
    execFileSync("mkfs.ext4", ["-q", "-F", disk]);
    const args = ["-accel", "tcg", "-m", "1792", "-nographic", "-no-reboot", "-kernel", join(built, "vmlinuz")];
    args.push("-initrd", join(directory, "init.gz"), "-append", "console=ttyS0 quiet panic=-1");
    args.push("-drive", `file=${disk},if=virtio,format=raw,cache=unsafe`, "-nic", "user,model=virtio-net-pci");
    const guest = spawn("setpriv", ["--pdeathsig", "KILL", emulator, ...args], { stdio: ["ignore", "pipe", "ignore"] });
    child = guest;
    let output = "";
    guest.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString("latin1");
    });
    const ended = new Promise<void>((resolve) => guest.once("exit", () => resolve()));
    const late = setTimeout(() => guest.kill("SIGKILL"), timeoutMs - 10_000);
    await ended;
    clearTimeout(late);
    const failed = output.split(/\r?\n/).filter((line) => /^\s*not ok /.test(line));
    assert.match(output, /ENDED=0/, `${failed.join("\n")}\n${output.slice(-3_000)}`);
    const passed = /^# pass (\d+)/m.exec(output)?.[1];
    assert.ok(Number(passed) > 100, `${passed} rules`);
  } finally {
    child?.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  }
});
