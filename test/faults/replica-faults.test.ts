/**
 * One replica fails in every way that a test can arrange, while an application works and checks each byte: no error for
 * the application, and equal replicas when the one that failed is back.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { cannotMount, run, shell } from "../mount/command.ts";
import { directoryDisk, LoopDisk, StoppableDisk } from "../mount/disk.ts";
import { TestVolume, type TestVolumeOptions } from "../mount/test-volume.ts";
import { Workload } from "../mount/workload.ts";

const reason = await cannotMount();
const seed = Number(process.env["CHIRON_SEED"] ?? Date.now() % 100_000);

/** Starts a volume and an application, lets `breakAndMend` do its work, and sees that all is well at the end. */
async function survives(
  options: TestVolumeOptions,
  breakAndMend: (volume: TestVolume, application: Workload) => Promise<void>,
): Promise<void> {
  await using volume = await TestVolume.start(options);
  const application = new Workload(volume.mountpoint, seed);
  try {
    await application.goesOn();
    await breakAndMend(volume, application);
    await application.goesOn();
    await volume.healthy();
    await application.finish();
    await volume.healthy();
    await volume.unmount();
    await volume.assertEqual();
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}\n${volume.log()}`, { cause: error });
  } finally {
    application.kill();
  }
}

const deadline = ["--deadline", "2s"];

describe(`a replica fails under an application (seed ${seed})`, { skip: reason ?? false }, () => {
  for (const [run, suffix] of [
    ["on the loop", "?run=loop"],
    ["on threads", "?run=threads"],
  ] as const) {
    test(`it hangs, its calls run ${run}`, { timeout: 300_000 }, async () => {
      await survives(
        { disks: [directoryDisk, StoppableDisk.make], suffix, args: deadline },
        async (volume, application) => {
          const disk = volume.disk(1) as StoppableDisk;
          disk.stop();
          await application.goesOn();
          await volume.lost("b");
          await application.goesOn();
          await disk.letGo();
        },
      );
    });
  }

  test("the leader hangs for a while, is back, and the other one hangs", { timeout: 400_000 }, async () => {
    await survives({ disks: [StoppableDisk.make, StoppableDisk.make], args: deadline }, async (volume, application) => {
      for (const index of [0, 1]) {
        const disk = volume.disk(index) as StoppableDisk;
        disk.stop();
        await application.goesOn();
        await volume.lost(disk.name);
        await disk.letGo();
        await volume.healthy();
        await application.goesOn();
      }
    });
  });

  test("its server dies (ENOTCONN), and is back", { timeout: 300_000 }, async () => {
    await survives({ disks: [directoryDisk, StoppableDisk.make] }, async (volume, application) => {
      const disk = volume.disk(1) as StoppableDisk;
      disk.kill();
      await volume.lost("b");
      await application.goesOn();
      await disk.mountAgain();
    });
  });

  test("its mount vanishes, and nothing is written into the directory underneath", { timeout: 300_000 }, async () => {
    await survives({ disks: [directoryDisk, LoopDisk.make("ext4")] }, async (volume, application) => {
      const disk = volume.disk(1) as LoopDisk;
      await disk.vanish();
      await application.goesOn();
      await volume.lost("b");
      await application.goesOn();
      assert.equal(await shell(`ls -A "${disk.path}"`), "");
      await disk.powerOn();
    });
  });

  for (const type of ["ext4", "xfs"] as const) {
    test(`its disk fails (EIO), ${type}`, { timeout: 300_000 }, async () => {
      await survives({ disks: [directoryDisk, LoopDisk.make(type)] }, async (volume, application) => {
        const disk = volume.disk(1) as LoopDisk;
        await disk.cutPower();
        await volume.lost("b");
        await application.goesOn();
        await disk.powerOn();
      });
    });
  }

  test("its file system becomes read-only (EROFS)", { timeout: 300_000 }, async () => {
    await survives({ disks: [LoopDisk.make("ext4"), directoryDisk] }, async (volume, application) => {
      const disk = volume.disk(0) as LoopDisk;
      await shell(`mount -o remount,ro,abort "${disk.path}" || true`);
      await volume.lost("a");
      await application.goesOn();
      await disk.powerOn();
    });
  });

  test("it has no space (ENOSPC), and may be left behind for that", { timeout: 300_000 }, async () => {
    await survives(
      { disks: [directoryDisk, LoopDisk.make("ext4")], args: ["--full-policy", "drop-replica"] },
      async (volume, application) => {
        const disk = volume.disk(1) as LoopDisk;
        await run("dd", ["if=/dev/zero", `of=${disk.path}/.chiron/ballast`, "bs=64k", "count=10000"]);
        await volume.lost("b");
        await application.goesOn();
        await shell(`rm -f "${disk.path}/.chiron/ballast"`);
      },
    );
  });

  test("things are removed and changed behind its back", { timeout: 300_000 }, async () => {
    await survives({ disks: [directoryDisk, directoryDisk] }, async (volume, application) => {
      await shell(`
        cd "${volume.disk(1).path}"
        find . -path ./.chiron -prune -o -type f -print | sort | awk 'NR % 5 == 0' | head -n 20 | xargs -r rm -f
        find . -path ./.chiron -prune -o -type f -print | sort | awk 'NR % 7 == 0' | head -n 5 | while read -r f; do echo tampered >> "$f"; done
      `);
      await application.goesOn();
      await volume.chiron("verify", "--repair", volume.mountpoint);
      await application.goesOn();
      await volume.chiron("verify", "--repair", volume.mountpoint);
    });
  });

  test("everything in it is removed, even what says whose it is", { timeout: 300_000 }, async () => {
    await survives({ disks: [directoryDisk, directoryDisk, directoryDisk] }, async (volume, application) => {
      await shell(`find "${volume.disk(2).path}" -mindepth 1 -delete`);
      await volume.lost("c");
      await application.goesOn();
      await volume.chiron("replica", "replace", volume.mountpoint, "c", volume.disk(2).path);
    });
  });

  test("one after the other is lost and comes back", { timeout: 400_000 }, async () => {
    await survives({ disks: [LoopDisk.make("ext4"), LoopDisk.make("ext4")] }, async (volume, application) => {
      for (const index of [1, 0, 1]) {
        const disk = volume.disk(index) as LoopDisk;
        await disk.cutPower();
        await volume.lost(disk.name);
        await application.goesOn();
        await disk.powerOn();
        await volume.healthy();
        await application.goesOn();
      }
    });
  });
});
