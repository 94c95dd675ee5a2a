/**
 * The arbiter of a standalone volume: keeps the membership on the replicas themselves and on the witness, if there is
 * one. What to do is decided in `arbiter-rules.ts`; here it is done, on `.chiron/terms/<n>` and
 * `.chiron/membership/<term>.<seq>.json` of each voter.
 *
 * - One change at a time; the caller sees to that (`membership.ts` does).
 * - A voter on which a newer term is claimed is not written. If a quorum has not been claimed by anybody else, that is
 *   what a mount left behind which did not succeed, and we claim a newer term ourselves; else the volume is lost to us.
 * - A voter whose files cannot be read, or are damaged, is not here.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { errorText, type Logger } from "../util/logger.ts";
import { type Op, start } from "../util/op.ts";
import {
  comparePositions,
  formatRecord,
  hasDiverged,
  type Position,
  parseRecord,
  positionOfFile,
  RECORD_MAX_BYTES,
  recordFileName,
  type VoterRecord,
  type Voters,
  votersOf,
} from "./arbiter-record.ts";
import {
  beginRecording,
  decideMount,
  type MountChoice,
  majorityOf,
  nextRecordStep,
  type Recording,
  recordRefused,
  recordTaken,
  type VoterView,
} from "./arbiter-rules.ts";
import type { Claim, VolumeArbiter, Voter } from "./contracts.ts";
import type { ControlFiles } from "./control-files.ts";
import { ClaimLostError, ControlFileError, type QuorumLossCause, QuorumLostError } from "./errors.ts";
import type { AbsentReplica } from "./model.ts";

const TERMS = "terms";
const RECORDS = "membership";
/** Of a mount, when it finds that somebody has claimed what it did not see at first. */
const CLAIM_ATTEMPTS = 3;
const COPY_TIMEOUT_MS = 2_000;

export interface VoterArbiterDeps {
  readonly log: Logger;
  readonly now: () => Date;
  /** False while calls of an earlier process may still take effect on this replica. */
  readonly isQuiet: (voter: string) => boolean;
  /**
   * Members by every record that may be in force now: told before one that says otherwise is begun, and when it is in
   * force. The successor of this process has to be given what was told last (`VoterArbiterOptions.certain`), so keep it
   * where it outlives the process, though not the machine. `term`: the newest that we have claimed.
   */
  readonly onCertain?: (members: readonly string[], term: number) => void;
}

export interface VoterArbiterOptions {
  readonly volumeId: string;
  /** The voter among the given ones that holds no data, or null. */
  readonly witness: string | null;
  readonly minInSync: number;
  readonly forceDegraded: boolean;
  /** Of a process of the same mount that was just serving and is gone, what it told last (`onCertain`). */
  readonly certain?: readonly string[] | null;
}

export class VoterArbiter implements VolumeArbiter {
  readonly #voters: Map<string, ControlFiles>;
  readonly #deps: VoterArbiterDeps;
  readonly #options: VoterArbiterOptions;
  /** In force. */
  #current: VoterRecord | null = null;
  #claim: Claim | null = null;
  /** The last number tried in our term, whatever became of it. */
  #last: Position = { term: 0, seq: 0 };
  #inDoubt = false;
  #certain: readonly string[];
  /** Found where copies are kept: its lineage goes on. */
  #copied: VoterRecord | null = null;
  /** The highest that we have seen or tried anywhere. */
  #seenTerm = 0;
  /** What is wrong with voters, for messages. */
  readonly #problems = new Map<string, string>();

  /** `voters`: all that were given for this mount. Those that cannot be reached answer their calls with errors. */
  constructor(voters: readonly Voter[], deps: VoterArbiterDeps, options: VoterArbiterOptions) {
    this.#voters = new Map(voters.map(({ name, files }) => [name, files]));
    this.#deps = deps;
    this.#options = options;
    this.#certain = options.certain ?? [];
  }

  /** Of the claim that succeeded. */
  get claimed(): Claim {
    if (this.#claim === null) throw new Error("The volume has not been claimed");
    return this.#claim;
  }

  /** The record in force. */
  get current(): VoterRecord {
    if (this.#current === null) throw new Error("The volume has not been claimed");
    return this.#current;
  }

  /** Why a voter is not here, for people. */
  explain(voter: string, problem: string): void {
    this.#problems.set(voter, problem);
  }

  /** Does this copy hold changes that the members never had? */
  async hasDiverged({ name, files }: Voter): Promise<boolean> {
    const { record } = await this.#run(this.#view(name, files));
    return record !== null && hasDiverged(record, this.current);
  }

  /** What a diverged copy alone held is kept elsewhere: with the record in force it is only behind from now on. */
  async settle({ name, files }: Voter): Promise<void> {
    await this.#run(this.#place(name, files, this.current));
  }

  /** A replica that is to become a voter when it is first in sync. */
  addVoter({ name, files }: Voter): void {
    this.#voters.set(name, files);
  }

  /**
   * Writes the first record of a new volume to all voters, before their markers; anything less than all of them is an
   * error, and the volume does not exist yet. `.chiron` has to be there.
   */
  async initialize(inSync: readonly string[]): Promise<void> {
    const views = await this.#views();
    const highest = Math.max(0, ...views.map((view) => Math.max(view.term, view.record?.term ?? 0)));
    const { witness, volumeId } = this.#options;
    const replicas = [...this.#voters.keys()].filter((name) => name !== witness);
    const since = this.#deps.now().toISOString();
    const absent = replicas
      .filter((name) => !inSync.includes(name))
      .map((name): AbsentReplica => ({ name, reason: "New", since, resumePoint: null }));
    const record: VoterRecord = {
      volumeId,
      term: highest + 1,
      seq: 0,
      members: inSync,
      absent,
      voters: { replicas, witness },
      clean: true,
      lineage: randomUUID(),
      past: [],
    };
    for (const [name, files] of this.#voters) await this.#run(this.#place(name, files, record));
  }

  /** The best record that can be seen now, without claiming anything. */
  async peek(): Promise<VoterRecord | null> {
    const choice = decideMount(await this.#views(), { forceDegraded: false, witness: null, certain: null });
    return choice.kind === "no-record" ? null : choice.best;
  }

  async claim(): Promise<VoterRecord> {
    const failed = new Set<string>();
    for (let attempt = 1; ; ) {
      const views = (await this.#views()).filter((view) => !failed.has(view.voter));
      const { forceDegraded, witness, certain = null } = this.#options;
      const choice = decideMount(views, { forceDegraded, witness, certain });
      if (choice.kind === "no-record") throw this.#noRecord();
      if (choice.kind === "refuse") throw this.#refused(choice.reason, choice.best, choice.missing, choice.busy);
      const term = Math.max(choice.term, this.#seenTerm + 1);
      const lacking =
        (await this.#claimTerm(term, choice.here)) ?? (await this.#recordMount({ ...choice, term }).catch(claimLost));
      if (lacking === null) return this.current;
      if (lacking instanceof ClaimLostError && ++attempt > CLAIM_ATTEMPTS) throw lacking;
      if (!(lacking instanceof ClaimLostError)) failed.add(lacking);
    }
  }

  async confirm(): Promise<void> {
    const { term } = this.current;
    const newest = await this.peek();
    if (newest !== null && newest.term > term) throw new ClaimLostError(term, newest.term, newest.members[0] ?? "");
  }

  /** Its calls fail, and it is expelled by the first of them: no other machine could have the volume. */
  leave(_unfenced: readonly string[]): Promise<VoterRecord> {
    return Promise.resolve(this.current);
  }

  /**
   * Puts a record that another arbiter keeps on its members. Best effort, and soon over: it is for the day when that
   * arbiter is gone.
   */
  async copy(kept: Omit<VoterRecord, "voters" | "lineage" | "past">, replicas: readonly string[]): Promise<void> {
    const { volumeId, term, seq, members, absent, clean } = kept;
    const voters: Voters = { replicas, witness: null };
    this.#copied ??= await this.peek();
    const { lineage, past } = this.#copied ?? { lineage: volumeId, past: [] };
    const record: VoterRecord = { volumeId, term, seq, members, absent, clean, voters, lineage, past };
    const write = async (member: string): Promise<void> => {
      const files = this.#voters.get(member);
      if (files === undefined) return;
      try {
        await this.#run(files.replace(`${RECORDS}/${recordFileName(record)}`, formatRecord(record)));
        await this.#run(this.#tidy(files, record));
      } catch (error) {
        this.#deps.log.warn("The membership record cannot be copied", { voter: member, error: errorText(error) });
      }
    };
    const late = new Promise<void>((resolve) => setTimeout(resolve, COPY_TIMEOUT_MS).unref());
    await Promise.race([Promise.all(members.map(write)), late]);
  }

  async record(
    members: readonly string[],
    newcomer: string | null,
    absent: readonly AbsentReplica[],
  ): Promise<VoterRecord> {
    const { current } = this;
    const voters = newcomer === null ? current.voters : withReplica(current.voters, newcomer);
    const record: VoterRecord = { ...current, ...this.#next(), members, absent, voters, clean: false };
    return await this.#bring(record, newcomer, this.#options.minInSync);
  }

  /** A replica that is no member is no voter any more, either: the next mounts do without it. */
  async withdraw(replica: string): Promise<VoterRecord> {
    const { current } = this;
    if (current.members.includes(replica)) throw new Error(`Replica "${replica}" is in sync`);
    const replicas = current.voters.replicas.filter((name) => name !== replica);
    const absent = current.absent.filter(({ name }) => name !== replica);
    const voters = { ...current.voters, replicas };
    const done = await this.#bring({ ...current, ...this.#next(), absent, voters }, null, this.#options.minInSync);
    this.#voters.delete(replica);
    return done;
  }

  async release(): Promise<void> {
    if (this.#inDoubt) return; // the next mount finds out, and makes the members alike
    await this.#bring({ ...this.current, ...this.#next(), clean: true }, null, 1);
  }

  #next(): Position {
    return { term: this.#last.term, seq: this.#last.seq + 1 };
  }

  async #bring(record: VoterRecord, newcomer: string | null, minMembers: number): Promise<VoterRecord> {
    this.#inDoubt = true;
    const options = { atMount: false, minMembers };
    const { recording, reason } = await this.#carryOut(beginRecording(record, this.current.voters, newcomer, options));
    if (reason !== null) throw this.#notRecorded(reason, recording);
    this.#current = recording.record;
    this.#inDoubt = false;
    return recording.record;
  }

  /** Answers how it ended; `reason` null: in force. */
  async #carryOut(
    begun: Recording,
  ): Promise<{ readonly recording: Recording; readonly reason: QuorumLossCause | null }> {
    let recording = begun;
    for (;;) {
      const step = nextRecordStep(recording);
      if (step.kind !== "failed") this.#tellCertain(recording.record, step.kind === "in-force");
      this.#last = { term: recording.record.term, seq: recording.record.seq };
      if (step.kind === "in-force") return { recording, reason: null };
      if (step.kind === "failed") return { recording, reason: step.reason };
      const { voter } = step;
      const files = this.#voters.get(voter);
      const taken = files !== undefined && (await this.#tryPlace(voter, files, recording.record));
      if (taken instanceof ClaimLostError) {
        if (recording.atMount) throw taken;
        recording = await this.#claimAnew(recording, taken);
      } else if (taken) {
        recording = recordTaken(recording, voter);
      } else {
        recording = withAbsent(recordRefused(recording, voter), voter, this.#deps.now().toISOString());
      }
    }
  }

  #tellCertain({ members, term }: VoterRecord, inForce: boolean): void {
    this.#certain = inForce ? members : this.#certain.filter((name) => members.includes(name));
    this.#deps.onCertain?.(this.#certain, term);
  }

  /** Of a volume that is served: goes on with a newer term, if nobody else can have a quorum for his. */
  async #claimAnew(
    { record, before, newcomer, atMount, minMembers }: Recording,
    lost: ClaimLostError,
  ): Promise<Recording> {
    const all = votersOf(before);
    const ours = (await this.#views())
      .filter((view) => view.term <= record.term && (view.record?.term ?? 0) <= record.term)
      .map((view) => view.voter);
    const stillOurs =
      all.length <= 2
        ? record.members.every((member) => member === newcomer || ours.includes(member))
        : all.filter((voter) => ours.includes(voter)).length >= majorityOf(all.length);
    if (!stillOurs) throw lost;
    const term = this.#seenTerm + 1;
    if ((await this.#claimTerm(term, ours)) !== null) throw lost;
    this.#deps.log.warn("A mount that did not succeed has left a claim behind", { term: lost.newerTerm, ours: term });
    return beginRecording({ ...record, term, seq: 0 }, before, newcomer, { atMount, minMembers });
  }

  async #tryPlace(voter: string, files: ControlFiles, record: VoterRecord): Promise<boolean | ClaimLostError> {
    try {
      await this.#run(this.#place(voter, files, record));
      this.#problems.delete(voter);
      return true;
    } catch (error) {
      if (error instanceof ClaimLostError) return error;
      if (!(error instanceof ControlFileError)) throw error;
      const { term, seq } = record;
      const problem = errorText(error);
      this.#problems.set(voter, problem);
      this.#deps.log.warn("A voter does not take the membership record", { voter, term, seq, error: problem });
      return false;
    }
  }

  *#place(voter: string, files: ControlFiles, record: VoterRecord): Op<void> {
    const terms = (yield* files.list(TERMS)).map(Number);
    const newest = Math.max(0, ...terms);
    this.#seenTerm = Math.max(this.#seenTerm, newest);
    if (newest > record.term) throw new ClaimLostError(record.term, newest, voter);
    yield* files.replace(`${RECORDS}/${recordFileName(record)}`, formatRecord(record));
    yield* this.#tidy(files, record);
  }

  /** Old records and terms go; it does not matter when. */
  *#tidy(files: ControlFiles, record: VoterRecord): Op<void> {
    try {
      for (const name of yield* files.list(RECORDS)) {
        const at = positionOfFile(name);
        if (at !== null && comparePositions(at, record) < 0) yield* files.remove(`${RECORDS}/${name}`);
      }
      for (const name of yield* files.list(TERMS)) {
        if (Number(name) < record.term) yield* files.remove(`${TERMS}/${name}`);
      }
    } catch (error) {
      if (!(error instanceof ControlFileError)) throw error;
    }
  }

  /** null, or the voter that could not be claimed. */
  async #claimTerm(term: number, here: readonly string[]): Promise<string | null> {
    this.#seenTerm = Math.max(this.#seenTerm, term);
    const claim = { host: hostname(), pid: process.pid, time: this.#deps.now().toISOString() };
    const content = Buffer.from(`${JSON.stringify(claim)}\n`);
    for (const name of here) {
      const files = this.#voters.get(name);
      if (files === undefined) return name;
      try {
        const ours = await this.#run(files.createExclusive(`${TERMS}/${term}`, content));
        if (!ours) throw new ClaimLostError(term - 1, term, name);
      } catch (error) {
        if (!(error instanceof ControlFileError)) throw error;
        this.#problems.set(name, errorText(error));
        this.#deps.log.warn("A voter cannot be claimed", { voter: name, term, error: errorText(error) });
        return name;
      }
    }
    return null;
  }

  /** null, or the member that could not take the record. */
  async #recordMount(choice: MountChoice): Promise<string | null> {
    const { best, term, members, voters, forced, diverged, clean } = choice;
    const lineage = forced
      ? {
          lineage: randomUUID(),
          past: [...best.past, { lineage: best.lineage, term: best.term, seq: best.seq }],
        }
      : {};
    const absent = absentAtMount(choice, this.#deps.now().toISOString());
    const record: VoterRecord = { ...best, ...lineage, term, seq: 0, members, absent, voters, clean: false };
    const options = { atMount: true, minMembers: 1 };
    const begun = beginRecording(record, forced ? voters : best.voters, null, options);
    const { recording, reason } = await this.#carryOut(begun);
    if (reason !== null) {
      const lacking = members.find((member) => !recording.holders.includes(member));
      if (reason === "no-majority" || lacking === undefined) throw this.#notRecorded("no-majority", begun);
      return lacking;
    }
    this.#current = recording.record;
    this.#claim = { clean, forced, diverged };
    return null;
  }

  async #views(): Promise<VoterView[]> {
    const read = async ([name, files]: [string, ControlFiles]): Promise<VoterView[]> => {
      try {
        return [await this.#run(this.#view(name, files))];
      } catch (error) {
        this.#problems.set(name, errorText(error));
        this.#deps.log.warn("A voter cannot be read", { voter: name, error: errorText(error) });
        return [];
      }
    };
    return (await Promise.all([...this.#voters].map(read))).flat();
  }

  *#view(voter: string, files: ControlFiles): Op<VoterView> {
    const terms = (yield* files.list(TERMS)).filter((name) => /^\d{1,15}$/.test(name)).map(Number);
    const positions = (yield* files.list(RECORDS)).flatMap((name) => positionOfFile(name) ?? []);
    const highest = positions.sort(comparePositions).at(-1);
    const record = highest === undefined ? null : yield* this.#read(files, highest);
    const term = Math.max(0, ...terms);
    this.#seenTerm = Math.max(this.#seenTerm, term, record?.term ?? 0);
    return { voter, record, term, quiet: this.#deps.isQuiet(voter) };
  }

  *#read(files: ControlFiles, at: Position): Op<VoterRecord> {
    const path = `${RECORDS}/${recordFileName(at)}`;
    const content = yield* files.read(path, RECORD_MAX_BYTES);
    try {
      if (content === null) throw new Error("it has vanished");
      const record = parseRecord(content, at);
      if (record.volumeId !== this.#options.volumeId) throw new Error("it is another volume's");
      return record;
    } catch (error) {
      throw new Error(`The membership record .chiron/${path} cannot be used: ${errorText(error)}`);
    }
  }

  async #run<T>(op: Op<T>): Promise<T> {
    return await start(op);
  }

  #noRecord(): QuorumLostError {
    return new QuorumLostError(
      "no-member",
      [],
      "No replica carries a membership record of this volume, so none can be trusted: make the other replicas " +
        "reachable, or start a new volume with --source on directories without .chiron",
    );
  }

  #refused(
    reason: QuorumLossCause,
    best: VoterRecord,
    missing: readonly string[],
    busy: readonly string[],
  ): QuorumLostError {
    if (busy.length > 0) {
      return new QuorumLostError(
        reason,
        missing,
        `An earlier mount still has calls under way on ${quoted(busy)}, and without ${it(busy)} the volume cannot be ` +
          "mounted: wait until that process has ended (see `chiron list`), then mount again",
      );
    }
    const force = "--force-degraded (changes that only a missing one holds are then kept beside as conflicts)";
    const all = votersOf(best.voters);
    const why =
      reason === "no-majority"
        ? `Only ${all.length - missing.length} of ${all.length} voters can be reached, and ${majorityOf(all.length)} are needed`
        : reason === "no-member"
          ? `None of the replicas that are in sync on record (${quoted(best.members)}) can be reached`
          : `${quoted(best.members.filter((name) => missing.includes(name)))} is in sync on record and cannot be reached; ` +
            "it may hold changes that the others lack";
    return new QuorumLostError(
      reason,
      missing,
      `${why}${this.#problemsOf(missing)}: make ${quoted(missing)} reachable, or go on without by ${force}`,
    );
  }

  #notRecorded(reason: QuorumLossCause, { record }: Recording): QuorumLostError {
    const all = votersOf(record.voters);
    const others = all.filter((name) => !record.members.includes(name));
    const what =
      reason === "no-majority"
        ? `fewer than ${majorityOf(all.length)} of ${all.length} voters took it: make ${quoted(others)} reachable`
        : `at least ${this.#options.minInSync} members have to take it, and fewer did: see what is wrong with the replicas' ` +
          "disks (space, read-only)";
    return new QuorumLostError(reason, others, `The membership could not be recorded${this.#problemsOf(all)}, ${what}`);
  }

  #problemsOf(voters: readonly string[]): string {
    const problems = voters.flatMap((voter) => {
      const problem = this.#problems.get(voter);
      return problem === undefined ? [] : [`"${voter}": ${problem}`];
    });
    return problems.length === 0 ? "" : ` (${problems.join("; ")})`;
  }
}

/** Whoever did not take the record is described in it, once it is no member any more. */
function withAbsent(recording: Recording, voter: string, since: string): Recording {
  const { record } = recording;
  const gone = record.absent.some(({ name }) => name === voter);
  if (gone || record.members.includes(voter) || !record.voters.replicas.includes(voter)) return recording;
  const absent: AbsentReplica = { name: voter, reason: "RecordFailed", since, resumePoint: null };
  return { ...recording, record: { ...record, absent: [...record.absent, absent] } };
}

function claimLost(error: unknown): ClaimLostError {
  if (error instanceof ClaimLostError) return error;
  throw error;
}

function absentAtMount({ best, members, diverged }: MountChoice, since: string): readonly AbsentReplica[] {
  const known = best.absent.filter(({ name }) => !members.includes(name));
  const missing = best.members
    .filter((name) => !members.includes(name))
    .map((name): AbsentReplica => ({ name, reason: "NotAtMount", since, resumePoint: null }));
  return [...known, ...missing].map((absent) =>
    diverged.includes(absent.name) ? { ...absent, reason: "Diverged", resumePoint: null } : absent,
  );
}

function withReplica(voters: Voters, replica: string): Voters {
  return voters.replicas.includes(replica) ? voters : { ...voters, replicas: [...voters.replicas, replica] };
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(", ");
}

function it(names: readonly string[]): string {
  return names.length === 1 ? "it" : "them";
}
