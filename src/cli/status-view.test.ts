import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import type { VolumeStatus } from "../replication/model.ts";
import { statusText } from "./status-view.ts";
import { bar, table } from "./terminal.ts";

test("a status is a line for the volume and one for each replica", () => {
  const status: VolumeStatus = {
    volume: "web",
    mountpoint: "/srv/web",
    state: "Syncing",
    epoch: "3.1",
    pid: 7,
    minInSyncReplicas: 1,
    replicas: [
      {
        name: "mars",
        url: "/a",
        state: "InSync",
        reason: null,
        since: new Date(0).toISOString(),
        readable: true,
        progress: null,
        lastError: "old",
        freeBytes: 2 ** 30,
      },
      {
        name: "venus",
        url: "/b",
        state: "Syncing",
        reason: "Fault",
        since: new Date(50_000).toISOString(),
        readable: false,
        progress: { filesRemaining: 3, bytesRemaining: 2048, percent: 50 },
        lastError: null,
        freeBytes: null,
      },
      {
        name: "earth",
        url: "/c",
        state: "Unreachable",
        reason: "Fault",
        since: new Date(0).toISOString(),
        readable: false,
        progress: null,
        lastError: "EIO",
        freeBytes: null,
      },
    ],
  };
  const lines = stripVTControlCharacters(statusText(status, 60_000)).split("\n");
  assert.deepEqual(lines, [
    "web  ● syncing  /srv/web  1 of 3 in sync  epoch 3.1, pid 7",
    "  mars   in sync      60 s  1.0 GiB free  /a",
    "  venus  syncing      10 s                /b  ██████████░░░░░░░░░░  50 %  3 files, 2.0 KiB left",
    "  earth  unreachable  60 s                /c  a call failed: EIO",
  ]);
});

test("columns line up however they are coloured, and bars are as long as they are full", () => {
  assert.equal(
    table([
      ["a", "bb"],
      ["\x1b[31mccc\x1b[39m", "d"],
    ]),
    "a    bb\n\x1b[31mccc\x1b[39m  d",
  );
  assert.deepEqual([bar(0, 4), bar(50, 4), bar(100, 4), bar(-5, 2), bar(500, 2)], ["░░░░", "██░░", "████", "░░", "██"]);
});
