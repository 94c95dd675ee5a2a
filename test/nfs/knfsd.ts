/**
 * Linux's own NFS server for tests, in a guest (qemu, software emulation), reached on free loopback ports. Its disk lives
 * as long as this object, so that a reboot is a server restart. Booting takes about 10 s, and 10 s of grace follow, in
 * which an OPEN is refused. Needs Debian's qemu-system-x86, cpio, kmod, busybox-static.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { answers, freePort, pause } from "./ganesha.ts";

export const emulator = "/usr/bin/qemu-system-x86_64";
/** The guest is the same for all: built once a machine. */
export const built = process.env["CHIRON_GUEST"] ?? "/var/tmp/chiron-knfsd";

export const available =
  process.getuid?.() === 0 &&
  [emulator, "/bin/busybox", "/usr/bin/cpio", "/sbin/modprobe"].every((file) => existsSync(file));

export class Knfsd implements AsyncDisposable {
  readonly port: number;
  readonly mountPort: number;
  readonly #private = mkdtempSync(join(tmpdir(), "chiron-knfsd-"));
  #process: ChildProcess | null = null;
  log = "";

  private constructor(port: number, mountPort: number) {
    this.port = port;
    this.mountPort = mountPort;
  }

  static async start(): Promise<Knfsd> {
    buildGuest();
    const server = new Knfsd(await freePort(), await freePort());
    const disk = join(server.#private, "disk.img");
    execFileSync("truncate", ["-s", "512M", disk]);
    execFileSync("mkfs.ext4", ["-q", "-F", disk]);
    await server.boot();
    return server;
  }

  url(version: "3" | "4.1", path = "/export", parameters = ""): string {
    // With fsid=0 the export is the root of v4's tree.
    const visible = version === "3" ? path : path.replace(/^\/export/, "") || "/";
    return `nfs://127.0.0.1:${this.port}${visible}?version=${version}&mountport=${this.mountPort}${parameters}`;
  }

  async boot(): Promise<void> {
    const forward = [`hostfwd=tcp:127.0.0.1:${this.port}-:2049`, `hostfwd=tcp:127.0.0.1:${this.mountPort}-:20048`];
    const args = ["-accel", "tcg", "-m", "768", "-nographic", "-no-reboot"];
    args.push("-kernel", join(built, "vmlinuz"), "-initrd", join(built, "init.gz"));
    args.push("-append", "console=ttyS0 quiet panic=-1");
    args.push("-drive", `file=${join(this.#private, "disk.img")},if=virtio,format=raw,cache=unsafe`);
    args.push("-nic", `user,model=virtio-net-pci,${forward.join(",")}`);
    const child = spawn("setpriv", ["--pdeathsig", "KILL", emulator, ...args], { stdio: ["ignore", "pipe", "ignore"] });
    this.#process = child;
    this.log = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      this.log = (this.log + chunk.toString("latin1")).slice(-10_000);
    });
    for (let i = 0; i < 1_200 && !this.log.includes("READY"); i++) {
      if (child.exitCode !== null) throw new Error(`The guest ended: ${this.log}`);
      await pause(100);
    }
    if (!this.log.includes("READY") || !(await answers(this.port)))
      throw new Error(`The guest does not serve: ${this.log}`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  /** Power off, without a warning. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#private, { recursive: true, force: true });
  }
}

export function buildGuest(): void {
  execFileSync(join(import.meta.dirname, "guest/build.sh"), [built], { stdio: "pipe", timeout: 300_000 });
}
