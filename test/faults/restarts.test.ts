/**
 * No lie after a restart: replicas go and come back in any order, while the volume is mounted and while it is not, and it
 * ends in order or at once. Whatever a mount shows is what was acknowledged last; otherwise it refuses.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, renameSync } from "node:fs";
import { describe, test } from "node:test";
import { seeded } from "../../src/replica/testing/random.ts";
import { cannotMount, run, shell } from "../mount/command.ts";
import { directoryDisk } from "../mount/disk.ts";
import { TestVolume } from "../mount/test-volume.ts";

const reason = await cannotMount();
const seed = Number(process.env["CHIRON_SEED"] ?? Date.now() % 100_000);
const rounds = Number(process.env["CHIRON_ROUNDS"] ?? 12);

const isAway = (path: string) => existsSync(`${path}.away`);
const takeAway = (path: string) => renameSync(path, `${path}.away`);
const bringBack = (path: string) => renameSync(`${path}.away`, path);

describe(`no lie after a restart (seed ${seed})`, { skip: reason ?? false }, () => {
  for (const { count, witness } of [
    { count: 2, witness: false },
    { count: 2, witness: true },
    { count: 3, witness: false },
  ]) {
    const title = `${count} replicas${witness ? " and a witness" : ""}`;
    test(`${title} that go and come back in any order, ${rounds} mounts`, { timeout: 600_000 }, async (t) => {
      const choose = seeded(seed);
      await using volume = await TestVolume.start({
        disks: Array.from({ length: count }, () => directoryDisk),
        args: (base) => {
          if (witness) mkdirSync(`${base}/witness`, { recursive: true });
          return ["--deadline", "2s", ...(witness ? ["--witness", `${base}/witness`] : [])];
        },
      });
      const counter = `${volume.mountpoint}/counter`;
      const done: string[] = [];
      /** What the counter may be: what was acknowledged last, and what was tried since without an answer. */
      let possible = new Set([""]);
      let isMounted = true;
      let refusals = 0;
      const change = async (n: number): Promise<void> => {
        const script = `echo ${n} > "${counter}.new"; sync "${counter}.new"; mv "${counter}.new" "${counter}"; sync "${volume.mountpoint}"`;
        const { status } = await run("timeout", ["-k", "1", "30", "bash", "-ec", script], { timeoutMs: 60_000 });
        if (status === 0) possible = new Set([`${n}`]);
        else possible.add(`${n}`);
        done.push(`change ${n}: ${status}`);
      };
      const look = async (): Promise<void> => {
        const { out } = await run("timeout", ["-k", "1", "30", "cat", counter]);
        assert.ok(possible.has(out.trim()), `the counter is "${out.trim()}", not one of ${[...possible].join(", ")}`);
        possible = new Set([out.trim()]);
      };
      const shuffle = (least: number): void => {
        for (const { path, name } of volume.disks) {
          const away = volume.disks.filter((disk) => isAway(disk.path)).length;
          if (choose(2) === 0) continue;
          if (isAway(path)) bringBack(path);
          else if (count - away > least) takeAway(path);
          else continue;
          done.push(`${name} ${isAway(path) ? "away" : "back"}`);
        }
      };
      try {
        for (let round = 1; round <= rounds; round++) {
          for (let i = choose(3); i >= 0; i--) {
            await change(round * 10 + i);
            if (choose(3) > 0) continue;
            shuffle(1);
            await new Promise((resolve) => setTimeout(resolve, choose(2500)));
          }
          if (choose(2) === 0) {
            await volume.crash();
            done.push("crash");
          } else {
            const { status } = await volume.chiron("unmount", "--force", volume.mountpoint);
            done.push(`unmount: ${status}`);
            if (status !== 0) await volume.crash();
          }
          isMounted = false;
          for (let attempt = 0; !isMounted; attempt++) {
            if (attempt < 4) shuffle(0);
            else for (const { path } of volume.disks) if (isAway(path)) bringBack(path);
            const { status, err } = await volume.tryMount();
            isMounted = status === 0;
            done.push(`mount: ${isMounted ? "" : err.trim()}`);
            if (!isMounted) refusals++;
            assert.ok(isMounted || attempt < 5, `it does not mount with everything here: ${err}`);
          }
          await look();
        }
        for (const { path } of volume.disks) if (isAway(path)) bringBack(path);
        await volume.healthy();
        await look();
        await volume.unmount();
        await volume.assertEqual();
        t.diagnostic(`${refusals} mounts were refused`);
      } catch (error) {
        const text = `seed ${seed}: ${(error as Error).message}\n${done.join("\n")}\n${volume.log(100)}`;
        throw new Error(text, { cause: error });
      } finally {
        for (const { path } of volume.disks) if (isAway(path)) bringBack(path);
      }
    });
  }

  test("a replica that misses a mount is brought up to date with what changed meanwhile, and no more", {
    timeout: 120_000,
  }, async () => {
    const disks = [directoryDisk, directoryDisk, directoryDisk];
    await using volume = await TestVolume.start({ disks });
    const { path } = volume.disk(2);
    await shell(`cd "${volume.mountpoint}"; for i in $(seq 20); do head -c 1M /dev/urandom > big-$i; done`);
    for (const end of ["in order", "at once"]) {
      if (end === "in order") await volume.unmount();
      else {
        await shell(`sync "${volume.mountpoint}"; sleep 6`); // what was written is on stable storage, and its intents cleared
        await volume.crash();
      }
      takeAway(path);
      await volume.mount();
      await shell(
        `cd "${volume.mountpoint}"; for i in 1 2 3; do head -c 100K /dev/urandom > new-$i; done; rm big-7 || true`,
      );
      const before = volume.log(1000).length;
      bringBack(path);
      await volume.healthy();
      const [, bytes = "-1"] = /"Resync is done".*"bytesWritten":(\d+)/.exec(volume.log(1000).slice(before)) ?? [];
      assert.ok(Number(bytes) >= 0 && Number(bytes) <= 1.1 * 3 * 102_400, `${end}: ${bytes} bytes\n${volume.log()}`);
    }
    await volume.unmount();
    await volume.assertEqual();
  });
});
