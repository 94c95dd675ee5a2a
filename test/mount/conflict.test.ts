/** Mounts that were forced apart: nothing that either of them was told to have written is lost when copies meet again. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, renameSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { refused, run, Sandbox, sh } from "./sandbox.ts";

const treesEqual = fileURLToPath(new URL("../trees-equal.py", import.meta.url));

/** A volume whose replicas were each used alone, b last. */
async function apart(context: TestContext): Promise<Sandbox> {
  const box = new Sandbox(context);
  await box.mount();
  await sh(`cd ${box.mountpoint} && mkdir -p d/e && echo both > same && echo first > d/e/f`);
  await box.chiron("unmount", box.mountpoint);
  for (const [here, away] of [
    ["a", "b"],
    ["b", "a"],
  ] as const) {
    renameSync(box.path(away), box.path("away"));
    const mount = (...more: string[]) =>
      box.chiron("mount", "--log", box.log, ...more, ...replicas(box), box.mountpoint);
    const before = (await sh(`find ${box.path(here)} | sort`)).stdout;
    refused(await mount(), 79, new RegExp(`"${away}".*does not exist.*--force-degraded`));
    assert.equal((await sh(`find ${box.path(here)} | sort`)).stdout, before, "nothing is changed by a refusal");
    assert.equal((await mount("--force-degraded")).code, 0, box.logText());
    await sh(`cd ${box.mountpoint} && echo from ${here} > d/e/f && echo ${here} > only-${here} && mkdir new-${here}`);
    assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
    renameSync(box.path("away"), box.path(away));
  }
  return box;
}

function replicas(box: Sandbox): string[] {
  return ["--replica", box.path("a"), "--replica", box.path("b")];
}

test("what a copy that was used apart holds alone is kept beside, told, and the copies become equal", async (context) => {
  const box = await apart(context);
  await box.mount("--on-event", `cat >> ${box.path("events")}`);
  await box.until("both are in sync", async () => (await box.status()).state === "Healthy");
  const { code } = await box.chiron("unmount", box.mountpoint);
  assert.equal(code, 0);
  assert.equal((await run("python3", [treesEqual, box.path("a"), box.path("b")])).code, 0);
  const events = readFileSync(box.path("events"), "utf8");
  const [, loser = ""] = /"event":"conflict","replica":"(.)"/.exec(events) ?? [];
  assert.ok(loser === "a" || loser === "b", events);
  const winner = loser === "a" ? "b" : "a";
  assert.match(events, /kept as [^"]*\/d\/e\/f\.conflict-/);
  for (const replica of ["a", "b"]) {
    const read = (path: string) => readFileSync(box.path(`${replica}/${path}`), "utf8");
    assert.equal(read("d/e/f"), `from ${winner}\n`);
    assert.equal(read("same"), "both\n");
    const kept = readdirSync(box.path(`${replica}/d/e`)).filter((name) => name !== "f");
    assert.equal(kept.length, 1, kept.join());
    assert.match(kept[0] as string, new RegExp(`^f\\.conflict-${loser}-`));
    assert.equal(read(`d/e/${kept[0]}`), `from ${loser}\n`);
    const names = readdirSync(box.path(replica));
    const other: string | undefined = names.find((name) => name.startsWith(`only-${loser}.conflict-${loser}-`));
    assert.equal(read(other ?? ""), `${loser}\n`);
    assert.equal(read(`only-${winner}`), `${winner}\n`);
  }
  // It is over: the next mount finds nothing more.
  await box.mount("--on-event", `cat >> ${box.path("later")}`);
  assert.equal((await box.status()).state, "Healthy");
  assert.doesNotMatch(readFileSync(box.path("later"), "utf8"), /conflict/);
});

test("a copy that was used apart and turns up later is left alone, and says so", async (context) => {
  const box = await apart(context);
  renameSync(box.path("a"), box.path("away"));
  assert.equal((await box.chiron("mount", "--log", box.log, ...replicas(box), box.mountpoint)).code, 0);
  renameSync(box.path("away"), box.path("a"));
  await box.until("it is looked at", async () =>
    (await box.status()).replicas.some(({ lastError }) => lastError?.includes("used apart") === true),
  );
  assert.match((await box.chiron("status", box.mountpoint)).stdout, /mount again with all of them/);
  assert.equal(readFileSync(box.path("a/d/e/f"), "utf8"), "from a\n");
  assert.equal((await box.chiron("unmount", box.mountpoint)).code, 0);
  await box.mount();
  await box.until("both are in sync", async () => (await box.status()).state === "Healthy");
  const { stdout } = await sh(`cat ${box.mountpoint}/d/e/f ${box.mountpoint}/d/e/f.conflict-a-*`);
  assert.equal(stdout, "from b\nfrom a\n");
});
