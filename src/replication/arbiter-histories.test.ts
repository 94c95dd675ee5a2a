/**
 * Long histories drawn at random, over the membership and its arbiter as they are, on control files in memory: mounts that
 * see some of the voters, changes that fail here and there, records and files that fail half way, resyncs,
 * crashes at any call, orderly unmounts. One register a replica stands for the tree.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FaultyReplica } from "../replica/testing/faulty.ts";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { type Choose, seeded } from "../replica/testing/random.ts";
import { EIO } from "../util/errno.ts";
import { silentLogger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { VoterArbiter } from "./arbiter-voters.ts";
import { ReplicaControlFiles } from "./control-files.ts";
import { QuorumLostError } from "./errors.ts";
import { VolumeMembership } from "./membership.ts";
import { decideChange } from "./verdict.ts";

const RUNS = 60;
const broken = { kind: "errno", errno: EIO } as const;

/** Nothing was in force; that is allowed to happen at any time. */
function expected(error: unknown): true {
  if (error instanceof QuorumLostError) return true;
  throw error;
}

class History {
  readonly #draw: Choose;
  readonly #names: readonly string[];
  readonly #witness: string | null;
  readonly #minInSync: number;
  readonly #voters = new Map<string, FaultyReplica>();
  readonly #data = new Map<string, Set<number>>();
  readonly #acknowledged = new Set<number>();
  #next = 0;
  #certain: readonly string[] | null = null;

  constructor(draw: Choose) {
    this.#draw = draw;
    this.#names = ["a", "b", "c"].slice(0, 2 + draw(2));
    this.#witness = draw(2) === 0 ? "witness" : null;
    this.#minInSync = 1 + draw(2);
  }

  async begin(): Promise<void> {
    for (const name of this.#witness === null ? this.#names : [...this.#names, this.#witness]) {
      const voter = new FaultyReplica(new MemoryReplica(undefined, { name }), [], {
        async: this.#draw(2) === 0,
        seed: this.#draw(1000),
      });
      await voter.connect({ signal: AbortSignal.timeout(60_000) });
      await start(new ReplicaControlFiles(voter).create());
      this.#voters.set(name, voter);
      this.#data.set(name, new Set());
    }
    await this.#arbiter().initialize(this.#names);
  }

  #arbiter(): VoterArbiter {
    return new VoterArbiter(
      [...this.#voters].map(([name, voter]) => ({ name, files: new ReplicaControlFiles(voter) })),
      {
        log: silentLogger,
        now: () => new Date(0),
        isQuiet: () => true,
        onCertain: (members) => {
          this.#certain = members;
        },
      },
      {
        volumeId: "volume",
        witness: this.#witness,
        minInSync: this.#minInSync,
        forceDegraded: false,
        certain: this.#certain,
      },
    );
  }

  /** Some voters do not answer, some fail now and then, and perhaps all stop at some call, as at a crash. */
  #weather(): void {
    const crash = this.#draw(2) === 0 ? this.#draw(60) : Number.POSITIVE_INFINITY;
    for (const voter of this.#voters.values()) {
      voter.heal();
      const weather = this.#draw(6);
      if (weather === 0) voter.inject({ effect: broken });
      else if (weather === 1)
        voter.inject({ on: "change", oneIn: 6, effect: { ...broken, applied: this.#draw(2) === 0 } });
      if (Number.isFinite(crash)) voter.inject({ after: crash, effect: broken });
    }
  }

  async mount(): Promise<void> {
    this.#weather();
    if (this.#draw(2) === 0) this.#certain = null; // the machine has stopped, not the process alone
    const arbiter = this.#arbiter();
    if (await arbiter.claim().then(() => false, expected)) return;
    const { members } = arbiter.current;
    for (const name of members) this.#holdsAll(name, "a mount trusts it");
    if (arbiter.claimed.clean) {
      for (const name of members) assert.deepEqual(this.#of(name), this.#of(members[0] ?? ""), "not alike");
    }
    for (const name of members) this.#data.set(name, new Set(this.#of(members[0] ?? "")));
    const membership = new VolumeMembership(
      arbiter.current,
      { arbiter, now: () => new Date(0), onEvent: () => {}, resumePoint: () => null },
      { replicas: this.#names, minInSync: this.#minInSync, recordDeadlineMs: 60_000, retryMs: 1 },
    );
    for (let i = this.#draw(8); i > 0; i--) {
      if (this.#draw(4) > 0) await this.#change(membership);
      else await this.#resync(membership);
      if (this.#draw(4) === 0) for (const voter of this.#voters.values()) voter.heal();
    }
    if (this.#draw(3) === 0) await membership.release().catch(expected);
    else await membership.close();
    if (this.#draw(4) === 0) this.#certain = null;
  }

  async #change(membership: VolumeMembership): Promise<void> {
    if (membership.quorumLost) return;
    const id = this.#next++;
    const sent = membership.inSync;
    const results = sent.map((replica) => {
      if (this.#draw(4) === 0) return -EIO;
      this.#of(this.#names[replica] ?? "").add(id);
      return 0;
    });
    const verdict = decideChange(sent, results, membership, "FailWrites", true);
    for (const { replica, reason, errno } of verdict.expel) membership.expel([replica], reason, errno);
    if (verdict.suspect) for (const replica of sent) this.#of(this.#names[replica] ?? "").delete(id); // made alike
    if (verdict.result < 0) return;
    try {
      while (membership.settled !== null) await membership.settled;
    } catch {
      return;
    }
    this.#acknowledged.add(id);
  }

  async #resync(membership: VolumeMembership): Promise<void> {
    const out = this.#names.findIndex((_, i) => !membership.inSync.includes(i));
    const leader = membership.inSync[0];
    if (out < 0 || leader === undefined) return;
    this.#data.set(this.#names[out] ?? "", new Set(this.#of(this.#names[leader] ?? "")));
    await membership.admit(out);
  }

  #of(name: string): Set<number> {
    const data = this.#data.get(name);
    assert.ok(data !== undefined);
    return data;
  }

  #holdsAll(name: string, what: string): void {
    for (const id of this.#acknowledged) assert.ok(this.#of(name).has(id), `${what}, and "${name}" lacks change ${id}`);
  }

  get changes(): number {
    return this.#acknowledged.size;
  }
}

test("whatever fails when, no mount trusts a replica that lacks what was acknowledged", {
  timeout: 600_000,
}, async (t) => {
  const base = Number(process.env["CHIRON_SEED"] ?? Math.floor(Math.random() * 1e9));
  let changes = 0;
  for (let run = 0; run < RUNS; run++) {
    const seed = base + run;
    const history = new History(seeded(seed));
    try {
      await history.begin();
      for (let mounts = 0; mounts < 12; mounts++) await history.mount();
    } catch (error) {
      throw new Error(`Found with CHIRON_SEED=${seed}`, { cause: error });
    }
    changes += history.changes;
  }
  t.diagnostic(`seeds from ${base}, ${changes} changes acknowledged`);
  assert.ok(changes > 0);
});
