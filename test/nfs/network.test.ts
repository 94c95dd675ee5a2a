/** Networks that lose packets, or everything, without a word, and servers that stop for long: volumes under a verifying workload. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, run } from "../faults/harness.ts";
import { differences } from "./differences.ts";
import { available, Ganesha } from "./ganesha.ts";

/** Drops packets to and from a port of this machine; undone when disposed. */
class Loss implements Disposable {
  readonly #rules: string[][];

  constructor(port: number, probability: number) {
    const some = probability < 1 ? ["-m", "statistic", "--mode", "random", "--probability", String(probability)] : [];
    this.#rules = ["--dport", "--sport"].map(
      (side) => ["INPUT", "-i", "lo", "-p", "tcp", side, String(port), ...some, "-j", "DROP"], // towards the server, and back
    );
    for (const rule of this.#rules) run("iptables", "-I", ...rule);
  }

  [Symbol.dispose](): void {
    for (const rule of this.#rules) spawnSync("iptables", ["-D", ...rule]);
  }
}

const canDrop = spawnSync("iptables", ["-w", "-L", "-n"]).status === 0;
const reason = !available ? "needs root, nfs-ganesha and rpcbind" : !canDrop ? "needs iptables" : false;

describe("networks of NFS replicas", { skip: reason, concurrency: 3 }, () => {
  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: packets that are lost both ways cost time, and nothing else`, async () => {
      await using mars = await Ganesha.start({ exports: ["mars"] });
      await using venus = await Ganesha.start({ exports: ["venus"] });
      await using bench = new Bench();
      const urls = [`mars=${mars.url(version, "/mars")}`, `venus=${venus.url(version, "/venus")}`];
      bench.mount(...urls.flatMap((url) => ["--replica", url]));
      {
        using _toMars = new Loss(mars.port, 0.02);
        using _toVenus = new Loss(venus.port, 0.05);
        await bench.workload(6).done;
      }
      await bench.healthy();
      assert.doesNotMatch(bench.lastLog(), /out of sync/);
      bench.unmount();
      assert.deepEqual(differences(join(mars.directory, "mars"), join(venus.directory, "venus")), []);
    });
  }

  test("a server that stops for a minute comes back; one that stops for ever keeps nobody from unmounting", async () => {
    await using mars = await Ganesha.start({ exports: ["mars"] });
    await using venus = await Ganesha.start({ exports: ["venus"] });
    await using bench = new Bench();
    const urls = [`mars=${mars.url("3", "/mars")}`, `venus=${venus.url("4.1", "/venus")}`];
    bench.mount("--deadline", "3s", ...urls.flatMap((url) => ["--replica", url]));
    const work = bench.workload(2);
    await sleep(500);
    await venus.freeze();
    await work.done;
    assert.equal(bench.status().state, "Degraded");
    await sleep(60_000);
    venus.signal("SIGCONT");
    await bench.healthy();
    await mars.freeze();
    await bench.workload(2).done;
    const began = Date.now();
    bench.unmount();
    assert.ok(Date.now() - began < 60_000);
    mars.signal("SIGCONT");
  });
});
