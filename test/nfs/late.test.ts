/**
 * NFS v3 has no fence: calls that a client gave up may happen at any later time. A proxy holds some back for a minute, while
 * the replica is brought up to date beside them, and then delivers them.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, startProgram } from "../faults/harness.ts";
import { available, Ganesha } from "./ganesha.ts";
import { FaultyProxy } from "./proxy.ts";

const heldMs = 60_000;

describe("late calls", { skip: available ? false : "needs root, nfs-ganesha and rpcbind" }, () => {
  test("v3: calls that are held back for a minute and then delivered do no harm that lasts", async () => {
    await using mars = await Ganesha.start({ exports: ["mars"] });
    await using venus = await Ganesha.start({ exports: ["venus"] });
    await using proxy = await FaultyProxy.start(venus.port);
    await using bench = new Bench();
    const throughProxy = venus.url("3", "/venus").replace(`:${venus.port}/`, `:${proxy.port}/`);
    // The proxy runs in this process, which must not wait for anything that needs it.
    const shell = (script: string) => startProgram("sh", "-ec", `cd ${bench.mountpoint}; ${script}`).done;
    const replicas = [`mars=${mars.url("3", "/mars")}`, `venus=${throughProxy}`];
    await bench.mountBeside("--deadline", "2s", ...replicas.flatMap((replica) => ["--replica", replica]));
    // Each in a directory of its own: in one, a change waits for the one before it.
    await shell(
      "mkdir a b c d d/old-dir e f; echo one >a/from; echo two >b/gone; echo four >e/mode; echo 12345678 >f/cut",
    );
    // Done once before, so that neither a lookup nor an intent is what has no answer.
    await shell("mv a/from a/to; mv a/to a/from; touch b/x c/x d/x; chmod 600 e/mode; echo 12345678 >f/cut");
    await shell("stat a/to c/new-dir || true");
    await bench.healthy();

    proxy.hold();
    const began = Date.now();
    await Promise.all([
      shell("mv a/from a/to"),
      shell("rm b/gone"),
      shell("mkdir c/new-dir"),
      shell("rmdir d/old-dir"),
      shell("chmod 4711 e/mode"),
      shell("truncate -s 3 f/cut"),
    ]);
    await bench.until("degraded", (status) => status.state === "Degraded");
    assert.ok(proxy.heldBytes > 0);
    proxy.passNew();
    await bench.healthy();
    // What the late calls did is undone: they will do it once more.
    const again = ["mv a/to a/from", "echo again >b/gone", "rmdir c/new-dir", "mkdir d/old-dir", "chmod 600 e/mode"];
    await shell([...again, "echo 123456789 >f/cut"].join("; "));
    await sleep(Math.max(0, began + heldMs - Date.now()));
    assert.equal(bench.status().state, "Healthy");
    proxy.release();
    const tree = join(venus.directory, "venus");
    // Which of them were on their way when venus was given up is the kernel's matter.
    const happened = () =>
      ["a/from", "b/gone", "d/old-dir"].some((path) => !existsSync(join(tree, path))) ||
      existsSync(join(tree, "c/new-dir"));
    for (let i = 0; i < 100 && !happened(); i++) await sleep(100);
    assert.ok(happened(), "something has happened late");
    await bench.until("found out", () => /have happened late/.test(readFileSync(bench.log, "utf8")));
    await bench.healthy();
    assert.equal(readFileSync(join(tree, "a/from"), "latin1"), "one\n");
    assert.equal(readFileSync(join(tree, "b/gone"), "latin1"), "again\n");
    assert.equal(readFileSync(join(tree, "f/cut"), "latin1"), "123456789\n");
    await bench.unmountBeside();
    bench.compare(join(mars.directory, "mars"), tree);
  });
});
