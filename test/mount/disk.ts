/** What a replica of a test lies on, and how it can be made to fail. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { eventually, must, run, shell } from "./command.ts";

export interface Disk {
  readonly name: string;
  /** The replica's directory. */
  readonly path: string;
  /** Lets everything go on that was stopped, so that nothing hangs at the end of a test. */
  letGo(): Promise<void>;
  dispose(): Promise<void>;
}

export function directoryDisk(base: string, name: string): Disk {
  const path = join(base, name);
  mkdirSync(path);
  return { name, path, letGo: async () => {}, dispose: async () => {} };
}

/** A file system of its own on a loop device. */
export class LoopDisk implements Disk {
  readonly name: string;
  readonly path: string;
  readonly #image: string;

  private constructor(base: string, name: string) {
    this.name = name;
    this.path = join(base, name);
    this.#image = join(base, `${name}.img`);
    mkdirSync(this.path);
  }

  static make(type: "ext4" | "xfs", sizeMebibytes = type === "xfs" ? 320 : 256) {
    return async (base: string, name: string): Promise<LoopDisk> => {
      const disk = new LoopDisk(base, name);
      await must("truncate", ["-s", `${sizeMebibytes}M`, disk.#image]);
      await must(`mkfs.${type}`, [type === "ext4" ? "-qF" : "-qf", disk.#image]);
      await disk.mount();
      return disk;
    };
  }

  async mount(): Promise<void> {
    await must("mount", ["-o", "loop", this.#image, this.path]);
  }

  /** Out of sight at once: what lies under it is an empty directory. */
  async vanish(): Promise<void> {
    await must("umount", ["-l", this.path]);
  }

  async remount(how: "ro" | "rw"): Promise<void> {
    await must("mount", ["-o", `remount,${how}`, this.path]);
  }

  /** As if the power were cut: nothing more reaches the disk, and every call fails from now on. */
  async cutPower(): Promise<void> {
    // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number; 2: without flushing the log.
    const program = `import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack("I", 2))`;
    await must("python3", ["-c", program, this.path]);
  }

  /** After a power cut: lets the old file system go, and mounts what is left on the disk. */
  async powerOn(): Promise<void> {
    await run("umount", ["-l", this.path]);
    await eventually("the loop device is free", async () => {
      const { out } = await run("losetup", ["-j", this.#image]);
      return out === "" ? true : null;
    });
    await this.mount();
  }

  async letGo(): Promise<void> {}

  async dispose(): Promise<void> {
    await run("bash", ["-c", `while umount -l "$0" 2>/dev/null; do :; done`, this.path]);
  }
}

/** A directory seen through bindfs, a FUSE file system that can be stopped: every call on it then hangs. */
export class StoppableDisk implements Disk {
  readonly name: string;
  readonly path: string;
  readonly under: string;
  #process: ChildProcess | null = null;

  private constructor(base: string, name: string) {
    this.name = name;
    this.path = join(base, name);
    this.under = join(base, `${name}-under`);
    mkdirSync(this.path);
    mkdirSync(this.under);
  }

  static async make(base: string, name: string): Promise<StoppableDisk> {
    const disk = new StoppableDisk(base, name);
    await disk.mount();
    return disk;
  }

  async mount(): Promise<void> {
    // It takes each name of a file for a file of its own: what it keeps of one is wrong when another changes.
    const keepNothing = "attr_timeout=0,entry_timeout=0,ac_attr_timeout=0";
    this.#process = spawn("bindfs", ["-f", "-o", keepNothing, this.under, this.path], { stdio: "ignore" });
    await shell(`for _ in $(seq 200); do mountpoint -q "${this.path}" && exit 0; sleep 0.05; done; exit 1`);
  }

  stop(): void {
    this.#process?.kill("SIGSTOP");
  }

  async letGo(): Promise<void> {
    this.#process?.kill("SIGCONT");
  }

  /** Its server dies: calls answer ENOTCONN. */
  kill(): void {
    this.#process?.kill("SIGKILL");
  }

  async mountAgain(): Promise<void> {
    await run("umount", ["-l", this.path]);
    await this.mount();
  }

  async dispose(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await run("umount", ["-l", this.path]);
  }
}
