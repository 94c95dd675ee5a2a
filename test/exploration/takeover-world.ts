/**
 * Two nodes that take a volume from each other, over the code that decides in production: `takeover-rules.ts`,
 * `decideChange`, `afterExpulsion`. Two replicas behind servers where making a session ends everybody else's; the
 * ReplicatedVolume's status, changed by compare-and-swap.
 *
 * There is no clock: a node may make itself the holder at any moment, whatever lease the other one has. A process may be
 * paused for ever between any two of its steps, or crash; then another one goes on in its mount (and finds out what
 * happened meanwhile), or the node mounts anew. Whether a replica can be reached is chosen anew at every single call,
 * which covers all that networks do. A server may forget its session.
 */
import { afterExpulsion } from "../../src/replication/membership-rules.ts";
import {
  type Claimant,
  decideClaim,
  type Held,
  isOurs,
  type StatusRecord,
  staying,
  withAbsent,
} from "../../src/replication/takeover-rules.ts";
import { decideChange } from "../../src/replication/verdict.ts";
import { ESTALE, ETIMEDOUT } from "../../src/util/errno.ts";
import type { Explorable } from "./explore.ts";

/** The rules that can be left out, to see what each is for. */
export type TakeoverRule =
  /** After making its sessions, a process asks whether the record is still its own, before its first change. */
  | "ask-after"
  /** A session that a server forgot is made anew only between two such questions. */
  | "ask-to-renew"
  /** Who has no session cannot write. */
  | "fence"
  /** A member that cannot be shut out leaves. */
  | "unreachable-leaves"
  /** An expulsion is on record before the change is acknowledged. */
  | "expel-first"
  /** Members are made alike before they are served. */
  | "alike";

export interface TakeoverOptions {
  readonly writes: number;
  readonly terms: number;
  /** Times that a node makes itself the holder. */
  readonly moves: number;
  readonly without: TakeoverRule | null;
}

const nodes = ["A", "B"] as const;
const replicas = ["a", "b"] as const;
type Replica = (typeof replicas)[number];
type Results = Readonly<Partial<Record<Replica, number>>>;

/** A process that serves, or is about to. */
interface Serving {
  readonly term: number;
  readonly members: readonly string[];
  /** What it found, or wrote last with success. */
  readonly version: number;
}
interface Writing extends Serving {
  readonly next: number;
  readonly todo: readonly string[];
  readonly results: Results;
}

type Process =
  | { readonly at: "stopped" }
  | { readonly at: "claiming"; readonly resumed: boolean }
  | {
      readonly at: "sessions";
      readonly term: number;
      readonly members: readonly string[];
      readonly todo: readonly string[];
      readonly unfenced: readonly string[];
    }
  | {
      readonly at: "asking";
      readonly term: number;
      readonly members: readonly string[];
      readonly shutOut: readonly string[];
    }
  | {
      readonly at: "unlike";
      readonly term: number;
      readonly members: readonly string[];
      readonly todo: readonly string[];
      readonly version: number | null;
    }
  | ({ readonly at: "serving" } & Serving)
  | ({ readonly at: "writing" } & Writing)
  /** The server of `replica` has forgotten the session. */
  | {
      readonly at: "renewing";
      readonly step: "ask" | "make" | "ask again";
      readonly replica: Replica;
      readonly writing: Writing;
    };

interface Node {
  readonly process: Process;
  /** The mount that its processes belong to; "" if nothing is mounted. */
  readonly mount: string;
}

interface World {
  readonly data: Readonly<Record<Replica, number>>;
  /** Whose process, by mount and term, has the session of each server. */
  readonly sessions: Readonly<Record<Replica, string>>;
  readonly held: Held;
  readonly moves: number;
  readonly acknowledged: number;
  readonly version: number;
  readonly nodes: Readonly<Record<string, Node>>;
}
type Step = readonly [label: string, next: World];

const subsets: readonly (readonly Replica[])[] = [replicas, ["a"], ["b"], []];
const stopped: Process = { at: "stopped" };

export class TakeoverWorld implements Explorable<World> {
  readonly #options: TakeoverOptions;

  constructor(options: TakeoverOptions) {
    this.#options = options;
  }

  start(): World {
    const record: StatusRecord = {
      volumeId: "v",
      mount: "",
      term: 1,
      seq: 0,
      members: replicas,
      absent: [],
      clean: true,
      fenced: true,
    };
    return {
      data: { a: 0, b: 0 },
      sessions: { a: "", b: "" },
      held: { holder: null, record },
      moves: 0,
      acknowledged: 0,
      version: 0,
      nodes: { A: { process: stopped, mount: "" }, B: { process: stopped, mount: "" } },
    };
  }

  key(world: World): string {
    const { holder, record } = world.held;
    const record2 = record === null ? "" : `${record.term}.${record.seq}${record.members.join("")}${record.mount}`;
    const { data, sessions, moves, acknowledged, version } = world;
    return JSON.stringify([data, sessions, holder, record2, moves, acknowledged, version, world.nodes]);
  }

  inside({ held, moves, version }: World): boolean {
    const { terms, moves: mostMoves, writes } = this.#options;
    return (held.record?.term ?? 0) <= terms && moves <= mostMoves && version <= writes;
  }

  lie({ held, nodes: all, data, acknowledged }: World): string | null {
    for (const name of nodes) {
      const { process, mount } = all[name] as Node;
      if (process.at !== "serving" || !isOurs(held, { node: name, mount }, process.term)) continue;
      const { members, version } = process;
      if (members.some((member) => data[member as Replica] !== version))
        return `somebody else wrote to the members while ${name} serves v${version}: ${JSON.stringify(data)}`;
      if (version < acknowledged) return `${name} serves v${version}, and v${acknowledged} was acknowledged`;
    }
    return null;
  }

  *steps(world: World): Iterable<Step> {
    for (const name of nodes) {
      yield* this.#ofNode(world, name, world.nodes[name] as Node);
    }
    for (const replica of replicas) {
      if (world.sessions[replica] === "") continue;
      yield [`the server of ${replica} restarts`, { ...world, sessions: { ...world.sessions, [replica]: "" } }];
    }
  }

  *#ofNode(world: World, name: string, node: Node): Iterable<Step> {
    const { process, mount } = node;
    const put = (next: Process, change: Partial<World> = {}, nextMount = mount): World => ({
      ...world,
      ...change,
      nodes: { ...world.nodes, [name]: { process: next, mount: nextMount } },
    });
    if (process.at === "stopped") {
      const moves = world.moves + 1;
      const held = { ...world.held, holder: name };
      const fresh = `${name}${moves}`;
      yield [`${name} makes itself the holder`, put({ at: "claiming", resumed: false }, { held, moves }, fresh)];
      if (mount !== "") yield [`${name} goes on in its mount`, put({ at: "claiming", resumed: true })];
      return;
    }
    yield [`${name} crashes`, put(stopped)];
    yield* this.#ofProcess(world, name, { node: name, mount }, process, put);
  }

  *#ofProcess(
    world: World,
    name: string,
    claimant: Claimant,
    process: Exclude<Process, { readonly at: "stopped" }>,
    put: (next: Process, change?: Partial<World>, mount?: string) => World,
  ): Iterable<Step> {
    const { without } = this.#options;
    const { held, data, sessions } = world;
    const self = (term: number) => `${claimant.mount}.${term}`;
    const ends = (why: string): Step => [`${name} ${why}, stops`, put(stopped, {}, "")];
    switch (process.at) {
      case "claiming": {
        for (const here of without === "unreachable-leaves" ? [replicas] : subsets) {
          const { resumed } = process;
          const decision = decideClaim(held, claimant, { resumed, here, fences: () => true, now: "" });
          if (decision.kind !== "take") {
            yield ends(decision.kind === "lost" ? "finds another holder" : "reaches no member");
            continue;
          }
          const { record } = decision;
          const { term, members } = record;
          const next: Process = { at: "sessions", term, members, todo: members, unfenced: [] };
          yield [`${name} claims term ${term} with {${members.join("")}}`, put(next, { held: { ...held, record } })];
        }
        return;
      }
      case "sessions": {
        const { term, members, todo, unfenced } = process;
        const [replica] = todo;
        if (replica !== undefined) {
          const rest = { ...process, todo: todo.slice(1) };
          yield [`${name} cannot reach ${replica}`, put({ ...rest, unfenced: [...unfenced, replica] })];
          yield [
            `${name} makes a session with ${replica}`,
            put(rest, { sessions: { ...sessions, [replica]: self(term) } }),
          ];
          return;
        }
        if (unfenced.length === 0 || without === "unreachable-leaves") {
          const shutOut = members.filter((member) => !unfenced.includes(member));
          yield [`${name} has its sessions`, put({ at: "asking", term, members, shutOut })];
          return;
        }
        const left = staying(members, unfenced);
        const shrunk = left === null ? null : this.#record(held, claimant, term, left);
        if (left === null || shrunk === null) yield ends(`cannot leave ${unfenced.join("")}`);
        else
          yield [
            `${name} goes on with {${left.join("")}}`,
            put({ at: "asking", term, members: left, shutOut: left }, { held: shrunk }),
          ];
        return;
      }
      case "asking": {
        const { term, members } = process;
        if (!isOurs(held, claimant, term) && without !== "ask-after") yield ends("asks the arbiter");
        else {
          const next: Process = { at: "unlike", term, members, todo: process.shutOut, version: null };
          yield [`${name} asks the arbiter: go on`, put(next)];
        }
        return;
      }
      case "unlike": {
        const { term, members, todo } = process;
        const version = process.version ?? data[members[0] as Replica];
        const [replica] = todo;
        if (replica === undefined || without === "alike") {
          yield [`${name} serves v${version}`, put({ at: "serving", term, members, version })];
        } else if (!this.#mayWrite(world, replica, self(term))) yield ends(`loses ${replica}`);
        else {
          const next: Process = { ...process, version, todo: todo.slice(1) };
          yield [`${name} makes ${replica} alike (v${version})`, put(next, { data: { ...data, [replica]: version } })];
        }
        return;
      }
      case "serving": {
        const { term, members, version } = process;
        const next = world.version + 1;
        const writing: Process = { at: "writing", term, members, version, next, todo: members, results: {} };
        yield [`${name} begins to write v${next}`, put(writing, { version: next })];
        return;
      }
      case "writing":
        yield* this.#write(world, name, claimant, process, put);
        return;
      case "renewing":
        yield* this.#renew(world, name, claimant, process, put);
        return;
    }
  }

  *#write(
    world: World,
    name: string,
    claimant: Claimant,
    process: Extract<Process, { readonly at: "writing" }>,
    put: (next: Process, change?: Partial<World>, mount?: string) => World,
  ): Iterable<Step> {
    const { term, members, version, next, todo, results } = process;
    const { held, data, sessions } = world;
    const self = `${claimant.mount}.${term}`;
    const replica = todo[0] as Replica | undefined;
    if (replica !== undefined) {
      const answered = (errno: number): Process => ({
        ...process,
        todo: todo.slice(1),
        results: { ...results, [replica]: errno },
      });
      yield [`${name}: ${replica} fails`, put(answered(-ETIMEDOUT))];
      if (this.#mayWrite(world, replica, self))
        yield [`${name}: ${replica} takes v${next}`, put(answered(1), { data: { ...data, [replica]: next } })];
      else if (sessions[replica] === "") {
        const { at: _, ...writing } = process;
        yield [`${name}: ${replica} has forgotten the session`, put({ at: "renewing", step: "ask", replica, writing })];
      } else yield [`${name}: ${replica} says bad session`, put(answered(-ESTALE))];
      return;
    }
    const inSync = replicas.flatMap((one, i) => (members.includes(one) ? [i] : []));
    const given = inSync.map((i) => results[replicas[i] as Replica] ?? -ETIMEDOUT);
    const verdict = decideChange(inSync, given, { inSync, minInSync: 1, quorumLost: false }, "FailWrites", true);
    if (verdict.result < 0) {
      yield [
        `${name} fails, and looks at its replicas`,
        put({ at: "unlike", term, members, todo: members, version: null }),
      ];
      return;
    }
    const leaving = verdict.expel.map((one) => one.replica);
    const left = afterExpulsion(inSync, leaving).map((i) => replicas[i] as Replica);
    const serving: Process = { at: "serving", term, members: left, version: next };
    if (leaving.length === 0 || this.#options.without === "expel-first") {
      yield [`${name} acknowledges v${next}`, put(serving, { acknowledged: next })];
      return;
    }
    const shrunk = this.#record(held, claimant, term, left);
    if (shrunk === null)
      yield [`${name} cannot record {${left.join("")}} and stops at v${version}`, put(stopped, {}, "")];
    else
      yield [
        `${name} goes on with {${left.join("")}}, acknowledges v${next}`,
        put(serving, { held: shrunk, acknowledged: next }),
      ];
  }

  *#renew(
    world: World,
    name: string,
    claimant: Claimant,
    process: Extract<Process, { readonly at: "renewing" }>,
    put: (next: Process, change?: Partial<World>, mount?: string) => World,
  ): Iterable<Step> {
    const { step, replica, writing } = process;
    const { term } = writing;
    const asks = this.#options.without !== "ask-to-renew";
    const back: Process = { at: "writing", ...writing };
    if (step === "make") {
      {
        const sessions = { ...world.sessions, [replica]: `${claimant.mount}.${term}` };
        yield [`${name} makes its session with ${replica} anew`, put({ ...process, step: "ask again" }, { sessions })];
      }
    } else if (asks && !isOurs(world.held, claimant, term))
      yield [`${name} asks: not its own any more, stops`, put(stopped, {}, "")];
    else
      yield [`${name} ${asks ? "asks, and" : ""} goes on`, put(step === "ask" ? { ...process, step: "make" } : back)];
  }

  #mayWrite({ sessions }: World, replica: string, self: string): boolean {
    return sessions[replica as Replica] === self || this.#options.without === "fence";
  }

  /** Compare-and-swap by the process that has this term; null if the record is another one's. */
  #record(held: Held, claimant: Claimant, term: number, members: readonly string[]): Held | null {
    if (held.record === null || !isOurs(held, claimant, term)) return null;
    const absent = withAbsent(held.record, members, "");
    return { ...held, record: { ...held.record, seq: held.record.seq + 1, members, absent } };
  }
}
