/**
 * Who is in sync, as this process acts on it, and its recording by the arbiter.
 *
 * - `inSync` is a new array at each change; a change that was sent to the very array that is still `inSync` when it is
 *   done, with `settled === null`, may be acknowledged without further questions.
 * - `expel` works at once; the record follows, one at a time, several expulsions in one. `settled` is the promise that the
 *   record has caught up: nothing is acknowledged before.
 * - On record never stand fewer than `minInSync` members through an expulsion: the replicas that would leave then have
 *   everything that was ever acknowledged, and must stay usable by a later mount. They are out in this process all the
 *   same (not read, resynced before they return), and the volume is read-only.
 * - The last replica is never taken out: there would be nothing left to read. Changes fail there by themselves.
 * - If no record can be made, the quorum is lost until one succeeds: recording is tried again and again. After a lost claim
 *   it is lost for good.
 * - A replica that joins counts only once the record with it is in force.
 */
import { errnoName } from "../util/errno.ts";
import { errorText } from "../util/logger.ts";
import type { Arbiter, Membership } from "./contracts.ts";
import { ClaimLostError, QuorumLostError } from "./errors.ts";
import type { AbsentReplica, LeaveReason, MembershipRecord, ReplicaState } from "./model.ts";

export type MembershipEvent =
  | { readonly kind: "left"; readonly replica: number; readonly reason: LeaveReason; readonly message: string }
  | { readonly kind: "joined"; readonly replica: number; readonly message: string }
  | { readonly kind: "sync-started"; readonly replica: number; readonly message: string }
  | { readonly kind: "sync-stopped"; readonly replica: number; readonly message: string }
  | { readonly kind: "quorum-lost"; readonly message: string }
  | { readonly kind: "quorum-restored"; readonly message: string };

export interface MembershipDeps {
  readonly arbiter: Arbiter;
  readonly now: () => Date;
  readonly onEvent: (event: MembershipEvent) => void;
  /** Goes into the record for a replica that is not in sync (see `AbsentReplica`). */
  readonly resumePoint: (replica: number) => string | null;
}

export interface MembershipOptions {
  /** Names, by index. */
  readonly replicas: readonly string[];
  readonly minInSync: number;
  /** How long changes wait for the record before they fail. */
  readonly recordDeadlineMs: number;
  /** Pause before a record that failed is tried again. */
  readonly retryMs: number;
}

/** What is known of one replica; `Unreachable` is an OutOfSync that does not answer. */
export interface ReplicaStanding {
  readonly name: string;
  readonly state: ReplicaState;
  readonly reason: LeaveReason | null;
  readonly since: string;
  readonly lastError: string | null;
}

interface Settling {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

interface Joining {
  readonly replica: number;
  readonly done: (joined: boolean) => void;
}

export class VolumeMembership implements Membership {
  inSync: readonly number[];
  syncing: readonly number[] = [];
  settled: Promise<void> | null = null;
  readonly minInSync: number;
  readonly #deps: MembershipDeps;
  readonly #options: MembershipOptions;
  readonly #standings: ReplicaStanding[];
  /** In force. */
  #recorded: MembershipRecord;
  /** A record was begun since, and may be in force or not. */
  #inDoubt = false;
  #loss: QuorumLostError | ClaimLostError | null = null;
  #settling: Settling | null = null;
  #recording: Promise<void> | null = null;
  #joining: Joining | null = null;
  #wake: (() => void) | null = null;
  #closed = false;

  /** `recorded`: what `arbiter.claim()` answered. */
  constructor(recorded: MembershipRecord, deps: MembershipDeps, options: MembershipOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#recorded = recorded;
    this.minInSync = options.minInSync;
    const now = deps.now().toISOString();
    this.#standings = options.replicas.map((name) => standingOnRecord(name, recorded, now));
    this.inSync = options.replicas.flatMap((name, i) => (recorded.members.includes(name) ? [i] : []));
    if (this.inSync.length < this.minInSync) this.#lose(this.#belowMinimum());
  }

  get quorumLost(): boolean {
    return this.#loss !== null;
  }

  /** Why changes are refused, and what to do; null while they are not. */
  get quorumLoss(): QuorumLostError | ClaimLostError | null {
    return this.#loss;
  }

  /** `term.seq` of the record in force. */
  get epoch(): string {
    return `${this.#recorded.term}.${this.#recorded.seq}`;
  }

  standing(replica: number): ReplicaStanding {
    const standing = this.#standings[replica];
    if (standing === undefined) throw new RangeError(`No replica ${replica}`);
    return standing;
  }

  expel(replicas: readonly number[], reason: LeaveReason, errno: number): void {
    const leaving = replicas.filter((replica) => this.inSync.includes(replica));
    const last = leaving.length === this.inSync.length ? leaving.shift() : undefined;
    if (last !== undefined) this.#stand(last, { lastError: errorOf(errno) });
    if (leaving.length > 0) this.#takeOut(leaving, reason, errno);
    for (const replica of replicas) if (this.syncing.includes(replica)) this.stopSync(replica, reason, errorOf(errno));
  }

  /** A resync of this replica begins: it may be sent changes to what is repaired. */
  startSync(replica: number): void {
    if (this.inSync.includes(replica) || this.syncing.includes(replica)) return;
    this.syncing = [...this.syncing, replica].sort((a, b) => a - b);
    this.#stand(replica, { state: "Syncing", since: this.#now() });
    this.#tell({
      kind: "sync-started",
      replica,
      message: `Replica "${this.#name(replica)}" is being brought up to date`,
    });
  }

  /** The resync ended before the replica was in sync. */
  stopSync(replica: number, reason: LeaveReason | null, error: string | null): void {
    if (!this.syncing.includes(replica)) return;
    this.syncing = this.syncing.filter((other) => other !== replica);
    const standing = this.standing(replica);
    this.#stand(replica, {
      state: "OutOfSync",
      since: this.#now(),
      reason: reason ?? standing.reason,
      lastError: error ?? standing.lastError,
    });
    const why = error === null ? "" : `: ${error}`;
    this.#tell({
      kind: "sync-stopped",
      replica,
      message: `The resync of replica "${this.#name(replica)}" stopped${why}`,
    });
  }

  /** Of a replica that is neither in sync nor syncing: does it answer? */
  setReachable(replica: number, reachable: boolean, error: string | null): void {
    const { state } = this.standing(replica);
    if (state === "OutOfSync" && !reachable) this.#stand(replica, { state: "Unreachable", lastError: error });
    else if (state === "Unreachable" && reachable) this.#stand(replica, { state: "OutOfSync" });
  }

  /** One more replica at the end of the configuration, empty or to be compared. Answers its index. */
  add(name: string): number {
    this.#standings.push({ name, state: "OutOfSync", reason: "New", since: this.#now(), lastError: null });
    return this.#standings.length - 1;
  }

  /**
   * The replica is complete: lets it in. The caller holds all changes back until this has answered. False if it could not
   * be recorded, or the replica was expelled meanwhile: it stays out, and that is on record before `settled`.
   */
  admit(replica: number): Promise<boolean> {
    if (this.inSync.includes(replica)) return Promise.resolve(true);
    if (this.#joining !== null || this.#closed || this.#loss instanceof ClaimLostError) return Promise.resolve(false);
    return new Promise((done) => {
      this.#joining = { replica, done };
      this.#startRecording();
    });
  }

  /** Has the record made anew, with the resume points of now. */
  async refreshRecord(): Promise<void> {
    this.#inDoubt = true;
    this.#startRecording();
    await this.settled;
  }

  /** Stops trying to record; what waits fails. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
    await this.#recording;
  }

  #takeOut(leaving: readonly number[], reason: LeaveReason, errno: number): void {
    this.inSync = this.inSync.filter((replica) => !leaving.includes(replica));
    const since = this.#now();
    for (const replica of leaving) {
      this.#stand(replica, { state: "OutOfSync", reason, since, lastError: errorOf(errno) });
      const message = `Replica "${this.#name(replica)}" is out of sync (${reason}: ${errorOf(errno)})`;
      this.#tell({ kind: "left", replica, reason, message });
    }
    // Not on record, so what waits for the record must not be acknowledged either.
    if (this.inSync.length < this.minInSync) this.#fail(this.#belowMinimum());
    else this.#startRecording();
  }

  #startRecording(): void {
    if (this.#closed || this.#loss instanceof ClaimLostError || !this.#hasToRecord()) return;
    this.#settling ??= this.#beginSettling();
    this.#wake?.();
    this.#recording ??= this.#record().finally(() => {
      this.#recording = null;
    });
  }

  #beginSettling(): Settling {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // nobody may be waiting for it
    const { recordDeadlineMs } = this.#options;
    const timer = setTimeout(() => {
      this.#fail(
        new QuorumLostError(
          "record-failed",
          [],
          `The membership could not be recorded within ${recordDeadlineMs} ms, so changes are refused: ` +
            "see that the other voters can be reached; it is tried again by itself",
        ),
      );
    }, recordDeadlineMs);
    this.settled = promise;
    return { promise, resolve, reject, timer };
  }

  /** Who should be on record. */
  #wanted(): readonly number[] {
    const joining = this.#joining;
    return joining === null ? this.inSync : [...this.inSync, joining.replica].sort((a, b) => a - b);
  }

  #hasToRecord(): boolean {
    if (this.#joining !== null) return true;
    if (this.inSync.length < this.minInSync) return false;
    const { members } = this.#recorded;
    return (
      this.#inDoubt ||
      members.length !== this.inSync.length ||
      !this.inSync.every((i) => members.includes(this.#name(i)))
    );
  }

  async #record(): Promise<void> {
    await null; // several expulsions of one turn become one record
    while (!this.#closed && this.#hasToRecord()) {
      const joining = this.#joining;
      const wanted = this.#wanted();
      if (wanted.length < this.minInSync) {
        this.#endJoining(false);
        continue;
      }
      try {
        await this.#recordOnce(wanted, joining);
      } catch (error) {
        this.#endJoining(false);
        this.#fail(recordError(error));
        if (error instanceof ClaimLostError) return;
        await this.#pause();
      }
    }
    if (this.#closed) {
      this.#endJoining(false);
      this.#fail(recordError(new Error("the volume is being unmounted")));
      return;
    }
    if (this.inSync.length >= this.minInSync) this.#caughtUp();
  }

  async #recordOnce(wanted: readonly number[], joining: Joining | null): Promise<void> {
    const names = wanted.map((i) => this.#name(i));
    const joiner = joining === null ? null : this.#name(joining.replica);
    const newcomer = joiner !== null && this.#recorded.members.includes(joiner) && !this.#inDoubt ? null : joiner;
    const absent = this.#absent(wanted);
    this.#inDoubt = true;
    const record = await this.#deps.arbiter.record(names, newcomer, absent);
    this.#recorded = record;
    this.#inDoubt = false;
    const refused = this.inSync.filter((i) => wanted.includes(i) && !record.members.includes(this.#name(i)));
    if (refused.length > 0) this.expel(refused, "RecordFailed", 0);
    if (joining === null || this.#joining !== joining) return;
    const joined = joiner !== null && record.members.includes(joiner);
    if (joined) {
      this.inSync = [...this.inSync, joining.replica].sort((a, b) => a - b);
      this.syncing = this.syncing.filter((i) => i !== joining.replica);
      this.#stand(joining.replica, { state: "InSync", reason: null, since: this.#now(), lastError: null });
      this.#tell({ kind: "joined", replica: joining.replica, message: `Replica "${joiner}" is in sync` });
    }
    this.#endJoining(joined);
  }

  #endJoining(joined: boolean): void {
    const joining = this.#joining;
    this.#joining = null;
    joining?.done(joined);
  }

  #caughtUp(): void {
    if (this.#loss !== null) {
      this.#loss = null;
      this.inSync = [...this.inSync];
      this.#tell({ kind: "quorum-restored", message: "Changes are accepted again" });
    }
    const settling = this.#settling;
    this.#settling = null;
    this.settled = null;
    if (settling === null) return;
    clearTimeout(settling.timer);
    settling.resolve();
  }

  /** Whoever waits for the record fails. `settled` stays rejected until a record succeeds. */
  #fail(error: QuorumLostError | ClaimLostError): void {
    this.#lose(error);
    this.#settling ??= this.#beginSettling();
    const settling = this.#settling;
    clearTimeout(settling.timer);
    settling.reject(error);
  }

  #lose(error: QuorumLostError | ClaimLostError): void {
    const before = this.#loss;
    if (before instanceof ClaimLostError) return;
    this.#loss = error;
    this.inSync = [...this.inSync]; // changes under way must ask again
    if (before === null) this.#tell({ kind: "quorum-lost", message: error.message });
  }

  #belowMinimum(): QuorumLostError {
    const missing = this.#standings.flatMap((standing, i) => (this.inSync.includes(i) ? [] : [standing.name]));
    return new QuorumLostError(
      "below-minimum",
      missing,
      `Only ${this.inSync.length} of at least ${this.minInSync} replicas are in sync, so changes are refused: ` +
        `bring back ${quoted(missing)}, or mount with a smaller --min-in-sync`,
    );
  }

  #absent(wanted: readonly number[]): AbsentReplica[] {
    return this.#standings.flatMap(({ name, reason, since }, i) =>
      wanted.includes(i) ? [] : [{ name, reason: reason ?? "New", since, resumePoint: this.#deps.resumePoint(i) }],
    );
  }

  #pause(): Promise<void> {
    return new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#options.retryMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    }).then(() => {
      this.#wake = null;
    });
  }

  #stand(replica: number, change: Partial<ReplicaStanding>): void {
    this.#standings[replica] = { ...this.standing(replica), ...change };
  }

  #name(replica: number): string {
    return this.standing(replica).name;
  }

  #now(): string {
    return this.#deps.now().toISOString();
  }

  #tell(event: MembershipEvent): void {
    this.#deps.onEvent(event);
  }
}

function standingOnRecord(name: string, recorded: MembershipRecord, now: string): ReplicaStanding {
  if (recorded.members.includes(name)) return { name, state: "InSync", reason: null, since: now, lastError: null };
  const absent = recorded.absent.find((other) => other.name === name);
  return { name, state: "OutOfSync", reason: absent?.reason ?? "New", since: absent?.since ?? now, lastError: null };
}

function recordError(error: unknown): QuorumLostError | ClaimLostError {
  if (error instanceof QuorumLostError || error instanceof ClaimLostError) return error;
  const message = `The membership could not be recorded, so changes are refused: ${errorText(error)}`;
  return new QuorumLostError("record-failed", [], message, error);
}

function errorOf(errno: number): string {
  return errno < 0 ? errnoName(errno) : errno === 0 ? "no answer" : `answered ${errno}`;
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}
