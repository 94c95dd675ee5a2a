/**
 * The arbiter of a mount that only reads, beside others: follows the record that a writer left in order, and leaves it
 * alone. A member that fails here is not read here any more, and nobody else is told.
 */
import type { RecordStore } from "./arbiter-status.ts";
import type { Claim, VolumeArbiter } from "./contracts.ts";
import { QuorumLostError } from "./errors.ts";
import type { AbsentReplica, MembershipRecord } from "./model.ts";
import { withAbsent } from "./takeover-rules.ts";

export class StatusObserver implements VolumeArbiter {
  readonly claimed: Claim = { clean: true, forced: false, diverged: [] };
  readonly #store: RecordStore;
  readonly #volumeId: string;
  readonly #here: readonly string[];
  #current: MembershipRecord = { term: 0, seq: 0, members: [], absent: [] };

  /** `here`: replicas that answer, and are ours. */
  constructor(store: RecordStore, volumeId: string, here: readonly string[]) {
    this.#store = store;
    this.#volumeId = volumeId;
    this.#here = here;
  }

  async peek(): Promise<MembershipRecord | null> {
    return (await this.#store.read()).record;
  }

  async claim(): Promise<MembershipRecord> {
    const { record } = await this.#store.read();
    const members = record?.members.filter((name) => this.#here.includes(name)) ?? [];
    if (record === null || record.volumeId !== this.#volumeId || members.length === 0)
      throw new QuorumLostError(
        "no-member",
        record?.members ?? [],
        "None of the replicas that are in sync on record can be reached: make one of them reachable",
      );
    if (!record.clean)
      throw new QuorumLostError(
        "no-member",
        [],
        "The volume was not left in order by its last writer: mount it for writing once",
      );
    this.#current = { ...record, members, absent: withAbsent(record, members, new Date().toISOString()) };
    return this.#current;
  }

  record(
    members: readonly string[],
    _newcomer: string | null,
    absent: readonly AbsentReplica[],
  ): Promise<MembershipRecord> {
    this.#current = { ...this.#current, members, absent };
    return Promise.resolve(this.#current);
  }

  initialize(): Promise<void> {
    return Promise.reject(new Error("a reader makes no volume"));
  }

  confirm(): Promise<void> {
    return Promise.resolve();
  }

  leave(): Promise<MembershipRecord> {
    return Promise.resolve(this.#current);
  }

  withdraw(): Promise<MembershipRecord> {
    return Promise.resolve(this.#current);
  }

  addVoter(): void {}

  release(): Promise<void> {
    return Promise.resolve();
  }
}
