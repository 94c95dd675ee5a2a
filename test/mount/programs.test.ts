/** Real programs on a mount, one after the other; after each both replicas hold the same. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { cannotMount, checkout, must, run } from "./command.ts";
import { TestVolume } from "./test-volume.ts";

const directory = join(checkout, "test/programs");
const programs = readdirSync(directory).filter(
  (name) => name !== "run" && (statSync(join(directory, name)).mode & 1) !== 0,
);
const reason = await cannotMount();

for (const writeCache of ["none", "write-back"]) {
  describe(`programs on a mount, write cache ${writeCache}`, { skip: reason ?? false }, () => {
    let volume: TestVolume;
    before(async () => {
      volume = await TestVolume.start({ args: ["--write-cache", writeCache] });
    });
    after(async () => volume?.[Symbol.asyncDispose]());

    for (const program of programs) {
      // Of the second round only what the kernel's cache may matter to.
      if (
        writeCache !== "none" &&
        !["append", "direct", "fio", "mmap", "one-writer", "open-files", "sqlite", "untar"].includes(program)
      )
        continue;
      test(program, { timeout: 420_000 }, async (t) => {
        const { status, out } = await run(join(directory, "run"), [volume.mountpoint, program], { timeoutMs: 400_000 });
        if (status !== 0) throw new Error(`${out}\n${volume.log()}`);
        if (out.startsWith("skipped")) t.skip(out.trim());
        await must("sync", ["-f", volume.mountpoint]);
        await volume.assertEqual();
        const { replicas } = await volume.status();
        for (const replica of replicas) {
          if (replica.state !== "InSync")
            throw new Error(`Replica ${replica.name} was left behind: ${replica.reason}\n${volume.log()}`);
        }
      });
    }
  });
}
