import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { root } from "../replica/testing/subject.ts";
import { start } from "../util/op.ts";
import { ReplicaControlFiles } from "./control-files.ts";
import { AdoptError, IdentityError, type IdentityProblem } from "./errors.ts";
import {
  type BackendReading,
  decideIdentity,
  type MarkerReading,
  parseMarker,
  readBackend,
  writeMarker,
} from "./identity.ts";

const marked = (replicaName: string, volumeId = "v"): MarkerReading => ({
  kind: "marker",
  marker: { formatVersion: 1, volumeId, replicaName, createdAt: "" },
});
const backend = (replica: string, marker: MarkerReading, empty = true): BackendReading => ({ replica, marker, empty });
const none: MarkerReading = { kind: "none" };
const is = (problem: IdentityProblem) => (error: unknown) => {
  assert.ok(error instanceof IdentityError, String(error));
  assert.equal(error.problem, problem);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};

test("a marker that was written is read again", async () => {
  const replica = new MemoryReplica(undefined, { name: "a" });
  await replica.connect({ signal: AbortSignal.timeout(60_000) });
  const files = new ReplicaControlFiles(replica);
  assert.deepEqual(await start(readBackend(replica, files)), backend("a", none));
  await start(writeMarker(files, "v", "a", new Date(0)));
  replica.mkdir({ parent: null, name: "" }, "data", 0o755, root, null);
  const reading = await start(readBackend(replica, files));
  assert.equal(reading.empty, false);
  assert.deepEqual(reading.marker, {
    kind: "marker",
    marker: { formatVersion: 1, volumeId: "v", replicaName: "a", createdAt: "1970-01-01T00:00:00.000Z" },
  });
});

test("markers that make no sense are damaged, and a newer one is newer", () => {
  for (const text of ["", "{", "null", "[]", "{}", '{"formatVersion":0}', '{"formatVersion":1,"volumeId":""}']) {
    assert.equal(parseMarker(Buffer.from(text)).kind, "damaged", text);
  }
  assert.deepEqual(parseMarker(Buffer.from('{"formatVersion":2}')), { kind: "newer-version", formatVersion: 2 });
});

test("empty directories are a new volume, all of them in sync", () => {
  const decision = decideIdentity([backend("a", none), backend("b", none)], ["a", "b"], null);
  assert.ok(decision.kind === "new");
  assert.deepEqual(decision.inSync, ["a", "b"]);
});

test("a directory with data is adopted only as the named source, or alone", () => {
  const readings = [backend("a", none, false), backend("b", none)];
  assert.throws(() => decideIdentity(readings, ["a", "b"], null), AdoptError);
  assert.throws(() => decideIdentity(readings, ["a", "b"], "b"), AdoptError);
  assert.throws(() => decideIdentity(readings, ["a", "b"], "c"), AdoptError);
  const adopted = decideIdentity(readings, ["a", "b"], "a");
  assert.ok(adopted.kind === "new");
  assert.deepEqual(adopted.inSync, ["a"]);
  const alone = decideIdentity([backend("a", none, false)], ["a"], null);
  assert.ok(alone.kind === "new");
});

test("a new volume is not begun while a replica is missing", () => {
  assert.throws(() => decideIdentity([backend("a", none)], ["a", "b"], null), AdoptError);
});

test("a volume that exists goes on with what carries its marker, and writes to nothing else", () => {
  const readings = [backend("a", marked("a"), false), backend("b", none), backend("c", none, false)];
  const decision = decideIdentity(readings, ["a", "b", "c", "d"], null);
  assert.ok(decision.kind === "existing");
  assert.deepEqual([decision.volumeId, decision.usable, decision.fresh], ["v", ["a"], ["b"]]);
  assert.deepEqual(
    decision.refused.map(({ replica, problem }) => [replica, problem]),
    [["c", "not-ours"]],
  );
});

test("two volumes, a replica under another's name, and a newer format are refused", () => {
  assert.throws(
    () => decideIdentity([backend("a", marked("a")), backend("b", marked("b", "other"))], ["a", "b"], null),
    is("other-volume"),
  );
  assert.throws(
    () => decideIdentity([backend("a", marked("b")), backend("b", marked("a"))], ["a", "b"], null),
    is("other-replica"),
  );
  const newer: MarkerReading = { kind: "newer-version", formatVersion: 2 };
  assert.throws(() => decideIdentity([backend("a", newer)], ["a"], null), is("newer-version"));
});

test("a damaged marker keeps its replica out, and the others go on", () => {
  const damaged: MarkerReading = { kind: "damaged", why: "it is not JSON" };
  const decision = decideIdentity([backend("a", marked("a")), backend("b", damaged)], ["a", "b"], null);
  assert.ok(decision.kind === "existing");
  assert.deepEqual(decision.usable, ["a"]);
  assert.equal(decision.refused[0]?.problem, "damaged");
});
