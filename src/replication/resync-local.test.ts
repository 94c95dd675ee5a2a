/** The same as with replicas in memory, on directories: descriptors that are kept, threads, real holes and inodes. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LocalReplica } from "../replica/local.ts";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { seeded } from "../replica/testing/random.ts";
import { Resync } from "./resync.ts";
import { randomOperation } from "./testing/history.ts";
import { TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

const runs = Number(process.env["CHIRON_TEST_RUNS"] ?? 4);
const firstSeed = Number(process.env["CHIRON_TEST_SEED"] ?? 1);

/** Everything about a tree that has to be the same, by find(1) and checksums. */
function described(root: string): string {
  const script = `cd "$1" && find . -path ./.chiron -prune -o -printf '%p %y %m %U:%G %s %n %T@ %l\\n' | grep -v ' d ' | sort
    find . -path ./.chiron -prune -o -type d -printf '%p %m %U:%G %T@\\n' | sort
    find . -path ./.chiron -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum
    find . -path ./.chiron -prune -o -print0 | sort -z | xargs -0 -r getfattr -hd -m - 2>/dev/null`;
  return execFileSync("bash", ["-c", script, "bash", root], { encoding: "utf8" });
}

test("a resync of directories beside changes ends with equal trees", { timeout: 300_000 }, async () => {
  if (process.getuid?.() !== 0) return;
  const top = mkdtempSync(join(tmpdir(), "chiron-resync-"));
  try {
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
      const choose = seeded(seed);
      const paths = ["a", "b"].map((name) => join(top, `${seed}-${name}`));
      for (const path of paths) mkdirSync(path);
      const replicas = paths.map((path, i) => new LocalReplica({ name: `r${i}`, path }));
      for (const replica of replicas) await replica.connect({ signal: new AbortController().signal });
      const volume = await TestVolume.open([new MemoryDisk(), new MemoryDisk()], {
        wrap: (_, index) => replicas[index] as LocalReplica,
      });
      const some = async (): Promise<void> => {
        for (let i = 10 + choose(40); i > 0; i--) await volume.run(randomOperation(choose, 100_000));
      };
      await some();
      if (choose(2) === 0) await volume.intents.checkpoint();
      await some();
      volume.membership.expel([1]);
      if (choose(4) === 0) volume.missed.forgetAll(1);
      await some();
      volume.membership.startSync(1);
      const options = { throttle: new Throttle({ sliceMs: 0 }), signal: new AbortController().signal };
      let ended = false;
      const running = new Resync(volume.resyncDeps, 1, options).run().finally(() => {
        ended = true;
      });
      for (let i = choose(60); i > 0 && !ended; i--) {
        await volume.run(randomOperation(choose, 100_000));
        await new Promise((resolve) => setImmediate(resolve));
      }
      await running;
      await some();
      await volume.settle();
      const [a, b] = paths.map(described);
      assert.equal(b, a, `Seed ${seed}`);
      for (const replica of replicas) await replica.disconnect();
    }
  } finally {
    rmSync(top, { recursive: true, force: true });
  }
});
