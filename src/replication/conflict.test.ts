import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import { conflictName, keepConflicts } from "./conflict.ts";
import { TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

const time = new Date("2026-11-21T10:20:30Z");
const options = { throttle: new Throttle(), signal: new AbortController().signal, time };

test("files that a diverged copy has otherwise, or alone, are kept under other names", async () => {
  const [winner, loser] = [new MemoryDisk(), new MemoryDisk()];
  for (const [disk, fill] of [
    [winner, 1],
    [loser, 2],
  ] as const) {
    const volume = await TestVolume.open([disk]);
    await volume.run({ kind: "mkdir", path: "d" });
    for (const [path, byte] of [
      ["d/both", fill],
      ["same", 9],
      [`d/only${fill}`, fill],
    ] as const) {
      await volume.run({ kind: "create", path });
      await volume.run({ kind: "write", path, at: 0, bytes: 5000, fill: byte });
    }
    if (fill === 2) {
      await volume.run({ kind: "mkdir", path: "e" });
      await volume.run({ kind: "create", path: "e/x" });
    }
  }
  const members = [new MemoryReplica(winner)];
  const lost = new MemoryReplica(loser, { name: "venus" });
  for (const replica of [...members, lost]) await replica.connect(options);
  const before = describeDisk(winner, { times: false });
  const conflicts = await keepConflicts({ ...options, members, loser: lost });
  const suffix = ".conflict-venus-20261121T102030Z";
  assert.deepEqual(conflicts, [
    { path: "/d/both", keptAs: `/d/both${suffix}` },
    { path: "/d/only2", keptAs: `/d/only2${suffix}` },
    { path: "/e/x", keptAs: `/e/x${suffix}` },
  ]);
  const after = describeDisk(winner, { times: false });
  assert.ok(before.every((line) => after.includes(line)));
  const lostLine = describeDisk(loser, { times: false }).find((line) => line.startsWith("/d/both ")) as string;
  assert.ok(after.includes(lostLine.replace("/d/both", `/d/both${suffix}`)));
});

test("the name of a conflict fits, however long the file's is", () => {
  const name = conflictName("n".repeat(255), "venus", time, 3);
  assert.equal(name.length, 255);
  assert.match(name, /^n+\.conflict-venus-20261121T102030Z-3$/);
});
