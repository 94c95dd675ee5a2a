import assert from "node:assert/strict";
import { test } from "node:test";
import { FaultyReplica } from "../replica/testing/faulty.ts";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { EIO, EROFS } from "../util/errno.ts";
import { silentLogger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { VoterArbiter } from "./arbiter-voters.ts";
import { ReplicaControlFiles } from "./control-files.ts";
import { ClaimLostError, QuorumLostError } from "./errors.ts";

const connecting = () => ({ signal: AbortSignal.timeout(60_000) });

interface MountOptions {
  readonly without?: readonly string[];
  readonly notQuiet?: readonly string[];
  readonly minInSync?: number;
  readonly forceDegraded?: boolean;
  readonly witness?: string | null;
  readonly certain?: readonly string[];
  readonly onCertain?: (members: readonly string[]) => void;
}

/** Replicas in memory, and arbiters as one mount after the other makes them. */
class Place {
  readonly replicas: ReadonlyMap<string, FaultyReplica>;

  private constructor(replicas: ReadonlyMap<string, FaultyReplica>) {
    this.replicas = replicas;
  }

  /** A new volume on these voters; one named "witness" is that. */
  static async make(...names: string[]): Promise<Place> {
    const place = new Place(
      new Map(names.map((name) => [name, new FaultyReplica(new MemoryReplica(undefined, { name }))])),
    );
    for (const replica of place.replicas.values()) {
      await replica.connect(connecting());
      await start(new ReplicaControlFiles(replica).create());
    }
    await place.arbiter().initialize(names.filter((name) => name !== "witness"));
    return place;
  }

  arbiter(options: MountOptions = {}): VoterArbiter {
    const { without = [], notQuiet = [], minInSync = 1, forceDegraded = false } = options;
    const names = [...this.replicas.keys()].filter((name) => !without.includes(name));
    const witness = options.witness === undefined ? (this.replicas.has("witness") ? "witness" : null) : options.witness;
    return new VoterArbiter(
      names.map((name) => ({ name, files: new ReplicaControlFiles(this.replica(name)) })),
      {
        log: silentLogger,
        now: () => new Date(0),
        isQuiet: (voter) => !notQuiet.includes(voter),
        onCertain: options.onCertain ?? (() => {}),
      },
      { volumeId: "volume", witness, minInSync, forceDegraded, certain: options.certain ?? null },
    );
  }

  replica(name: string): FaultyReplica {
    const replica = this.replicas.get(name);
    if (replica === undefined) throw new Error(`No voter ${name}`);
    return replica;
  }

  /** From now on it answers nothing but errors. */
  lose(name: string): void {
    this.replica(name).inject({ effect: { kind: "errno", errno: EIO } });
  }

  async mount(options: MountOptions = {}): Promise<VoterArbiter> {
    const arbiter = this.arbiter(options);
    await arbiter.claim();
    return arbiter;
  }
}

const refuses = (reason: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof QuorumLostError, String(error));
  assert.equal(error.reason, reason);
  assert.match(error.message, message);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};

test("a new volume is claimed with a term of its own, clean, and each later mount takes a greater one", async () => {
  const place = await Place.make("a", "b");
  const first = await place.mount();
  assert.deepEqual([first.current.term, first.current.seq, first.current.members], [2, 0, ["a", "b"]]);
  assert.equal(first.claimed.clean, true);
  const second = await place.mount();
  assert.equal(second.current.term, 3);
  assert.equal(second.claimed.clean, false);
  await second.release();
  assert.equal((await place.mount()).claimed.clean, true);
});

test("an expelled replica is not trusted by a mount that sees it alone", async () => {
  const place = await Place.make("a", "b");
  const arbiter = await place.mount();
  place.lose("b");
  const absent = [{ name: "b", reason: "Fault", since: "1970-01-01T00:00:00Z", resumePoint: "5" }] as const;
  assert.deepEqual((await arbiter.record(["a"], null, absent)).members, ["a"]);
  place.replica("b").heal();
  await assert.rejects(place.mount({ without: ["a"] }), refuses("member-missing", /"a" is in sync.*--force-degraded/));
  const next = await place.mount();
  assert.deepEqual([next.current.members, next.current.absent], [["a"], absent]);
});

test("of two replicas the one that is the only one in sync on record is enough", async () => {
  const place = await Place.make("a", "b");
  const arbiter = await place.mount();
  await arbiter.record(["a"], null, []);
  const next = await place.mount({ without: ["b"] });
  assert.deepEqual(next.current.members, ["a"]);
});

test("two replicas of which one is missing are refused, and go on by force; the other has then diverged", async () => {
  const place = await Place.make("a", "b");
  await assert.rejects(place.mount({ without: ["b"] }), refuses("member-missing", /"b"/));
  const forced = await place.mount({ without: ["b"], forceDegraded: true });
  assert.equal(forced.claimed.forced, true);
  assert.deepEqual(forced.current.members, ["a"]);
  // Meanwhile somebody forces the other one, too, and often, so that its terms are greater.
  for (let i = 0; i < 3; i++) await place.mount({ without: ["a"], forceDegraded: true });
  const both = await place.mount();
  assert.deepEqual(both.current.members, ["b"]);
  assert.deepEqual(both.claimed.diverged, ["a"]);
  assert.deepEqual(
    both.current.absent.map(({ name, reason }) => [name, reason]),
    [["a", "Diverged"]],
  );
});

test("a forced mount knows a replica that was left behind before from one that went on alone", async () => {
  const place = await Place.make("a", "b");
  const arbiter = await place.mount();
  await arbiter.record(["a"], null, []);
  const forced = await place.mount({ without: ["a"], forceDegraded: true });
  assert.deepEqual(forced.current.members, ["b"]);
  const both = await place.mount();
  assert.deepEqual([both.current.members, both.claimed.diverged], [["b"], ["a"]]);

  const other = await Place.make("a", "b");
  await other.mount({ without: ["b"], forceDegraded: true });
  assert.deepEqual((await other.mount()).claimed.diverged, []);
});

test("with a witness either replica goes on alone, and whoever was left behind does not", async () => {
  const place = await Place.make("a", "b", "witness");
  const arbiter = await place.mount();
  place.lose("b");
  await arbiter.record(["a"], null, []);
  place.replica("b").heal();
  await assert.rejects(place.mount({ without: ["a"] }), refuses("no-member", /"a"/));
  assert.deepEqual((await place.mount({ without: ["b"] })).current.members, ["a"]);
  await assert.rejects(place.mount({ without: ["b", "witness"], witness: null }), refuses("no-majority", /1 of 3/));
});

test("without a majority no record is made, and the volume is not released as clean", async () => {
  const place = await Place.make("a", "b", "witness");
  const arbiter = await place.mount();
  place.lose("b");
  place.lose("witness");
  await assert.rejects(arbiter.record(["a"], null, []), refuses("no-majority", /fewer than 2 of 3/));
  await arbiter.release();
  place.replica("b").heal();
  place.replica("witness").heal();
  const next = await place.mount();
  assert.equal(next.claimed.clean, false);
  assert.deepEqual(next.current.members, ["a"]);
});

test("a record that failed is made anew with the next number once a majority is back", async () => {
  const place = await Place.make("a", "b", "witness");
  const arbiter = await place.mount();
  place.lose("b");
  place.lose("witness");
  await assert.rejects(arbiter.record(["a"], null, []));
  place.replica("witness").heal();
  const record = await arbiter.record(["a"], null, []);
  assert.deepEqual([record.seq, record.members], [2, ["a"]]);
});

test("a member who cannot take the record leaves as well", async () => {
  const place = await Place.make("a", "b", "c");
  const arbiter = await place.mount();
  place.replica("b").makeReadOnly();
  const record = await arbiter.record(["a", "b"], null, []);
  assert.deepEqual(record.members, ["a"]);
  assert.deepEqual(
    record.absent.map(({ name, reason }) => [name, reason]),
    [["b", "RecordFailed"]],
  );
});

test("there is no record with fewer members than the volume asks for", async () => {
  const place = await Place.make("a", "b", "c");
  const arbiter = await place.mount({ minInSync: 2 });
  place.replica("b").makeReadOnly();
  await assert.rejects(arbiter.record(["a", "b"], null, []), refuses("below-minimum", /at least 2 members/));
});

test("a replica joins last, and one that fails then is out on record", async () => {
  const place = await Place.make("a", "b", "c");
  const arbiter = await place.mount();
  await arbiter.record(["a", "b"], null, []);
  place.replica("c").inject({ on: "rename", effect: { kind: "errno", errno: EROFS } });
  const failed = await arbiter.record(["a", "b", "c"], "c", []);
  assert.deepEqual([failed.members, failed.seq], [["a", "b"], 3]);
  place.replica("c").heal();
  assert.deepEqual((await arbiter.record(["a", "b", "c"], "c", [])).members, ["a", "b", "c"]);
});

test("a mount that was overtaken records nothing any more", async () => {
  const place = await Place.make("a", "b");
  const old = await place.mount();
  await place.mount();
  await assert.rejects(old.record(["a"], null, []), ClaimLostError);
  assert.deepEqual((await place.mount()).current.members, ["a", "b"]);
});

test("a claim that a mount left behind which did not succeed does not cost us the volume", async () => {
  const place = await Place.make("a", "b", "c");
  const left = new ReplicaControlFiles(place.replica("c"));
  await start(left.createExclusive("terms/99", Buffer.from("{}")));
  place.lose("c");
  const arbiter = await place.mount();
  assert.deepEqual([arbiter.current.term, arbiter.current.members], [2, ["a", "b"]]);
  place.replica("c").heal();
  const joined = await arbiter.record(["a", "b", "c"], "c", []);
  assert.deepEqual([joined.term, joined.seq, joined.members], [100, 0, ["a", "b", "c"]]);
  assert.equal((await arbiter.record(["a", "b"], null, [])).seq, 1);
});

test("a mount does without a member that cannot be written where a majority can", async () => {
  const place = await Place.make("a", "b", "c");
  place.replica("a").makeReadOnly();
  const arbiter = await place.mount();
  assert.deepEqual(arbiter.current.members, ["b", "c"]);
  const two = await Place.make("a", "b");
  two.replica("a").makeReadOnly();
  await assert.rejects(two.mount(), refuses("member-missing", /EROFS/));
});

test("a replica on which an earlier process still has calls is not here", async () => {
  const place = await Place.make("a", "b", "c");
  assert.deepEqual((await place.mount({ notQuiet: ["a"] })).current.members, ["b", "c"]);
  const two = await Place.make("a", "b");
  await assert.rejects(two.mount({ notQuiet: ["a"] }), refuses("member-missing", /earlier mount/));
});

test("a damaged record is not overlooked", async () => {
  const place = await Place.make("a", "b");
  const arbiter = await place.mount();
  await arbiter.record(["a"], null, []);
  const { term, seq } = arbiter.current;
  const files = new ReplicaControlFiles(place.replica("a"));
  await start(files.replace(`membership/${term}.${seq}.json`, Buffer.from("{")));
  await assert.rejects(place.mount(), refuses("member-missing", /membership record/));
});

test("a replica that is added is a voter once it has joined, and one that is withdrawn is none any more", async () => {
  const place = await Place.make("a", "b");
  const arbiter = await place.mount();
  await arbiter.record(["a"], null, []);
  assert.deepEqual((await arbiter.withdraw("b")).voters.replicas, ["a"]);
  const added = new FaultyReplica(new MemoryReplica(undefined, { name: "c" }));
  await added.connect(connecting());
  const files = new ReplicaControlFiles(added);
  await start(files.create());
  arbiter.addVoter({ name: "c", files });
  const joined = await arbiter.record(["a", "c"], "c", []);
  assert.deepEqual(
    [joined.members, joined.voters.replicas],
    [
      ["a", "c"],
      ["a", "c"],
    ],
  );
  await assert.rejects(place.mount({ without: ["b"] }), refuses("member-missing", /"c"/));
});

test("a witness is a voter from the first mount on that is given one, and none from the first without", async () => {
  const place = await Place.make("a", "b");
  const spare = new FaultyReplica(new MemoryReplica(undefined, { name: "witness" }));
  await spare.connect(connecting());
  await start(new ReplicaControlFiles(spare).create());
  (place.replicas as Map<string, FaultyReplica>).set("witness", spare);
  assert.equal((await place.mount()).current.voters.witness, "witness");
  assert.deepEqual((await place.mount({ without: ["b"] })).current.members, ["a"]);
  assert.equal((await place.mount({ without: ["witness"], witness: null })).current.voters.witness, null);
});

test("only the newest record and claim stay on a voter", async () => {
  const place = await Place.make("a", "b");
  await place.mount();
  const arbiter = await place.mount();
  await arbiter.record(["a", "b"], null, []);
  const files = new ReplicaControlFiles(place.replica("a"));
  assert.deepEqual(await start(files.list("membership")), ["3.1.json"]);
  assert.deepEqual(await start(files.list("terms")), ["3"]);
});

test("the successor of a process goes on with one of two replicas only if every record names it", async () => {
  const told: (readonly string[])[] = [];
  const onCertain = (members: readonly string[]) => told.push(members);
  const place = await Place.make("a", "b");
  await place.mount({ onCertain });
  assert.deepEqual(told.at(-1), ["a", "b"]);
  // It hangs on "b", and is replaced: nobody has expelled "a".
  const second = await place.mount({ notQuiet: ["b"], certain: ["a", "b"], onCertain });
  assert.deepEqual([second.current.members, second.claimed.forced], [["a"], false]);
  await assert.rejects(place.mount({ without: ["a"] }), refuses("member-missing", /"a"/));

  // It hangs on "b" while it expels "a": "a" must not go on.
  const other = await Place.make("a", "b");
  const third = await other.mount({ onCertain });
  other.lose("b");
  await assert.rejects(third.record(["b"], null, []), QuorumLostError);
  assert.deepEqual(told.at(-1), ["b"]);
  other.replica("b").heal();
  await assert.rejects(other.mount({ notQuiet: ["b"], certain: ["b"] }), QuorumLostError);
});

test("a voter that has forgotten its record has no vote", async () => {
  const place = await Place.make("a", "b", "witness");
  const arbiter = await place.mount();
  place.lose("b");
  await arbiter.record(["a"], null, []);
  place.replica("b").heal();
  const files = new ReplicaControlFiles(place.replica("witness"));
  for (const name of await start(files.list("membership"))) await start(files.remove(`membership/${name}`));
  await assert.rejects(place.mount({ without: ["a"] }), QuorumLostError);
});
