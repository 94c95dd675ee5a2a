/** Two hosts that reach the same exports: one at a time has the volume. Here they are two run directories and two names. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bench, startProgram } from "../faults/harness.ts";
import { available, Ganesha } from "./ganesha.ts";

const options = ["--deadline", "2s"]; // a host without a sign of life is taken over after 10 s then

describe("hosts that share exports", { skip: available ? false : "needs root, nfs-ganesha and rpcbind" }, () => {
  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: a second host is refused with the first one's name, until that unmounts`, async () => {
      await using mars = await Ganesha.start({ exports: ["mars"] });
      await using venus = await Ganesha.start({ exports: ["venus"] });
      const replicas = [
        "--replica",
        `mars=${mars.url(version, "/mars")}`,
        "--replica",
        `venus=${venus.url(version, "/venus")}`,
      ];
      await using alpha = new Bench("alpha");
      await using beta = new Bench("beta");
      alpha.mount(...options, ...replicas);
      await startProgram("sh", "-c", `echo one >${alpha.mountpoint}/f`).done;
      const { status, stderr } = beta.chiron("mount", ...options, ...replicas, beta.mountpoint);
      assert.notEqual(status, 0);
      assert.match(stderr, new RegExp(`mounted on host "alpha" \\(at ${alpha.mountpoint}\\)`));
      await startProgram("sh", "-c", `echo two >${alpha.mountpoint}/f`).done; // nobody has disturbed it
      assert.equal(alpha.status().state, "Healthy");
      alpha.unmount();
      const began = Date.now();
      beta.mount(...options, ...replicas);
      assert.ok(Date.now() - began < 9_000, "after an unmount in order nobody waits for a lease");
      await startProgram("sh", "-c", `test "$(cat ${beta.mountpoint}/f)" = two`).done;
    });
  }

  test("v4.1: a frozen host that wakes up past every deadline writes nothing any more", async () => {
    await using mars = await Ganesha.start({ exports: ["mars"] });
    await using venus = await Ganesha.start({ exports: ["venus"] });
    const replicas = [
      "--replica",
      `mars=${mars.url("4.1", "/mars")}`,
      "--replica",
      `venus=${venus.url("4.1", "/venus")}`,
    ];
    await using alpha = new Bench("alpha");
    await using beta = new Bench("beta");
    alpha.mount(...options, ...replicas);
    await startProgram("sh", "-c", `echo alpha >${alpha.mountpoint}/f`).done;
    // Changes without end, so that some are under way when the host freezes, and go on when it wakes up.
    const script = `cd ${alpha.mountpoint}; i=0; while echo alpha-$i >g && mv g h && mkdir d && rmdir d; do i=$((i + 1)); done`;
    const writer = startProgram("sh", "-c", `${script}; exit 7`);
    await sleep(500);
    alpha.signalAll("SIGSTOP");
    beta.mount(...options, ...replicas);
    await startProgram("sh", "-c", `cd ${beta.mountpoint}; rm -rf d g; echo beta >f; echo beta >h; sync f h`).done;
    alpha.signalAll("SIGCONT");
    await assert.rejects(writer.done, /status 7/, "its changes fail");
    await assert.rejects(startProgram("sh", "-c", `echo late >${alpha.mountpoint}/f`).done);
    await sleep(3_000); // whatever it had queued has come and gone
    assert.equal(beta.status().state, "Healthy");
    await startProgram("sh", "-c", `cd ${beta.mountpoint}; test "$(cat f h)" = "$(printf 'beta\\nbeta')"; echo on >>f`)
      .done;
    beta.unmount();
    for (const [server, name] of [
      [mars, "mars"],
      [venus, "venus"],
    ] as const) {
      assert.equal(readFileSync(join(server.directory, name, "f"), "latin1"), "beta\non\n");
      assert.equal(readFileSync(join(server.directory, name, "h"), "latin1"), "beta\n");
    }
    beta.compare(join(mars.directory, "mars"), join(venus.directory, "venus"));
  });
});
