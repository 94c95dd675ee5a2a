/** The volume process is killed and stopped while an application works: it sees pauses, never an error. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { seeded } from "../../src/replica/testing/random.ts";
import { cannotMount, eventually, shell } from "../mount/command.ts";
import { directoryDisk, LoopDisk } from "../mount/disk.ts";
import { TestVolume } from "../mount/test-volume.ts";
import { Workload } from "../mount/workload.ts";

const reason = await cannotMount();
const seed = Number(process.env["CHIRON_SEED"] ?? Date.now() % 100_000);
/** Hundreds of them, for a soak. */
const kills = Number(process.env["CHIRON_KILLS"] ?? 8);

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe(`the volume process fails under an application (seed ${seed})`, { skip: reason ?? false }, () => {
  test(`kill -9 at ${kills} random moments, and SIGSTOP at some`, { timeout: 400_000 + 10_000 * kills }, async (t) => {
    const choose = seeded(seed);
    let [done, operations, slowestMs] = [0, 0, 0];
    for (let round = 0; done < kills; round++) {
      // Five deaths in a minute, and the next process is started ever more slowly: another volume goes on before that.
      const kinds = { suffix: pick(["", "?run=threads"]), cache: pick(["write-back", "none"]) };
      await using volume = await TestVolume.start({
        suffix: kinds.suffix,
        args: ["--write-cache", kinds.cache, "--deadline", "2s"],
      });
      const application = new Workload(volume.mountpoint, seed + round);
      try {
        await application.goesOn();
        for (let kill = Math.min(4, kills - done); kill > 0; kill--, done++) {
          await pause(choose(600));
          await killVolumeProcess(volume, done % 6 === 5 ? "SIGSTOP" : "SIGKILL");
          if (choose(3) === 0) await application.goesOn(50);
        }
        await application.goesOn();
        await application.finish();
        await volume.healthy();
        await volume.unmount();
        await volume.assertEqual();
        const [why = ""] = /.*is out of sync.*/.exec(volume.log(10_000)) ?? [];
        assert.equal(why, "", "a replica was left behind for a process that died");
        operations += application.operations;
        slowestMs = Math.max(slowestMs, application.slowestMs);
      } catch (error) {
        const where = `seed ${seed}, round ${round}, ${JSON.stringify(kinds)}`;
        throw new Error(`${where}: ${(error as Error).message}\n${volume.log()}`, { cause: error });
      } finally {
        application.kill();
      }
    }
    t.diagnostic(`${operations} operations, the slowest took ${slowestMs} ms`);

    function pick<T>(of: readonly T[]): T {
      return of[choose(of.length)] as T;
    }
  });

  test("writers that are killed while the volume process is leave no error behind for whoever syncs", {
    timeout: 300_000,
  }, async () => {
    const choose = seeded(seed);
    await using volume = await TestVolume.start({ args: ["--write-cache", "write-back"] });
    // Writes of every size, at odd places, so that pages are read first; killed at any moment, and synced in between.
    const writer = `import os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
while True: os.pwrite(fd, os.urandom(random.randrange(1, 9000)), random.randrange(400000))`;
    const script = `
      cd "${volume.mountpoint}"
      for round in $(seq ${Math.max(12, kills * 2)}); do
        for i in 1 2 3; do python3 -c '${writer}' f$i & done
        sleep 0.$((RANDOM % 5))
        kill -9 $(jobs -p)
        wait 2>/dev/null || true
        sync -f .
        for i in 1 2 3; do test ! -e f$i || sync f$i; done
      done`;
    const writers = shell(script, { timeoutMs: 240_000 });
    writers.catch(() => {});
    let ended = false;
    void writers.then(
      () => {
        ended = true;
      },
      () => {
        ended = true;
      },
    );
    for (let kill = 0; kill < 4 && !ended; kill++) {
      await pause(400 + choose(2000));
      await killVolumeProcess(volume, "SIGKILL");
    }
    await writers;
    await volume.healthy();
    await volume.unmount();
    await volume.assertEqual();
  });

  test("everything is killed at once, and what was written is there after the next mount", {
    timeout: 300_000,
  }, async () => {
    await using volume = await TestVolume.start();
    for (let round = 0; round < 4; round++) {
      const application = new Workload(volume.mountpoint, seed + round, "--processes", "2");
      await application.goesOn(200);
      await volume.crash();
      application.kill();
      await volume.mount();
      await volume.healthy();
      await shell(`find "${volume.mountpoint}" -type f -exec cat {} + > /dev/null; rm -rf "${volume.mountpoint}"/w*`);
      await volume.unmount();
      await volume.assertEqual();
      await volume.mount();
    }
  });

  for (const type of ["ext4", "xfs"] as const) {
    test(`the power is cut on all replicas (${type}): they are made alike, and what was fsynced is there`, {
      timeout: 400_000,
    }, async () => {
      await using volume = await TestVolume.start({ disks: [LoopDisk.make(type), LoopDisk.make(type)] });
      for (let round = 0; round < 3; round++) {
        const application = new Workload(volume.mountpoint, seed + round);
        try {
          await application.goesOn(200);
          const file = `${volume.mountpoint}/synced-${round}`;
          await shell(
            `echo "round ${round}" > "${file}"; sync "${file}"; sync "${volume.mountpoint}"; echo later >> "${file}"`,
          );
          await application.goesOn(50);
          // Not at one moment: each loses something else.
          for (const disk of volume.disks) await (disk as LoopDisk).cutPower();
          await volume.crash();
        } finally {
          application.kill();
        }
        for (const disk of volume.disks) await (disk as LoopDisk).powerOn();
        await volume.mount();
        await volume.healthy();
        for (let earlier = 0; earlier <= round; earlier++) {
          await shell(`head -n 1 "${volume.mountpoint}/synced-${earlier}" | grep -qx "round ${earlier}"`);
        }
        await volume.unmount();
        await volume.assertEqual();
        await volume.mount();
        await shell(`rm -rf "${volume.mountpoint}"/w*`);
      }
    });
  }

  test("kill -9 in the middle of a resync: it goes on", { timeout: 300_000 }, async () => {
    await using volume = await TestVolume.start({
      disks: [directoryDisk, LoopDisk.make("ext4")],
      args: ["--resync-bandwidth", "4M"],
    });
    const disk = volume.disk(1) as LoopDisk;
    await shell(`cd "${volume.mountpoint}"; for i in $(seq 40); do head -c 512K /dev/urandom > base-$i; done`);
    await disk.cutPower();
    await volume.lost("b");
    const application = new Workload(volume.mountpoint, seed);
    try {
      await application.goesOn();
      await shell(`cd "${volume.mountpoint}"; for i in $(seq 30); do head -c 512K /dev/urandom > base-$i; done`);
      await disk.powerOn();
      for (let kill = 0; kill < 2; kill++) {
        await volume.until("the resync runs", ({ state }) => state === "Syncing");
        await pause(500);
        await killVolumeProcess(volume, "SIGKILL");
        await application.goesOn(50);
      }
      await application.goesOn();
      await volume.healthy();
      await application.finish();
      await volume.unmount();
      await volume.assertEqual();
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}\n${volume.log()}`, { cause: error });
    } finally {
      application.kill();
    }
  });
});

/** The process that serves now, as the status says. */
async function killVolumeProcess(volume: TestVolume, signal: "SIGKILL" | "SIGSTOP"): Promise<void> {
  await eventually("a volume process serves", async () => {
    try {
      const { pid } = await volume.status();
      return pid > 0 && process.kill(pid, signal) ? true : null;
    } catch {
      return null; // being replaced
    }
  });
}
