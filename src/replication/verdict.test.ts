import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EACCES, EEXIST, EIO, ENOENT, ENOSPC, ENOTEMPTY, EROFS, ESTALE, ETIMEDOUT } from "../util/errno.ts";
import type { FullPolicy } from "./model.ts";
import { classify, decideChange, type Verdict } from "./verdict.ts";

interface Case {
  readonly minInSync?: number;
  /** In sync now; all to whom the change was sent, if left out. */
  readonly inSync?: readonly number[];
  readonly quorumLost?: boolean;
  readonly fullPolicy?: FullPolicy;
  readonly sameResult?: boolean;
}

function decide(results: readonly number[], options: Case = {}): Verdict {
  const sent = results.map((_, i) => i);
  const { inSync = sent, minInSync = 1, quorumLost = false, fullPolicy = "FailWrites", sameResult = true } = options;
  return decideChange(sent, results, { inSync, minInSync, quorumLost }, fullPolicy, sameResult);
}

const brief = ({ kind, result, expel, suspect }: Verdict) => ({
  kind,
  result,
  expel: expel.map(({ replica, reason }) => `${replica} ${reason}`),
  suspect,
});

test("all did it: it is done", () => {
  assert.deepEqual(brief(decide([5, 5, 5])), { kind: "acknowledge", result: 5, expel: [], suspect: false });
});

test("all gave the same answer: that is the answer", () => {
  assert.deepEqual(brief(decide([-ENOENT, -ENOENT])), { kind: "answer", result: -ENOENT, expel: [], suspect: false });
});

test("who failed while others did it is expelled", () => {
  const verdict = decide([7, -EIO, -ETIMEDOUT]);
  assert.deepEqual(brief(verdict), { kind: "acknowledge", result: 7, expel: ["1 Fault", "2 Fault"], suspect: false });
});

test("who refused or did less than the others has diverged, the leader too", () => {
  assert.deepEqual(brief(decide([7, -ENOENT])).expel, ["1 Diverged"]);
  assert.deepEqual(brief(decide([7, 3])).expel, ["1 Diverged"]);
  assert.deepEqual(brief(decide([3, 7, 7])), { kind: "acknowledge", result: 7, expel: ["0 Diverged"], suspect: false });
});

test("handles differ without meaning anything", () => {
  assert.deepEqual(brief(decide([3, 4, -EIO], { sameResult: false })), {
    kind: "acknowledge",
    result: 3,
    expel: ["2 Fault"],
    suspect: false,
  });
});

test("one altered replica does not drive out the two that agree", () => {
  const verdict = decide([0, -EEXIST, -EEXIST]);
  assert.deepEqual(brief(verdict), { kind: "answer", result: -EEXIST, expel: ["0 Diverged"], suspect: false });
});

test("only faults: EIO, and nobody is blamed", () => {
  assert.deepEqual(brief(decide([-EIO, -ESTALE])), { kind: "suspect", result: -EIO, expel: [], suspect: true });
});

test("different answers of which none is done change nothing, and expel nobody", () => {
  const verdict = decide([-ENOTEMPTY, -EEXIST]);
  assert.deepEqual(brief(verdict), { kind: "answer", result: -ENOTEMPTY, expel: [], suspect: true });
  assert.equal(decide([-EACCES, -ENOENT, -ENOENT]).result, -ENOENT);
});

test("a fault beside an answer is expelled as long as enough stay", () => {
  assert.deepEqual(brief(decide([-ENOENT, -ETIMEDOUT])), {
    kind: "answer",
    result: -ENOENT,
    expel: ["1 Fault"],
    suspect: false,
  });
  assert.deepEqual(brief(decide([-ENOENT, -EIO], { minInSync: 2 })), {
    kind: "answer",
    result: -ENOENT,
    expel: [],
    suspect: true,
  });
});

test("with fewer than enough left the change has failed", () => {
  const verdict = decide([0, -EIO, -EROFS], { minInSync: 2 });
  assert.deepEqual(brief(verdict), {
    kind: "quorum-lost",
    result: -EIO,
    expel: ["1 Fault", "2 Fault"],
    suspect: false,
  });
});

test("a change that only replicas have that are not in sync has failed", () => {
  assert.equal(decide([-EIO, 0], { inSync: [0] }).result, -EIO);
  assert.equal(decide([0, 0], { inSync: [] }).result, -EIO);
});

test("after a lost quorum nothing is acknowledged, but an answer is an answer", () => {
  assert.equal(decide([0, 0], { quorumLost: true }).result, -EIO);
  assert.equal(decide([-ENOENT, -ENOENT], { quorumLost: true }).result, -ENOENT);
  assert.deepEqual(brief(decide([-EIO, -EIO], { quorumLost: true })).expel, []);
});

test("no space on all: that is the answer, and what was half written is compared", () => {
  assert.deepEqual(brief(decide([-ENOSPC, -ENOSPC])), { kind: "answer", result: -ENOSPC, expel: [], suspect: true });
});

test("no space on some: FailWrites takes it back, DropReplica goes on without the full one", () => {
  const undone = decide([4096, -ENOSPC, 4096]);
  assert.ok(undone.kind === "undo");
  assert.deepEqual([undone.result, undone.source, undone.targets], [-ENOSPC, 1, [0, 2]]);
  assert.deepEqual(brief(decide([4096, -ENOSPC], { fullPolicy: "DropReplica" })), {
    kind: "acknowledge",
    result: 4096,
    expel: ["1 Full"],
    suspect: false,
  });
});

const results = fc.array(fc.constantFrom(0, 0, 0, 4096, -ENOENT, -EEXIST, -EIO, -ETIMEDOUT, -ENOSPC), {
  minLength: 1,
  maxLength: 5,
});
const cases = fc.record({
  results,
  minInSync: fc.integer({ min: 1, max: 3 }),
  gone: fc.subarray([0, 1, 2, 3, 4]),
  quorumLost: fc.boolean(),
  fullPolicy: fc.constantFrom<FullPolicy>("FailWrites", "DropReplica"),
  sameResult: fc.boolean(),
});

test("whatever is acknowledged is on all who stay, and enough stay", () => {
  fc.assert(
    fc.property(cases, ({ results, gone, ...options }) => {
      const inSync = results.flatMap((_, i) => (gone.includes(i) ? [] : [i]));
      const verdict = decide(results, { ...options, inSync });
      const expelled = verdict.expel.map(({ replica }) => replica);
      const stay = inSync.filter((replica) => !expelled.includes(replica));
      assert.ok(
        expelled.every((replica) => inSync.includes(replica)),
        "only members are expelled",
      );
      if (inSync.length > 0) assert.ok(stay.length > 0, "the last one stays");
      if (verdict.kind === "acknowledge") {
        assert.ok(verdict.result >= 0 && !options.quorumLost && stay.length >= options.minInSync);
        for (const i of stay)
          assert.ok(options.sameResult ? results[i] === verdict.result : (results[i] as number) >= 0);
      } else {
        assert.ok(verdict.result < 0);
      }
    }),
  );
});

test("replicas that stay and are not alike are suspect or undone", () => {
  fc.assert(
    fc.property(cases, ({ results, gone, ...options }) => {
      const inSync = results.flatMap((_, i) => (gone.includes(i) ? [] : [i]));
      const verdict = decide(results, { ...options, inSync });
      const stay = inSync.filter((replica) => !verdict.expel.some((expulsion) => expulsion.replica === replica));
      const did = stay.map((i) => classify(results[i] as number) === "ok");
      const unsure = stay.some((i) => classify(results[i] as number) === "fault");
      if (new Set(did).size > 1 || unsure) assert.ok(verdict.suspect || verdict.kind === "undo");
    }),
  );
});
