/** The volume process dies or hangs, again and again, at random moments. */
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench } from "./harness.ts";

test("kill -9 of the volume process at random moments reaches no application, and replicas stay alike", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "tmpfs");
  const b = bench.fileSystem("b", "tmpfs");
  bench.mount("--replica", `a=${a}`, "--replica", `b=${b}`);
  const work = [bench.workload(10), bench.workload(10)];
  const random = Math.random;
  for (let i = 0; i < 10; i++) {
    await sleep(random() * 600);
    const pid = bench.volumePid();
    process.kill(pid, "SIGKILL");
    await bench.until("served by another process", (status) => status.pid !== pid);
  }
  await Promise.all(work.map(({ done }) => done));
  await bench.healthy();
  bench.compare(a, b);
});

test("a stopped volume process is replaced after the deadline", async () => {
  await using bench = new Bench();
  const a = bench.fileSystem("a", "tmpfs");
  const b = bench.fileSystem("b", "tmpfs");
  bench.mount("--deadline", "2s", "--replica", `a=${a}`, "--replica", `b=${b}`);
  const work = bench.workload(6);
  await sleep(500);
  const { pid } = bench.status();
  process.kill(pid, "SIGSTOP");
  await bench.until("served by another process", (status) => status.pid !== pid);
  await work.done;
  await bench.healthy();
  bench.compare(a, b);
});
