/**
 * Replicas fail while an application works and checks each byte: no error for the application, and equal replicas when
 * the one that failed is back. Beside `replica-loss.test.ts`: servers that die, disks that fail, a dropped full replica,
 * a replica without its marker, and failures in turn.
 */
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

  test("everything in it is removed, even what says whose it is", { timeout: 300_000 }, async () => {
    await survives({ disks: [directoryDisk, directoryDisk, directoryDisk] }, async (volume, application) => {
      await shell(`until find "${volume.disk(2).path}" -mindepth 1 -delete 2>/dev/null; do sleep 0.1; done`); // others go on writing
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
