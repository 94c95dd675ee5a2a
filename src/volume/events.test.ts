import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { jsonLogger, silentLogger } from "../util/logger.ts";
import { EventHook } from "./events.ts";
import type { VolumeEvent } from "./protocol.ts";

function temporary(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "chiron-events-"));
  context.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

const event = (message: string): VolumeEvent => ({
  time: "2030-01-01T00:00:00Z",
  volume: "web",
  event: "replica-lost",
  replica: "mars",
  message,
});

test("a hook gets each event in order, as JSON and as variables", async (context) => {
  const out = join(temporary(context), "out");
  const hook = new EventHook(
    `cat >> ${out}; echo "$CHIRON_EVENT $CHIRON_REPLICA $CHIRON_MOUNTPOINT" >> ${out}`,
    silentLogger,
    {
      mountpoint: "/srv/web",
    },
  );
  hook.emit(event("one"));
  hook.emit(event("two; rm -rf $HOME"));
  await hook.settled(20_000);
  const lines = readFileSync(out, "utf8").trim().split("\n");
  assert.deepEqual([JSON.parse(lines[0] ?? ""), lines[1]], [event("one"), "replica-lost mars /srv/web"]);
  assert.deepEqual(JSON.parse(lines[2] ?? ""), event("two; rm -rf $HOME"));
});

test("a hook that hangs is ended, failures are logged, and a flood is cut", async () => {
  const log: string[] = [];
  const hook = new EventHook(
    "sleep 1000",
    jsonLogger((line) => log.push(line)),
    { mountpoint: "/", timeoutMs: 50 },
  );
  hook.emit(event("hangs"));
  await hook.settled(20_000);
  assert.match(log.join(""), /takes too long/);
  const failing = new EventHook(
    "exit 3",
    jsonLogger((line) => log.push(line)),
    { mountpoint: "/" },
  );
  for (let i = 0; i < 150; i++) failing.emit(event(String(i)));
  await failing.settled(60_000);
  assert.match(log.join(""), /"code":3/);
  assert.match(log.join(""), /"events":49/);
});
