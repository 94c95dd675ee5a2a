/** A public POSIX suite on mounts: what the file system underneath passes, the mount passes. */
import { join } from "node:path";
import { describe, test } from "node:test";
import { cannotMount, checkout, run } from "./command.ts";
import { LoopDisk } from "./disk.ts";
import { TestVolume } from "./test-volume.ts";

const reason = await cannotMount();

describe("POSIX suite", { skip: reason ?? false }, () => {
  for (const [title, type, args] of [
    ["ext4", "ext4", []],
    ["ext4, write-back cache", "ext4", ["--write-cache", "write-back"]],
    ["xfs", "xfs", []],
  ] as const) {
    test(`on a mount over two replicas on ${title}`, { timeout: 900_000 }, async (t) => {
      await using volume = await TestVolume.start({ disks: [LoopDisk.make(type), LoopDisk.make(type)], args });
      const under = volume.disk(0).path.replace(/a$/, "under");
      const disk = await LoopDisk.make(type)(volume.base, "under");
      try {
        const { status, out, err } = await run(
          join(checkout, "test/posix/run"),
          ["--baseline", under, "--operations", "5000", volume.mountpoint],
          { timeoutMs: 800_000 },
        );
        if (status === 77) {
          t.skip(`LEFT OUT: ${err.trim()}`);
          return;
        }
        if (status !== 0) throw new Error(`${out}${err}\n${volume.log()}`);
        t.diagnostic(out.trim());
        await volume.assertEqual();
      } finally {
        await disk.dispose();
      }
    });
  }
});
