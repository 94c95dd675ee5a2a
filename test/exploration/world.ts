/**
 * A small standalone volume as a state machine over the code that decides in production: `decideMount`, the recording
 * of `arbiter-rules.ts`, `decideChange`, and the rules of the membership. `explore.ts` walks through it.
 *
 * One register stands for the tree. A voter (a replica, or the witness "w", which holds no data) has its data, the
 * record that it carries, the last term claimed on it, and calls that timed out and may take effect at any time later:
 * one that writes data, one that places a record. Whether a voter can be reached is chosen anew at every single call,
 * which covers all comings and goings. The process may crash between any two steps; only the numbers of writes,
 * terms and records in a term are bounded.
 */
import { comparePositions, type VoterRecord, type Voters } from "../../src/replication/arbiter-record.ts";
import {
  beginRecording,
  decideMount,
  nextRecordStep,
  type Recording,
  recordRefused,
  recordTaken,
  type VoterView,
} from "../../src/replication/arbiter-rules.ts";
import { afterExpulsion, afterRecord, decideRecording } from "../../src/replication/membership-rules.ts";
import { decideChange } from "../../src/replication/verdict.ts";
import { EIO, ETIMEDOUT } from "../../src/util/errno.ts";

/** The rules that can be left out, to see what each is for. */
export type Rule =
  /** A mount takes a new term. */
  | "epoch"
  /** A mount claims its term on everyone before it records its members. */
  | "claim"
  /** A join that failed is taken back on record before anything else is done. */
  | "newcomer"
  /** Nobody serves while an earlier call may still take effect. */
  | "late"
  /** An expulsion is on record before the change is acknowledged. */
  | "expel-first"
  /** A record is never replaced by an older one. */
  | "immutable"
  /** A successor goes on with those alone who are members by every record that may be in force. */
  | "certain"
  /** After an unclean stop the members are made alike before they are served. */
  | "alike";

export interface WorldOptions {
  readonly replicas: number;
  readonly witness: boolean;
  readonly minInSync: number;
  readonly writes: number;
  readonly terms: number;
  readonly seqs: number;
  readonly without: Rule | null;
}

interface Voter {
  readonly data: number;
  readonly record: VoterRecord;
  readonly term: number;
  /** Version that a write which timed out may still put there; -1: none. */
  readonly late: number;
  readonly lateRecord: VoterRecord | null;
}

/** What the process knows of the membership while it serves. */
interface Serving {
  readonly inSync: readonly string[];
  readonly recorded: VoterRecord;
  readonly inDoubt: boolean;
  /** The last number that was tried. */
  readonly seq: number;
}

type Process =
  | { readonly at: "stopped" }
  | {
      readonly at: "recording";
      readonly recording: Recording;
      readonly serving: Serving | null;
      readonly then: "mounted" | "mounted clean" | "alike" | "acknowledge" | "error" | "join" | "retry" | "release";
    }
  /** Mounted after an unclean stop, or all failed at a change: members have to be made alike. */
  | { readonly at: "unlike"; readonly serving: Serving }
  | { readonly at: "serving"; readonly serving: Serving }
  /** Reads only. */
  | { readonly at: "lost"; readonly serving: Serving };

export interface State {
  readonly voters: readonly Voter[];
  readonly acknowledged: number;
  readonly version: number;
  readonly process: Process;
  /** What the last process on this machine was certain of; null after a crash of the machine, and an unmount. */
  readonly certain: readonly string[] | null;
}
export type Step = readonly [label: string, next: State];

const stopped: Process = { at: "stopped" };

export class World {
  readonly #options: WorldOptions;
  readonly #names: readonly string[];
  readonly #replicas: readonly string[];
  readonly #witness: string | null;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#replicas = ["a", "b", "c", "d"].slice(0, options.replicas);
    this.#witness = options.witness ? "w" : null;
    this.#names = options.witness ? [...this.#replicas, "w"] : this.#replicas;
  }

  start(): State {
    const voters: Voters = { replicas: this.#replicas, witness: this.#witness };
    const record: VoterRecord = {
      volumeId: "v",
      term: 1,
      seq: 0,
      members: this.#replicas,
      absent: [],
      voters,
      clean: true,
      lineage: "l",
      past: [],
    };
    const voter: Voter = { data: 0, record, term: 1, late: -1, lateRecord: null };
    return { voters: this.#names.map(() => voter), acknowledged: 0, version: 0, process: stopped, certain: null };
  }

  inside({ process, voters }: State): boolean {
    const { terms, seqs } = this.#options;
    if (voters.some((voter) => voter.term > terms)) return false;
    if (process.at === "stopped") return true;
    const position =
      process.at === "recording"
        ? process.recording.record
        : { term: process.serving.recorded.term, seq: process.serving.seq };
    return position.term <= terms && position.seq <= seqs;
  }

  /** What must never be, or null. */
  lie({ voters, acknowledged, process }: State): string | null {
    if (process.at === "unlike" || process.at === "serving" || process.at === "lost") {
      const members = process.serving.inSync.map((name) => this.#voter(voters, name).data);
      if (members.some((data) => data < acknowledged)) return "a member lacks what was acknowledged";
      if (process.at !== "unlike" && members.some((data) => data !== members[0])) return "members that are read differ";
    }
    return null;
  }

  steps(state: State): Step[] {
    const into: Step[] = [];
    this.#lateEffects(state, into);
    const { process } = state;
    if (process.at !== "stopped") into.push(["the process crashes", { ...state, process: stopped }]);
    if (state.certain !== null) into.push(["the machine crashes", { ...state, process: stopped, certain: null }]);
    switch (process.at) {
      case "stopped":
        this.#mount(state, into);
        break;
      case "recording":
        this.#record(state, process, into);
        break;
      case "unlike":
        this.#makeAlike(state, process.serving, into);
        break;
      case "serving":
        this.#serve(state, process.serving, into);
        break;
      case "lost":
        this.#resync(state, process.serving, into);
        this.#decideRecord(state, process.serving, null, "retry", "record again", into);
        break;
    }
    return into;
  }

  #lateEffects(state: State, into: Step[]): void {
    for (const name of this.#names) {
      const { late, lateRecord, record, term } = this.#voter(state.voters, name);
      if (late >= 0) {
        into.push([`the late write of v${late} lands on ${name}`, this.#put(state, name, { data: late, late: -1 })]);
        into.push([`the late write of v${late} on ${name} ends without effect`, this.#put(state, name, { late: -1 })]);
      }
      if (lateRecord !== null) {
        const landed = this.#holds(record, lateRecord);
        const change = { record: landed, term: Math.max(term, lateRecord.term), lateRecord: null };
        into.push([`the late ${show(lateRecord)} lands on ${name}`, this.#put(state, name, change)]);
      }
    }
  }

  #holds(before: VoterRecord, next: VoterRecord): VoterRecord {
    if (this.#options.without === "immutable") return next;
    return comparePositions(next, before) > 0 ? next : before;
  }

  #mount(state: State, into: Step[]): void {
    const all = 1 << this.#names.length;
    for (let seen = 1; seen < all; seen++) {
      const here = this.#names.filter((_, i) => seen & (1 << i));
      const views = here.map((name): VoterView => {
        const { record, term, late } = this.#voter(state.voters, name);
        return { voter: name, record, term, quiet: late < 0 || this.#options.without === "late" };
      });
      const choice = decideMount(views, {
        forceDegraded: false,
        witness: this.#witness,
        certain: this.#options.without === "certain" && state.certain !== null ? this.#replicas : state.certain,
      });
      if (choice.kind !== "mount") continue;
      const { best, members, term, clean } = choice;
      const then = clean ? "mounted clean" : "mounted";
      const options = { atMount: true, minMembers: 1 };
      const label = `mount, seeing ${here.join("")}`;
      if (this.#options.without === "epoch") {
        const record = { ...best, seq: best.seq + 1, members, clean: false };
        into.push([label, this.#recording(state, beginRecording(record, best.voters, null, options), null, then)]);
        continue;
      }
      const recording = beginRecording({ ...best, term, seq: 0, members, clean: false }, best.voters, null, options);
      if (this.#options.without === "claim") into.push([label, this.#recording(state, recording, null, then)]);
      else this.#claim(state, choice.here, recording, then, label, into);
    }
  }

  /** The term goes to one after the other; a crash, or one who does not take it, ends the mount in between. */
  #claim(
    state: State,
    here: readonly string[],
    recording: Recording,
    then: "mounted" | "mounted clean",
    label: string,
    into: Step[],
  ): void {
    const { term } = recording.record;
    let claimed = state;
    for (const name of here) {
      claimed = this.#put(claimed, name, { term: Math.max(term, this.#voter(claimed.voters, name).term) });
      if (name !== here.at(-1)) into.push([`${label}, given up when ${name} has claim ${term}`, claimed]);
    }
    into.push([`${label}, claim ${term}`, this.#recording(claimed, recording, null, then)]);
  }

  #record(before: State, process: Process & { at: "recording" }, into: Step[]): void {
    const { recording, serving, then } = process;
    const { record } = recording;
    const step = nextRecordStep(recording);
    const state = step.kind === "failed" ? before : this.#know(before, record.members, step.kind === "in-force");
    if (step.kind === "write") {
      const { voter } = step;
      const { record: held, term, lateRecord } = this.#voter(state.voters, voter);
      const taken = this.#put(state, voter, { record: this.#holds(held, record), term: Math.max(term, record.term) });
      const went = recordTaken(recording, voter);
      into.push([`${show(record)} on ${voter}`, { ...taken, process: { ...process, recording: went } }]);
      const refused: Process =
        this.#options.without === "newcomer" && then === "join" && serving !== null
          ? { at: "serving", serving: { ...serving, seq: record.seq } }
          : { ...process, recording: recordRefused(recording, voter) };
      into.push([`${voter} does not take ${show(record)}`, { ...state, process: refused }]);
      if (lateRecord === null) {
        const late = this.#put(state, voter, { lateRecord: record });
        into.push([`${show(record)} times out on ${voter}`, { ...late, process: refused }]);
      }
      return;
    }
    if (then === "mounted" || then === "mounted clean") {
      const now: Serving = { inSync: record.members, recorded: record, inDoubt: false, seq: record.seq };
      const alike = this.#options.without === "alike" || then === "mounted clean";
      if (step.kind === "failed") into.push(["mount given up", { ...state, process: stopped }]);
      else into.push(["mounted", { ...state, process: { at: alike ? "serving" : "unlike", serving: now } }]);
      return;
    }
    if (serving === null) throw new Error("Nobody records without serving");
    if (step.kind === "failed") {
      const lost: Serving = { ...serving, inDoubt: true, seq: record.seq };
      into.push(["no record", { ...state, process: { at: then === "alike" ? "unlike" : "lost", serving: lost } }]);
      return;
    }
    if (then === "release") {
      into.push(["released", { ...state, process: stopped, certain: null }]);
      return;
    }
    const joiner = then === "join" ? (record.members.find((name) => !serving.inSync.includes(name)) ?? null) : null;
    const now: Serving = {
      inSync: inOrder(this.#replicas, afterRecord(serving.inSync, joiner, record)),
      recorded: record,
      inDoubt: false,
      seq: record.seq,
    };
    const acknowledged = then === "acknowledge" ? state.version : state.acknowledged;
    const at = now.inSync.length < this.#options.minInSync ? "lost" : then === "alike" ? "unlike" : "serving";
    into.push([then, { ...state, acknowledged, process: { at, serving: now } }]);
  }

  /** Of more than two voters a majority is needed anyway. */
  #know(state: State, members: readonly string[], inForce: boolean): State {
    if (this.#names.length > 2) return state;
    const certain = inForce ? members : (state.certain?.filter((name) => members.includes(name)) ?? null);
    return { ...state, certain };
  }

  #makeAlike(state: State, serving: Serving, into: Step[]): void {
    const { inSync } = serving;
    const quiet = inSync.every((name) => this.#voter(state.voters, name).late < 0);
    if (quiet || this.#options.without === "late") {
      for (const lead of inSync) {
        const { data } = this.#voter(state.voters, lead);
        const alike = inSync.reduce((next, name) => this.#put(next, name, { data }), state);
        const at = inSync.length < this.#options.minInSync || serving.inDoubt ? "lost" : "serving";
        into.push([`make alike, from ${lead}`, { ...alike, process: { at, serving } }]);
      }
    }
    for (const name of inSync) {
      if (inSync.length > 1) this.#expel(state, serving, [name], "alike", into);
    }
  }

  #serve(state: State, serving: Serving, into: Step[]): void {
    if (state.version < this.#options.writes) {
      this.#write({ ...state, version: state.version + 1 }, serving, into);
    }
    this.#resync(state, serving, into);
    const record: VoterRecord = { ...serving.recorded, seq: serving.seq + 1, clean: true };
    const options = { atMount: false, minMembers: this.#options.minInSync };
    into.push([
      "unmount",
      this.#recording(state, beginRecording(record, record.voters, null, options), serving, "release"),
    ]);
  }

  #resync(state: State, serving: Serving, into: Step[]): void {
    const lead = serving.inSync[0];
    if (lead === undefined) return;
    for (const name of this.#replicas) {
      if (serving.inSync.includes(name)) continue;
      if (this.#voter(state.voters, name).late >= 0 && this.#options.without !== "late") continue;
      const copied = this.#put(state, name, { data: this.#voter(state.voters, lead).data });
      this.#decideRecord(copied, serving, name, "join", `resync ${name} from ${lead}`, into);
    }
  }

  /** Every combination of outcomes; a crash after some have taken it is the crash after the others have failed. */
  #write(state: State, serving: Serving, into: Step[]): void {
    const { version } = state;
    let drawn: { readonly state: State; readonly results: readonly number[]; readonly label: string }[] = [
      { state, results: [], label: `write v${version}:` },
    ];
    for (const name of serving.inSync) {
      drawn = drawn.flatMap(({ state: before, results, label }) => {
        const done = this.#put(before, name, { data: version });
        const outcomes = [
          { state: done, results: [...results, 1], label: `${label} ${name} takes it` },
          { state: before, results: [...results, -EIO], label: `${label} ${name} fails` },
        ];
        if (this.#voter(before.voters, name).late >= 0) return outcomes;
        const late = this.#put(before, name, { late: version });
        return [...outcomes, { state: late, results: [...results, -ETIMEDOUT], label: `${label} ${name} times out` }];
      });
    }
    for (const { state: after, results, label } of drawn) {
      const judged: Step[] = [];
      this.#judge(after, serving, results, judged);
      for (const [what, next] of judged) into.push([`${label}, ${what}`, next]);
      into.push([`${label}, crash`, { ...after, process: stopped }]);
    }
  }

  #judge(state: State, serving: Serving, results: readonly number[], into: Step[]): void {
    const { minInSync } = this.#options;
    const sent = serving.inSync.map((name) => this.#replicas.indexOf(name));
    const verdict = decideChange(sent, results, { inSync: sent, minInSync, quorumLost: false }, "FailWrites", true);
    if (verdict.kind === "suspect") {
      into.push(["error to the application", { ...state, process: { at: "unlike", serving } }]);
      return;
    }
    const leaving = verdict.expel.map(({ replica }) => this.#replicas[replica] as string);
    if (leaving.length === 0) {
      const acknowledged = state.version;
      into.push([`acknowledge v${acknowledged}`, { ...state, acknowledged, process: { at: "serving", serving } }]);
      return;
    }
    this.#expel(state, serving, leaving, verdict.kind === "acknowledge" ? "acknowledge" : "error", into);
  }

  #expel(
    state: State,
    serving: Serving,
    leaving: readonly string[],
    then: "acknowledge" | "error" | "alike",
    into: Step[],
  ): void {
    const next: Serving = { ...serving, inSync: afterExpulsion(serving.inSync, leaving) };
    if (this.#options.without === "expel-first" && then === "acknowledge") {
      this.#decideRecord({ ...state, acknowledged: state.version }, next, null, then, "acknowledge at once", into);
    } else {
      this.#decideRecord(state, next, null, then, `expel ${leaving.join("")}`, into);
    }
  }

  #decideRecord(
    state: State,
    serving: Serving,
    joining: string | null,
    then: "acknowledge" | "error" | "alike" | "join" | "retry",
    label: string,
    into: Step[],
  ): void {
    const { inSync, recorded, inDoubt } = serving;
    const { minInSync } = this.#options;
    const decision = decideRecording({ inSync, joining, recorded, inDoubt, minInSync });
    if (decision.kind !== "record") {
      if (then === "retry") return;
      into.push([label, { ...state, process: { at: then === "alike" ? "unlike" : "lost", serving } }]);
      return;
    }
    const members = inOrder(this.#replicas, decision.members);
    const record = { ...recorded, seq: serving.seq + 1, members, clean: false };
    const options = { atMount: false, minMembers: minInSync };
    const recording = beginRecording(record, recorded.voters, decision.newcomer, options);
    into.push([label, this.#recording(state, recording, serving, then)]);
  }

  #recording(
    state: State,
    recording: Recording,
    serving: Serving | null,
    then: (Process & { at: "recording" })["then"],
  ): State {
    return { ...state, process: { at: "recording", recording, serving, then } };
  }

  #voter(voters: readonly Voter[], name: string): Voter {
    return voters[this.#names.indexOf(name)] as Voter;
  }

  #put(state: State, name: string, change: Partial<Voter>): State {
    const at = this.#names.indexOf(name);
    const voters = state.voters.map((voter, i) => (i === at ? this.#settled({ ...voter, ...change }) : voter));
    return { ...state, voters };
  }

  /** A late record that cannot change anything any more is as good as none. */
  #settled(voter: Voter): Voter {
    const { lateRecord, record } = voter;
    const idle = lateRecord !== null && this.#holds(record, lateRecord) === record;
    return idle ? { ...voter, lateRecord: null } : voter;
  }

  /** Equal states have equal keys. */
  key({ voters, acknowledged, version, process, certain }: State): string {
    let key = `${acknowledged}${version}${certain === null ? "" : `=${certain.join("")}`}`;
    for (const { data, record, term, late, lateRecord } of voters) {
      key += `|${data}${late}${recordKey(record)}t${term}${lateRecord === null ? "" : recordKey(lateRecord)}`;
    }
    key += `|${process.at}`;
    if (process.at === "stopped") return key;
    if (process.at === "recording") key += `${process.then}${recordingKey(process.recording)}`;
    return process.serving === null ? key : key + servingKey(process.serving);
  }
}

function servingKey({ inSync, recorded, inDoubt, seq }: Serving): string {
  return `;${inSync.join("")}${recordKey(recorded)}${inDoubt ? "?" : ""}${seq}`;
}

function recordingKey({ record, newcomer, todo, holders }: Recording): string {
  return `;${recordKey(record)}${newcomer ?? ""}>${todo.join("")}<${holders.join("")}`;
}

function recordKey({ term, seq, members, clean }: VoterRecord): string {
  return `${term}.${seq}${members.join("")}${clean ? "+" : ""}`;
}

function show({ term, seq, members }: VoterRecord): string {
  return `record ${term}.${seq} {${members.join("")}}`;
}

function inOrder(all: readonly string[], some: readonly string[]): readonly string[] {
  return all.filter((name) => some.includes(name));
}
