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
import { afterExpulsion, decideRecording, type RecordingDecision } from "./membership-rules.ts";
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
  held: Promise<void> | null = null;
  readonly minInSync: number;
  readonly #deps: MembershipDeps;
  readonly #options: MembershipOptions;
  readonly #standings: ReplicaStanding[];
  readonly #removed = new Set<number>();
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
  #holding: Settling | null = null;

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
    const staying = afterExpulsion(this.inSync, replicas);
    const leaving = this.inSync.filter((replica) => !staying.includes(replica));
    const last = this.inSync.find((replica) => staying.includes(replica) && replicas.includes(replica));
    if (last !== undefined) this.#stand(last, { lastError: errorOf(errno) });
    if (leaving.length > 0) this.#takeOut(leaving, reason, errno);
    if (this.#joining !== null && replicas.includes(this.#joining.replica)) this.#endJoining(false);
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
    // Also where it is known to be out of reach: what is wrong with it now may be another thing.
    if ((state === "OutOfSync" || state === "Unreachable") && !reachable)
      this.#stand(replica, { state: "Unreachable", lastError: error });
    else if (state === "Unreachable" && reachable) this.#stand(replica, { state: "OutOfSync" });
  }

  /** One more replica at the end of the configuration, empty or to be compared. Answers its index. */
  add(name: string): number {
    this.#standings.push({ name, state: "OutOfSync", reason: "New", since: this.#now(), lastError: null });
    return this.#standings.length - 1;
  }

  /** An administrator lets it come back; on record, so that a later process does not leave it out again. */
  async enable(replica: number): Promise<void> {
    if (this.standing(replica).reason !== "Disabled") return;
    this.#stand(replica, { reason: "NotAtMount" });
    await this.refreshRecord();
  }

  /** It is no replica of this volume any more, or another one takes its place. Neither in sync nor syncing. */
  remove(replica: number): void {
    this.#stand(replica, { state: "OutOfSync", reason: "New", since: this.#now(), lastError: null });
    this.#removed.add(replica);
  }

  /** The place of a removed one is taken by a new one of the same name. */
  replaced(replica: number): void {
    this.#removed.delete(replica);
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

  /** Until `letGo` nothing is sent and nothing acknowledged; what waits for longer than this fails. */
  hold(timeoutMs: number): void {
    if (this.#holding !== null) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // nobody may be waiting for it
    const timer = setTimeout(() => reject(new Error(`held for ${timeoutMs} ms`)), timeoutMs).unref();
    this.#holding = { promise, resolve, reject, timer };
    this.held = promise;
  }

  letGo(): void {
    const holding = this.#holding;
    this.#holding = null;
    this.held = null;
    if (holding === null) return;
    clearTimeout(holding.timer);
    holding.resolve();
  }

  /** Another process has the volume: nothing is ever changed or acknowledged here again. */
  lose(error: ClaimLostError): void {
    this.#fail(error);
    this.#holding?.reject(error);
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

  /** At an unmount in order, when the members are alike on stable storage: says so on record, if that is so. */
  async release(): Promise<void> {
    await this.close();
    if (this.#loss === null && this.#decide().kind === "settled") await this.#deps.arbiter.release();
  }

  #takeOut(leaving: readonly number[], reason: LeaveReason, errno: number): void {
    this.inSync = this.inSync.filter((replica) => !leaving.includes(replica));
    const since = this.#now();
    // No call has failed where an administrator, or a comparison, takes one out.
    const lastError = errno === 0 && (reason === "Disabled" || reason === "Diverged") ? null : errorOf(errno);
    for (const replica of leaving) {
      this.#stand(replica, { state: "OutOfSync", reason, since, lastError });
      const why = lastError === null ? reason : `${reason}: ${lastError}`;
      const message = `Replica "${this.#name(replica)}" is out of sync (${why})`;
      this.#tell({ kind: "left", replica, reason, message });
    }
    // Not on record, so what waits for the record must not be acknowledged either.
    if (this.inSync.length < this.minInSync) this.#fail(this.#belowMinimum());
    else this.#startRecording();
  }

  #startRecording(): void {
    if (this.#loss instanceof ClaimLostError) return; // `settled` is rejected for good
    if (this.#closed) {
      this.#fail(unmounting());
      return;
    }
    this.#settling ??= this.#beginSettling();
    this.#wake?.();
    if (this.#recording === null) this.#recording = this.#record();
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
    }, recordDeadlineMs).unref();
    this.settled = promise;
    return { promise, resolve, reject, timer };
  }

  #decide(): RecordingDecision {
    return decideRecording({
      inSync: this.inSync.map((i) => this.#name(i)),
      joining: this.#joining === null ? null : this.#name(this.#joining.replica),
      recorded: this.#recorded,
      inDoubt: this.#inDoubt,
      minInSync: this.minInSync,
    });
  }

  async #record(): Promise<void> {
    await Promise.resolve(); // several expulsions of one turn become one record
    try {
      for (;;) {
        const decision = this.#decide();
        if (decision.kind === "settled") {
          this.#caughtUp();
          return;
        }
        if (decision.kind === "below-minimum") {
          if (this.#joining === null) return;
          this.#endJoining(false);
        } else if (this.#closed) {
          this.#fail(unmounting());
          return;
        } else {
          await this.#tryRecord(decision.members, decision.newcomer);
        }
        if (this.#loss instanceof ClaimLostError) return;
      }
    } finally {
      this.#endJoining(false);
      this.#recording = null; // in the same turn as the decision to stop
    }
  }

  async #tryRecord(members: readonly string[], newcomer: string | null): Promise<void> {
    try {
      await this.#recordOnce(members, newcomer);
    } catch (error) {
      this.#endJoining(false);
      this.#fail(recordError(error));
      if (!(error instanceof ClaimLostError) && !this.#closed) await this.#pause();
    }
  }

  async #recordOnce(members: readonly string[], newcomer: string | null): Promise<void> {
    const asked = this.inSync;
    const joining = this.#joining;
    const inOrder = this.#standings.flatMap(({ name }) => (members.includes(name) ? [name] : []));
    this.#inDoubt = true;
    const record = await this.#deps.arbiter.record(inOrder, newcomer, this.#absent(members));
    this.#recorded = record;
    this.#inDoubt = false;
    const refused = asked.filter((i) => this.inSync.includes(i) && !record.members.includes(this.#name(i)));
    if (refused.length > 0) this.expel(refused, "RecordFailed", 0);
    if (joining !== null && this.#joining === joining) {
      const joined = record.members.includes(this.#name(joining.replica));
      if (joined) this.#letIn(joining.replica);
      this.#endJoining(joined);
    }
  }

  #letIn(replica: number): void {
    this.inSync = [...this.inSync, replica].sort((a, b) => a - b);
    this.syncing = this.syncing.filter((i) => i !== replica);
    this.#stand(replica, { state: "InSync", reason: null, since: this.#now(), lastError: null });
    this.#tell({ kind: "joined", replica, message: `Replica "${this.#name(replica)}" is in sync` });
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
    const missing = this.#standings.flatMap((standing, i) =>
      this.inSync.includes(i) || this.#removed.has(i) ? [] : [standing.name],
    );
    return new QuorumLostError(
      "below-minimum",
      missing,
      `Only ${this.inSync.length} of at least ${this.minInSync} replicas are in sync, so changes are refused: ` +
        `bring back ${quoted(missing)}, or mount with a smaller --min-in-sync`,
    );
  }

  #absent(members: readonly string[]): AbsentReplica[] {
    return this.#standings.flatMap(({ name, reason, since }, i) =>
      members.includes(name) || this.#removed.has(i)
        ? []
        : [{ name, reason: reason ?? "New", since, resumePoint: this.#deps.resumePoint(i) }],
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
    queueMicrotask(() => this.#deps.onEvent(event)); // nobody may change the set in the middle of a change to it
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

function unmounting(): QuorumLostError {
  return new QuorumLostError(
    "record-failed",
    [],
    "The volume is being unmounted, so changes are refused: mount it again",
  );
}

function errorOf(errno: number): string {
  return errno < 0 ? errnoName(errno) : errno === 0 ? "no answer" : `answered ${errno}`;
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}
