/** A volume whose replicas are directories that servers of ours serve, while these die and come back. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { makeCertificates } from "../../src/backend/testing/certificates.ts";
import { freePort } from "../kubernetes/processes.ts";
import { cannotMount, checkout, eventually, run } from "./command.ts";
import type { Disk } from "./disk.ts";
import { TestVolume } from "./test-volume.ts";
import { Workload } from "./workload.ts";

class ServedDisk implements Disk {
  readonly name: string;
  readonly path: string;
  readonly directory: string;
  readonly #port: number;
  readonly #tls: string;
  #process: ChildProcess | null = null;

  private constructor(base: string, name: string, port: number) {
    this.name = name;
    this.directory = join(base, `${name}-served`);
    this.#tls = join(base, "tls");
    this.#port = port;
    this.path = `chiron://127.0.0.1:${port}/below?tls=${join(this.#tls, "client")}`;
    mkdirSync(join(this.directory, "below"), { recursive: true });
  }

  static async make(base: string, name: string): Promise<ServedDisk> {
    if (!existsSync(join(base, "tls"))) makeCertificates(join(base, "tls"));
    const disk = new ServedDisk(base, name, await freePort());
    await disk.start();
    return disk;
  }

  async start(): Promise<void> {
    const args = [`--directory=${this.directory}`, `--port=${this.#port}`, `--tls-dir=${join(this.#tls, "server")}`];
    const main = join(checkout, "src/backend/main.ts");
    const probePort = await freePort();
    this.#process = spawn(process.execPath, [main, ...args, `--probe-port=${probePort}`], { stdio: "ignore" });
    await eventually("it serves", async () => {
      const answered = await fetch(`http://127.0.0.1:${probePort}/`).catch(() => null);
      return answered?.ok === true ? true : null;
    });
  }
  stop(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }
  async letGo(): Promise<void> {
    this.#process?.kill("SIGCONT");
  }
  async dispose(): Promise<void> {
    this.#process?.kill("SIGKILL");
  }
}

describe("a volume of served directories", { skip: (await cannotMount()) ?? false }, () => {
  it("goes on when a server is killed or hangs, and is equal everywhere in the end", async () => {
    await using volume = await TestVolume.start({
      disks: [ServedDisk.make, ServedDisk.make],
      args: ["--deadline", "2s"],
    });
    const [first, second] = volume.disks as ServedDisk[];
    assert.ok(first && second);
    const work = new Workload(volume.mountpoint, 7);
    await work.goesOn(60);
    second.stop("SIGKILL");
    await volume.lost("b");
    await work.goesOn(60);
    await second.start();
    await volume.healthy();
    first.stop("SIGSTOP");
    await volume.lost("a");
    await work.goesOn(60);
    first.stop("SIGCONT");
    await volume.healthy();
    await work.goesOn(60);
    await work.finish();
    await volume.healthy();
    await volume.unmount();
    const trees = [first, second].map(({ directory }) => join(directory, "below"));
    assert.ok(readdirSync(trees[0] ?? "").length > 1);
    const compared = await run("python3", [join(checkout, "test/trees-equal.py"), ...trees]);
    assert.equal(compared.status, 0, compared.out + compared.err);
  });
});
