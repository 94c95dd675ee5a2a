/** A volume mounted as a user mounts it, by `chiron mount`, over replicas that a test can break. */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { VolumeStatus } from "../../src/replication/model.ts";
import { checkout, chiron, eventually, type Ran, run } from "./command.ts";
import { type Disk, directoryDisk } from "./disk.ts";

export interface TestVolumeOptions {
  /** What each replica lies on; two plain directories by default. */
  readonly disks?: readonly ((base: string, name: string) => Disk | Promise<Disk>)[];
  /** More arguments of `chiron mount`; they may need the directory that all of it lies in. */
  readonly args?: readonly string[] | ((base: string) => readonly string[]);
  /** Appended to each replica's path, like "?run=threads". */
  readonly suffix?: string;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has just ended
  }
}

const names = ["a", "b", "c", "d"];

export class TestVolume implements AsyncDisposable {
  readonly base: string;
  readonly mountpoint: string;
  readonly disks: Disk[] = [];
  readonly #options: TestVolumeOptions;
  /** What is known of mounts lies apart from the machine's own. */
  readonly #env: NodeJS.ProcessEnv;

  private constructor(base: string, options: TestVolumeOptions) {
    this.base = base;
    this.mountpoint = join(base, "mnt");
    this.#options = options;
    this.#env = { ...process.env, CHIRON_RUN_DIR: join(base, "run") };
  }

  static async start(options: TestVolumeOptions = {}): Promise<TestVolume> {
    const volume = new TestVolume(mkdtempSync(join(tmpdir(), "chiron-test-")), options);
    try {
      chmodSync(volume.base, 0o755); // programs run as other users, too
      mkdirSync(volume.mountpoint);
      for (const [index, make] of (options.disks ?? [directoryDisk, directoryDisk]).entries()) {
        volume.disks.push(await make(volume.base, names[index] as string));
      }
      await volume.mount();
      return volume;
    } catch (error) {
      await volume[Symbol.asyncDispose]();
      throw error;
    }
  }

  disk(index: number): Disk {
    return this.disks[index] as Disk;
  }

  /** `chiron mount` with these replicas; throws if it fails. */
  async mount(...more: string[]): Promise<void> {
    const { status, out, err } = await this.tryMount(...more);
    if (status !== 0) throw new Error(`chiron mount: status ${status}\n${out}${err}\n${this.log()}`);
  }

  tryMount(...more: string[]): Promise<Ran> {
    const replicas = this.disks.flatMap((disk) => [
      "--replica",
      `${disk.name}=${disk.path}${this.#options.suffix ?? ""}`,
    ]);
    const { args = [] } = this.#options;
    const given = typeof args === "function" ? args(this.base) : args;
    const own = ["--volume", "test", "--log", join(this.base, "log"), ...given];
    return this.chiron("mount", ...replicas, ...own, ...more, this.mountpoint);
  }

  chiron(...args: string[]): Promise<Ran> {
    return run(chiron, args, { timeoutMs: 300_000, env: this.#env });
  }

  async status(): Promise<VolumeStatus> {
    const { out, err } = await this.chiron("status", "--json", this.mountpoint);
    try {
      return JSON.parse(out) as VolumeStatus;
    } catch {
      throw new Error(`chiron status says: ${out}${err}`);
    }
  }

  /** Waits until the status says so. */
  async until(what: string, holds: (status: VolumeStatus) => boolean, timeoutMs = 120_000): Promise<VolumeStatus> {
    let last = "";
    return eventually(
      what,
      async () => {
        try {
          const status = await this.status();
          last = JSON.stringify(status);
          return holds(status) ? status : null;
        } catch (error) {
          last = String(error); // no answer while its process is replaced
          return null;
        }
      },
      timeoutMs,
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${last}\n${this.log()}`);
    });
  }

  healthy(): Promise<VolumeStatus> {
    return this.until("all replicas are in sync", (status) => status.state === "Healthy", 240_000);
  }

  lost(name: string): Promise<VolumeStatus> {
    return this.until(`replica ${name} is left behind`, ({ replicas }) =>
      replicas.some((replica) => replica.name === name && replica.state !== "InSync"),
    );
  }

  async unmount(): Promise<void> {
    const { status, out, err } = await this.chiron("unmount", this.mountpoint);
    if (status !== 0) throw new Error(`chiron unmount: status ${status}\n${out}${err}\n${this.log()}`);
  }

  /** Holder, volume process and its spare. */
  processes(): number[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          return (
            readFileSync(`/proc/${pid}/environ`, "latin1").includes(`CHIRON_RUN_DIR=${this.base}/run\0`) &&
            readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("/src/volume/")
          );
        } catch {
          return false; // it has just ended
        }
      })
      .map(Number);
  }

  /** As if the machine had stopped: holder, volume process and spare are gone at once, and the mount with them. */
  async crash(): Promise<void> {
    for (const pid of this.processes()) process.kill(pid, "SIGSTOP"); // so that none starts another
    for (const pid of this.processes()) process.kill(pid, "SIGKILL");
    await eventually("they have ended", async () => (this.processes().length === 0 ? true : null));
    await run("umount", ["-l", this.mountpoint]);
  }

  /** The replicas' trees are equal: said by a program that shares no code with the volume. */
  async assertEqual(...options: string[]): Promise<void> {
    const program = join(checkout, "test/trees-equal.py");
    const { status, out, err } = await run("python3", [program, ...options, ...this.disks.map((disk) => disk.path)], {
      timeoutMs: 300_000,
    });
    assert.equal(status, 0, `${out}${err}\n${this.log()}`);
  }

  /** The end of the log of holder and volume process. */
  log(lines = 40): string {
    try {
      return readFileSync(join(this.base, "log"), "utf8").trimEnd().split("\n").slice(-lines).join("\n");
    } catch {
      return "(no log)";
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const disk of this.disks) await disk.letGo();
    const unmounted = await run(chiron, ["unmount", this.mountpoint], { timeoutMs: 30_000, env: this.#env });
    if (unmounted.status !== 0) {
      await run("umount", ["-l", this.mountpoint]);
      for (const pid of this.processes()) kill(pid);
    }
    for (const disk of this.disks) await disk.dispose();
    rmSync(this.base, { recursive: true, force: true });
  }
}
