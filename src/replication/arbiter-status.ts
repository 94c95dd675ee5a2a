/**
 * The arbiter on Kubernetes: the membership is one record in the ReplicatedVolume's status, changed by compare-and-swap.
 * What to do is decided in `takeover-rules.ts`; here it is done.
 *
 * - A swap that had no answer may have taken effect, or do so later: so the record is read again before each one, and
 *   a swap names the version that was read. Nobody else writes into our term.
 * - Every record is copied to its members before it is answered, as a standalone volume would have it: for the day when
 *   the object in the API is lost, and for a mount by hand. The copies decide nothing while there is a record.
 * - Without a record (a new object over known replicas) the copies are believed only if every replica shows its own.
 */
import { errorText, type Logger } from "../util/logger.ts";
import type { VoterArbiter } from "./arbiter-voters.ts";
import type { Claim, VolumeArbiter, Voter } from "./contracts.ts";
import { ClaimLostError, QuorumLostError } from "./errors.ts";
import type { AbsentReplica, MembershipRecord } from "./model.ts";
import {
  type Claimant,
  decideClaim,
  type Held,
  isOurs,
  type StatusRecord,
  staying,
  withAbsent,
} from "./takeover-rules.ts";

/** The object that holds the record. Calls reject where it cannot be reached, and answer within some seconds. */
export interface RecordStore {
  read(): Promise<Held & { readonly version: string }>;
  /** False where the object is no longer at this version. */
  swap(version: string, record: StatusRecord): Promise<boolean>;
}

export interface StatusArbiterDeps {
  readonly store: RecordStore;
  /** Makes new volumes, and keeps the copies. */
  readonly voters: VoterArbiter;
  /** Does each of these shut earlier processes out by itself? */
  readonly fences: (members: readonly string[]) => boolean;
  readonly now: () => Date;
  /** A clock that never jumps. */
  readonly nowMs: () => number;
  readonly pause: (ms: number) => Promise<void>;
  readonly log: Logger;
}

export interface StatusArbiterOptions extends Claimant {
  readonly volumeId: string;
  /** Goes on for an earlier process of this mount: waits for the store for as long as it takes. */
  readonly resumed: boolean;
  /** How long a change of the record waits for the store. */
  readonly waitMs: number;
  readonly replicas: readonly string[];
  /** Replicas that answer, are ours, and have no earlier call under way. */
  readonly here: readonly string[];
}

const RETRY_MS = 1_000;

export class StatusArbiter implements VolumeArbiter {
  readonly #deps: StatusArbiterDeps;
  readonly #options: StatusArbiterOptions;
  #current: StatusRecord | null = null;
  #claim: Claim | null = null;
  /** Of the record that the first one was made from. */
  #firstClean = false;

  constructor(deps: StatusArbiterDeps, options: StatusArbiterOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  get claimed(): Claim {
    if (this.#claim === null) throw new Error("The volume has not been claimed");
    return this.#claim;
  }

  async initialize(inSync: readonly string[]): Promise<void> {
    await this.#deps.voters.initialize(inSync);
  }

  async peek(): Promise<MembershipRecord | null> {
    return (await this.#read()).record;
  }

  async claim(): Promise<MembershipRecord> {
    for (;;) {
      const held = await this.#read();
      const record = await this.#decide(held);
      if (!(await this.#swap(held.version, record))) continue;
      this.#current = record;
      this.#claim = { clean: held.record?.clean ?? this.#firstClean, forced: false, diverged: [] };
      await this.#copy(record);
      return record;
    }
  }

  async #decide(held: Held): Promise<StatusRecord> {
    const { node, mount, resumed, here, volumeId } = this.#options;
    const now = this.#now();
    const { fences } = this.#deps;
    if (held.record !== null && held.record.volumeId !== volumeId)
      throw new QuorumLostError(
        "no-member",
        [],
        `The replicas are volume ${volumeId}, and the record is of ${held.record.volumeId}: see what is mounted where they are`,
      );
    const decision = decideClaim(held, { node, mount }, { resumed, here, fences, now });
    switch (decision.kind) {
      case "take":
        return decision.record;
      case "no-record":
        return await this.#first(now);
      case "lost":
        throw new ClaimLostError(0, held.record?.term ?? 0, decision.holder ?? "nobody");
      case "no-member":
        throw new QuorumLostError(
          "no-member",
          decision.missing,
          `None of the replicas that are in sync on record (${quoted(decision.missing)}) can be reached: make one of them reachable`,
        );
    }
  }

  /** From what the replicas carry: a new volume, or a new object for a known one. */
  async #first(now: string): Promise<StatusRecord> {
    const { node: _, mount, here, replicas, volumeId } = this.#options;
    const missing = replicas.filter((name) => !here.includes(name));
    if (missing.length > 0)
      throw new QuorumLostError(
        "member-missing",
        missing,
        `The ReplicatedVolume has no membership on record, so it is found out from all of its replicas, and ${quoted(missing)} cannot be reached: make it reachable, or take it out of spec.replicas`,
      );
    const best = await this.#deps.voters.peek();
    const members = best?.members.filter((name) => here.includes(name)) ?? [];
    if (best === null || members.length === 0)
      throw new QuorumLostError(
        "no-member",
        best?.members ?? [],
        "No replica carries a membership record of this volume, so none can be trusted",
      );
    this.#firstClean = best.clean && members.length === best.members.length;
    const absent = withAbsent(best, members, now);
    const fenced = this.#deps.fences(members);
    return { volumeId, mount, term: best.term + 1, seq: 0, members, absent, clean: false, fenced };
  }

  async confirm(): Promise<void> {
    this.#check(await this.#read());
  }

  async leave(unfenced: readonly string[]): Promise<MembershipRecord> {
    const { current } = this;
    const members = staying(current.members, unfenced);
    if (members === null)
      throw new QuorumLostError(
        "no-member",
        current.members,
        `Earlier processes cannot be shut out of ${quoted(current.members)}, so nothing is served`,
      );
    return await this.#write({ members, absent: withAbsent(current, members, this.#now()) }, false);
  }

  async record(
    members: readonly string[],
    _newcomer: string | null,
    absent: readonly AbsentReplica[],
  ): Promise<MembershipRecord> {
    return await this.#write({ members, absent }, false);
  }

  async withdraw(replica: string): Promise<MembershipRecord> {
    const { members, absent } = this.current;
    if (members.includes(replica)) throw new Error(`Replica "${replica}" is in sync`);
    return await this.#write({ members, absent: absent.filter(({ name }) => name !== replica) }, false);
  }

  addVoter(voter: Voter): void {
    this.#deps.voters.addVoter(voter);
  }

  async release(): Promise<void> {
    const { members, absent } = this.current;
    await this.#write({ members, absent }, true);
  }

  /** In force, as far as we know. */
  get current(): StatusRecord {
    if (this.#current === null) throw new Error("The volume has not been claimed");
    return this.#current;
  }

  async #write(change: Pick<StatusRecord, "members" | "absent">, clean: boolean): Promise<StatusRecord> {
    for (const giveUpMs = this.#deps.nowMs() + this.#options.waitMs; ; ) {
      const held = await this.#read(giveUpMs);
      const ours = this.#check(held);
      const record = { ...ours, ...change, seq: ours.seq + 1, clean, fenced: this.#deps.fences(change.members) };
      if (!(await this.#swap(held.version, record, giveUpMs))) continue;
      this.#current = record;
      await this.#copy(record);
      return record;
    }
  }

  /** The record, which is ours. */
  #check(held: Held): StatusRecord {
    const { term } = this.current;
    if (held.record !== null && isOurs(held, this.#options, term)) return held.record;
    throw new ClaimLostError(term, held.record?.term ?? 0, held.holder ?? "nobody");
  }

  async #read(giveUpMs: number | null = null): Promise<Awaited<ReturnType<RecordStore["read"]>>> {
    return await this.#reached(() => this.#deps.store.read(), giveUpMs);
  }

  /** One that had no answer is looked for by reading again. */
  async #swap(version: string, record: StatusRecord, giveUpMs: number | null = null): Promise<boolean> {
    let tried = false;
    return await this.#reached(async () => {
      if (tried) return false;
      tried = true;
      return await this.#deps.store.swap(version, record);
    }, giveUpMs);
  }

  /** Before a process that goes on for another one has its claim, there is nothing else that it could do but wait. */
  async #reached<T>(call: () => Promise<T>, giveUpMs: number | null): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await call();
      } catch (error) {
        const problem = errorText(error);
        const waits = this.#current === null && this.#options.resumed;
        if (!waits && (giveUpMs === null || this.#deps.nowMs() >= giveUpMs)) {
          const message = `The membership cannot be read or recorded: ${problem}`;
          throw new QuorumLostError("record-failed", [], message, error);
        }
        if (attempt % 10 === 1) this.#deps.log.warn("The membership record cannot be reached", { error: problem });
        await this.#deps.pause(RETRY_MS);
      }
    }
  }

  async #copy(record: StatusRecord): Promise<void> {
    const replicas = [...new Set([...record.members, ...record.absent.map(({ name }) => name)])];
    await this.#deps.voters.copy(record, replicas);
  }

  #now(): string {
    return this.#deps.now().toISOString();
  }
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}
