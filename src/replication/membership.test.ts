import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { EIO, ETIMEDOUT } from "../util/errno.ts";
import type { Arbiter } from "./contracts.ts";
import { ClaimLostError, QuorumLostError } from "./errors.ts";
import { type MembershipEvent, VolumeMembership } from "./membership.ts";
import type { MembershipRecord } from "./model.ts";
import { decideChange } from "./verdict.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));
const names = ["a", "b", "c"];

interface Asked {
  readonly members: readonly string[];
  readonly newcomer: string | null;
  readonly answer: (members?: readonly string[]) => void;
  readonly refuse: (error?: Error) => void;
}

/** Answers when the test says so. */
class HandArbiter implements Arbiter {
  inForce: MembershipRecord = { term: 1, seq: 0, members: names, absent: [] };
  readonly asked: Asked[] = [];
  released = 0;

  async claim(): Promise<MembershipRecord> {
    return this.inForce;
  }

  record(members: readonly string[], newcomer: string | null): Promise<MembershipRecord> {
    return new Promise((resolve, reject) => {
      const answer = (kept = members) => {
        this.inForce = { ...this.inForce, seq: this.inForce.seq + 1, members: kept };
        resolve(this.inForce);
      };
      const refuse = (error: Error = new QuorumLostError("no-majority", [], "no")) => reject(error);
      this.asked.push({ members, newcomer, answer, refuse });
    });
  }

  async release(): Promise<void> {
    this.released++;
  }

  last(): Asked {
    const asked = this.asked.at(-1);
    assert.ok(asked !== undefined, "the arbiter was asked");
    return asked;
  }
}

function made(options: { minInSync?: number; members?: readonly string[]; recordDeadlineMs?: number } = {}) {
  const { minInSync = 1, members = names, recordDeadlineMs = 60_000 } = options;
  const arbiter = new HandArbiter();
  arbiter.inForce = { ...arbiter.inForce, members };
  const events: MembershipEvent["kind"][] = [];
  const membership = new VolumeMembership(
    arbiter.inForce,
    { arbiter, now: () => new Date(0), onEvent: ({ kind }) => events.push(kind), resumePoint: () => null },
    { replicas: names, minInSync, recordDeadlineMs, retryMs: 1 },
  );
  return { arbiter, membership, events };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 10_000) assert.fail("this never happened");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test("an expelled replica is out at once, and settled once that is on record", async () => {
  const { arbiter, membership, events } = made();
  const before = membership.inSync;
  membership.expel([1], "Fault", -EIO);
  assert.deepEqual(
    [before, membership.inSync],
    [
      [0, 1, 2],
      [0, 2],
    ],
  );
  assert.ok(membership.settled !== null);
  await turn();
  assert.deepEqual(arbiter.last().members, ["a", "c"]);
  arbiter.last().answer();
  await membership.settled;
  assert.equal(membership.settled, null);
  assert.equal(membership.epoch, "1.1");
  assert.deepEqual(membership.standing(1), {
    name: "b",
    state: "OutOfSync",
    reason: "Fault",
    since: "1970-01-01T00:00:00.000Z",
    lastError: "EIO",
  });
  assert.deepEqual(events, ["left"]);
});

test("several expulsions in one turn are one record, and one that comes meanwhile is waited for as well", async () => {
  const { arbiter, membership } = made();
  membership.expel([2], "Fault", -EIO);
  await turn();
  membership.expel([1], "Diverged", 7);
  const { settled } = membership;
  arbiter.last().answer();
  await until(() => arbiter.asked.length === 2);
  assert.ok(membership.settled === settled && settled !== null);
  arbiter.last().answer();
  await settled;
  assert.deepEqual(
    arbiter.asked.map((asked) => asked.members),
    [["a", "b"], ["a"]],
  );
  const both = made();
  both.membership.expel([2], "Fault", -EIO);
  both.membership.expel([1], "Fault", -EIO);
  await turn();
  assert.deepEqual(
    both.arbiter.asked.map((asked) => asked.members),
    [["a"]],
  );
});

test("whoever cannot take the record leaves as well", async () => {
  const { arbiter, membership } = made();
  membership.expel([2], "Fault", -EIO);
  await turn();
  arbiter.last().answer(["a"]);
  await membership.settled;
  assert.deepEqual(membership.inSync, [0]);
  assert.equal(membership.standing(1).reason, "RecordFailed");
});

test("what keeps a replica out is what was found last", () => {
  const { membership } = made({ members: ["a", "b"] });
  for (const error of ["it is not there", "it is somebody else's"]) {
    membership.setReachable(2, false, error);
    assert.deepEqual([membership.standing(2).state, membership.standing(2).lastError], ["Unreachable", error]);
  }
  membership.setReachable(2, true, null);
  assert.equal(membership.standing(2).state, "OutOfSync");
});

test("the last replica is never taken out", async () => {
  const { membership, arbiter } = made();
  membership.expel([0, 1, 2], "Vanished", -EIO);
  assert.deepEqual(membership.inSync, [0]);
  await turn();
  arbiter.last().answer();
  await membership.settled;
  membership.expel([0], "Vanished", -EIO);
  assert.deepEqual([membership.inSync, membership.settled, membership.standing(0).lastError], [[0], null, "EIO"]);
});

test("with too few left nothing is recorded, what waits fails, and a replica that returns restores the volume", async () => {
  const { arbiter, membership, events } = made({ minInSync: 2, members: ["a", "b"] });
  membership.expel([1], "Fault", -EIO);
  await assert.rejects(membership.settled ?? Promise.resolve(), /Only 1 of at least 2.*"b"/);
  assert.equal(membership.quorumLost, true);
  await turn();
  assert.equal(arbiter.asked.length, 0);
  membership.startSync(1);
  const before = membership.inSync;
  const joined = membership.admit(1);
  await turn();
  // It is on record still: no newcomer.
  assert.deepEqual([arbiter.last().members, arbiter.last().newcomer], [["a", "b"], null]);
  arbiter.last().answer();
  assert.equal(await joined, true);
  await until(() => !membership.quorumLost);
  assert.deepEqual([membership.inSync, membership.syncing, membership.settled], [[0, 1], [], null]);
  assert.notEqual(membership.inSync, before);
  assert.deepEqual(events, ["left", "quorum-lost", "sync-started", "joined", "quorum-restored"]);
});

test("an expulsion that is not recorded because others left too is not taken for recorded", async () => {
  const { membership } = made({ minInSync: 2 });
  membership.expel([2], "Fault", -EIO);
  const { settled } = membership;
  membership.expel([1], "Fault", -EIO);
  await assert.rejects(settled ?? Promise.resolve());
  await turn();
  assert.ok(membership.settled !== null && membership.quorumLost);
});

test("a record that cannot be made fails the changes that wait, and is tried until it succeeds", async () => {
  const { arbiter, membership, events } = made();
  membership.expel([1], "Fault", -EIO);
  const { settled } = membership;
  await turn();
  arbiter.last().refuse();
  await assert.rejects(settled ?? Promise.resolve(), QuorumLostError);
  assert.equal(membership.quorumLost, true);
  await until(() => arbiter.asked.length === 2);
  arbiter.last().answer();
  await until(() => !membership.quorumLost);
  assert.equal(membership.settled, null);
  assert.deepEqual(events, ["left", "quorum-lost", "quorum-restored"]);
});

test("changes wait for a record no longer than the deadline, and it may still succeed later", async () => {
  const { arbiter, membership } = made({ recordDeadlineMs: 5 });
  membership.expel([1], "Fault", -EIO);
  await assert.rejects(membership.settled ?? Promise.resolve(), /5 ms/);
  assert.equal(membership.quorumLost, true);
  arbiter.last().answer();
  await until(() => !membership.quorumLost);
});

test("after a lost claim nothing is accepted any more", async () => {
  const { arbiter, membership } = made();
  membership.expel([1], "Fault", -EIO);
  const { settled } = membership;
  await turn();
  arbiter.last().refuse(new ClaimLostError(1, 2, "a"));
  await assert.rejects(settled ?? Promise.resolve(), ClaimLostError);
  assert.equal(await membership.admit(1), false);
  membership.expel([2], "Fault", -EIO);
  await turn();
  assert.equal(arbiter.asked.length, 1);
  assert.ok(membership.quorumLost && membership.settled !== null);
});

test("a replica that joins counts once that is on record", async () => {
  const { arbiter, membership } = made({ members: ["a"] });
  membership.startSync(2);
  const joined = membership.admit(2);
  await turn();
  assert.deepEqual([membership.inSync, arbiter.last().members, arbiter.last().newcomer], [[0], ["a", "c"], "c"]);
  assert.ok(membership.settled !== null, "changes wait");
  arbiter.last().answer();
  assert.equal(await joined, true);
  assert.deepEqual([membership.inSync, membership.standing(2).state], [[0, 2], "InSync"]);
});

test("a join that fails leaves the replica out, and that is on record before anything is acknowledged", async () => {
  const { arbiter, membership } = made({ members: ["a", "b"] });
  membership.startSync(2);
  const joined = membership.admit(2);
  await turn();
  arbiter.last().refuse();
  assert.equal(await joined, false);
  await until(() => arbiter.asked.length === 2);
  assert.deepEqual(arbiter.last().members, ["a", "b"]);
  assert.ok(membership.settled !== null && membership.quorumLost);
  arbiter.last().answer();
  await until(() => membership.settled === null);
  assert.deepEqual(membership.inSync, [0, 1]);
});

test("a replica that is expelled while it joins is out again, on record", async () => {
  const { arbiter, membership } = made({ members: ["a"] });
  membership.startSync(1);
  const joined = membership.admit(1);
  await turn();
  membership.expel([1], "Fault", -ETIMEDOUT);
  assert.equal(await joined, false);
  arbiter.last().answer();
  await until(() => arbiter.asked.length === 2);
  assert.deepEqual(arbiter.last().members, ["a"]);
  arbiter.last().answer();
  await until(() => membership.settled === null);
  assert.deepEqual([membership.inSync, membership.syncing], [[0], []]);
});

test("only a volume whose members are alike is released", async () => {
  const good = made();
  await good.membership.release();
  assert.equal(good.arbiter.released, 1);
  const bad = made({ minInSync: 2, members: ["a", "b"] });
  bad.membership.expel([1], "Fault", -EIO);
  await bad.membership.release();
  assert.equal(bad.arbiter.released, 0);
  bad.membership.expel([0], "Fault", -EIO);
  assert.ok(bad.membership.settled !== null);
});

/** An arbiter that answers after a while: what was asked, less, or not at all (and yet it may be in force). */
class DrawnArbiter implements Arbiter {
  inForce: MembershipRecord;
  busy = false;
  inDoubt = false;
  readonly #draw: () => number;

  constructor(members: readonly string[], draw: () => number) {
    this.inForce = { term: 1, seq: 0, members, absent: [] };
    this.#draw = draw;
  }

  async claim(): Promise<MembershipRecord> {
    return this.inForce;
  }

  async record(members: readonly string[], newcomer: string | null): Promise<MembershipRecord> {
    assert.equal(this.busy, false, "one record at a time");
    assert.ok(newcomer === null || !this.inForce.members.includes(newcomer) || this.inDoubt);
    this.busy = true;
    this.inDoubt = true;
    for (let i = this.#draw() % 3; i > 0; i--) await turn();
    this.busy = false;
    const what = this.#draw() % 4;
    if (what === 0) throw new QuorumLostError("no-majority", [], "no");
    const kept = what === 1 && members.length > 1 ? members.filter((name) => name !== newcomer).slice(0, 1) : members;
    this.inForce = { ...this.inForce, seq: this.inForce.seq + 1, members: kept };
    this.inDoubt = false;
    return this.inForce;
  }

  async release(): Promise<void> {}
}

test("whatever happens, what is acknowledged is on every member on record", async () => {
  const draws = fc.infiniteStream(fc.nat(1000));
  await fc.assert(
    fc.asyncProperty(draws, fc.integer({ min: 1, max: 2 }), async (stream, minInSync) => {
      const draw = (): number => stream.next().value ?? 0;
      const arbiter = new DrawnArbiter(names, draw);
      const membership = new VolumeMembership(
        arbiter.inForce,
        { arbiter, now: () => new Date(0), onEvent: () => {}, resumePoint: () => null },
        { replicas: names, minInSync, recordDeadlineMs: 60_000, retryMs: 1 },
      );
      const data = names.map(() => new Set<number>());
      const acknowledged = new Set<number>();
      let inFlight = 0;

      const change = async (id: number): Promise<void> => {
        if (membership.quorumLost) return;
        const sent = membership.inSync;
        const results = await Promise.all(
          sent.map(async (replica) => {
            for (let i = draw() % 3; i > 0; i--) await turn();
            if (draw() % 5 === 0) return -EIO;
            data[replica]?.add(id);
            return 0;
          }),
        );
        const plain = sent === membership.inSync && results.every((result) => result === 0);
        if (!plain) {
          const verdict = decideChange(sent, results, membership, "FailWrites", true);
          for (const { replica, reason, errno } of verdict.expel) membership.expel([replica], reason, errno);
          if (verdict.result < 0) return;
        }
        try {
          while (membership.settled !== null) await membership.settled;
        } catch {
          return;
        }
        acknowledged.add(id);
        assert.ok(!arbiter.busy && !arbiter.inDoubt);
        for (const name of arbiter.inForce.members) {
          const holds = data[names.indexOf(name)];
          for (const one of acknowledged) assert.ok(holds?.has(one), `"${name}" lacks ${one}`);
        }
      };

      let next = 0;
      for (let step = 0; step < 12; step++) {
        const changes = Array.from({ length: draw() % 3 }, () => {
          inFlight++;
          return change(next++).finally(() => inFlight--);
        });
        if (draw() % 2 === 0) membership.expel([draw() % 3], "Fault", -EIO);
        await Promise.all(changes);
        const outside = names.findIndex((_, i) => !membership.inSync.includes(i));
        if (outside >= 0 && draw() % 2 === 0 && inFlight === 0) {
          data[outside] = new Set(data[membership.inSync[0] as number]);
          await membership.admit(outside);
        }
      }
      await membership.close();
    }),
    { numRuns: 300 },
  );
});
