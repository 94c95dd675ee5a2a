/** Volumes whose replicas are NFS exports, under a verifying workload, while their servers stop, die and come back. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench } from "../faults/harness.ts";
import { differences } from "./differences.ts";
import { available, Ganesha } from "./ganesha.ts";

describe("volumes of NFS replicas", { skip: available ? false : "needs root, nfs-ganesha and rpcbind" }, () => {
  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: a server that hangs, is killed, and is started again: no error, equal trees`, async () => {
      await using mars = await Ganesha.start({ exports: ["mars"] });
      await using venus = await Ganesha.start({ exports: ["venus"] });
      await using bench = new Bench();
      const replicas = [`mars=${mars.url(version, "/mars")}`, `venus=${venus.url(version, "/venus")}`];
      bench.mount("--deadline", "2s", ...replicas.flatMap((replica) => ["--replica", replica]));
      const work = bench.workload(60);
      await sleep(1_500);
      await venus.freeze();
      await bench.until("degraded", (status) => status.state === "Degraded");
      await sleep(1_000);
      venus.signal("SIGCONT");
      await bench.healthy();
      await mars.kill();
      await sleep(500);
      await mars.start();
      await bench.healthy();
      await venus.kill();
      await bench.until("degraded", (status) => status.state === "Degraded");
      await venus.start();
      await bench.healthy();
      bench.endWorkloads();
      await work.done;
      await bench.healthy();
      bench.unmount();
      assert.deepEqual(differences(join(mars.directory, "mars"), join(venus.directory, "venus")), []);
    });

    test(`v${version}: an export beside a local directory: no error, equal trees`, async () => {
      await using mars = await Ganesha.start({ exports: ["mars"] });
      await using bench = new Bench();
      const local = bench.make("venus");
      bench.mount("--replica", `mars=${mars.url(version, "/mars")}`, "--replica", `venus=${local}`);
      const work = bench.workload(8);
      await work.done;
      await bench.healthy();
      assert.doesNotMatch(bench.lastLog(), /out of sync/);
      bench.compare(join(mars.directory, "mars"), local);
    });
  }

  test("an export that holds another volume's replica, or none, is not written", async () => {
    await using server = await Ganesha.start({ exports: ["a", "b", "c"] });
    await using bench = new Bench();
    const url = (name: string) => `${name}=${server.url("4.1", `/${name}`)}`;
    bench.mount("--replica", url("a"), "--replica", url("b"));
    bench.unmount();
    mkdirSync(join(server.directory, "c/data"));
    const { status, stderr } = bench.chiron("mount", "--replica", url("a"), "--replica", url("c"), bench.mountpoint);
    assert.notEqual(status, 0);
    assert.match(stderr, /"c"|"b"/);
    assert.throws(() => readFileSync(join(server.directory, "c/.chiron/replica.json")));
  });

  test("a directory that does not exist is made when the volume is, if that is asked for, and never after that", async () => {
    await using server = await Ganesha.start({ exports: ["a", "b"] });
    await using bench = new Bench();
    const replicas = (query: string) =>
      ["a", "b"].flatMap((name) => ["--replica", `${name}=${server.url("4.1", `/${name}/new/dir`, query)}`]);
    const refused = bench.chiron("mount", ...replicas(""), bench.mountpoint);
    assert.notEqual(refused.status, 0);
    assert.match(refused.stderr, /\/new does not exist in the export: make it first, or add mkdir=1/);
    assert.equal(existsSync(join(server.directory, "a/new")), false);
    bench.mount(...replicas("&mkdir=1"));
    bench.unmount();
    const { mode } = statSync(join(server.directory, "a/new/dir"));
    assert.equal(mode & 0o777, 0o755);
    await server.kill(); // it would answer from its cache
    renameSync(join(server.directory, "b/new"), join(server.directory, "b/old"));
    await server.start();
    const { status } = bench.chiron("mount", ...replicas("&mkdir=1"), bench.mountpoint);
    assert.notEqual(status, 0);
    assert.equal(existsSync(join(server.directory, "b/new")), false);
  });
});
