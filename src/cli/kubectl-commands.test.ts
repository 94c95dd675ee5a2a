import assert from "node:assert/strict";
import { test } from "node:test";
import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { replacement, statusOf } from "./kubectl-commands.ts";
import { statusText } from "./status-view.ts";

const volume = {
  apiVersion: "chiron.storage/v1alpha1",
  kind: "ReplicatedVolume",
  metadata: { name: "data" },
  spec: {
    replicas: [
      { name: "mars", nfs: { server: "mars", path: "/e", mountOptions: ["vers=4.1"] } },
      { name: "venus", nfs: { server: "venus", path: "/e" } },
    ],
  },
  status: {
    phase: "Degraded",
    holder: "n1",
    membership: { term: 3, seq: 1, members: ["mars"] },
    replicas: [
      { name: "mars", state: "InSync", place: { nfs: { server: "mars", path: "/e" } } },
      { name: "venus", state: "Unreachable", reason: "Fault", message: "no route", place: {} },
    ],
  },
} as unknown as ReplicatedVolume;

test("a ReplicatedVolume is shown as the command line shows a mount", () => {
  const status = statusOf(volume);
  assert.equal(status.state, "Degraded");
  const text = statusText(status, Date.now());
  assert.match(text, /data .*on n1 \(Degraded\).*1 of 2 in sync.*epoch 3\.1/);
  assert.match(text, /mars .*in sync.*mars:\/e/);
  assert.match(text, /venus .*unreachable.*a call failed: no route/);
});

test("a volume that nobody uses is as it was left", () => {
  const { holder: _, ...status } = volume.status ?? {};
  assert.match(
    statusText(statusOf({ ...volume, status: { ...status, phase: "Available" } } as never), 0),
    /not in use/,
  );
});

test("a replica is replaced by one edit, with the mount options of the old one, refused if the list was edited", () => {
  assert.deepEqual(replacement(volume, "mars", "earth", "[fd00::1]:/export/"), [
    { op: "test", path: "/spec/replicas/0/name", value: "mars" },
    {
      op: "add",
      path: "/spec/replicas/-",
      value: { name: "earth", nfs: { server: "fd00::1", path: "/export", mountOptions: ["vers=4.1"] } },
    },
    { op: "remove", path: "/spec/replicas/0" },
  ]);
});

test("what cannot be replaced is refused with what there is", () => {
  assert.throws(() => replacement(volume, "pluto", "earth", "earth:/e"), /has no replica "pluto": it has mars, venus/);
  assert.throws(() => replacement(volume, "mars", "venus", "earth:/e"), /has a replica "venus" already/);
  assert.throws(() => replacement(volume, "mars", "earth", "earth"), /cannot read "earth"; write it like/);
});
