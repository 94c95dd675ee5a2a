/**
 * From a configuration to a volume that may be served: connects the replicas, finds out whose they are, makes a new volume
 * of them or claims the one that they are, and leaves the members connected. Nothing is written to a backend
 * before all of them have been looked at.
 */

import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { mayHoldLinks } from "../replica/choose-run.ts";
import { LocalReplica } from "../replica/local.ts";
import type { Capabilities, Replica } from "../replica/replica.ts";
import { StatusObserver } from "../replication/arbiter-observer.ts";
import type { VoterRecord } from "../replication/arbiter-record.ts";
import { type RecordStore, StatusArbiter } from "../replication/arbiter-status.ts";
import { VoterArbiter } from "../replication/arbiter-voters.ts";
import type { VolumeArbiter } from "../replication/contracts.ts";
import { type ControlFiles, ReplicaControlFiles } from "../replication/control-files.ts";
import { AdoptError, ClaimLostError, IdentityError, QuorumLostError, VolumeBusyError } from "../replication/errors.ts";
import { HostBusyError, HostClaim } from "../replication/host-claim.ts";
import { decideIdentity, readBackend, readMarker, unmounted, writeMarker } from "../replication/identity.ts";
import type { MembershipRecord } from "../replication/model.ts";
import { CONTROL_DIRECTORY } from "../replication/orphans.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { FailureError } from "./failure.ts";
import type { FailureCode, LeaseTimes, ReplicaConfig, VolumeConfig } from "./protocol.ts";
import { isRemoteUrl, makeReplica, type ReplicaKindDeps } from "./replica-kinds.ts";
import type { ReplicaLocks } from "./replica-locks.ts";
import { monotonicMs } from "./state-page.ts";

export const WITNESS = "witness";
const RESUME_RETRY_MS = 1_000;

export interface OpenRequest {
  readonly config: VolumeConfig;
  /** Goes on for an earlier process of the same mount. */
  readonly resumed: boolean;
  /** Replicas on which the earlier process still has a call. */
  readonly avoid: readonly string[];
  /** The term of the earlier process, 0 for none: whoever has claimed a newer one has taken the volume over. */
  readonly term: number;
  /** Indices of the replicas that the earlier process knew for members by every record; null if there was none. */
  readonly certain: readonly number[] | null;
}

export interface OpenDeps extends Omit<ReplicaKindDeps, "logger" | "deadlineMs" | "privateDirectory" | "mayResume"> {
  readonly log: Logger;
  readonly locks: ReplicaLocks;
  /** Where the membership is recorded, if not on the replicas. */
  readonly store: RecordStore | null;
  /** Told when the claim is on record; resolves when the lease is ours, too: nothing is changed before. */
  readonly onClaimed: () => Promise<void>;
  /** Keeps for a successor of this process who is a member by every record (`VoterArbiterDeps.onCertain`). */
  readonly onCertain: (replicas: readonly number[], term: number) => void;
}

/** What was found and made ready. */
export interface OpenedVolume {
  readonly config: VolumeConfig;
  readonly volumeId: string;
  /** The volume was made just now, of empty directories (and one with data, perhaps). */
  readonly isNew: boolean;
  /** By index; those in `recorded.members` are connected, the others are not. */
  readonly replicas: (Replica | null)[];
  readonly files: (name: string) => ControlFiles;
  /** A replica for a slot, new or in place of another one; not connected. */
  readonly place: (config: ReplicaConfig, index: number) => Replica;
  readonly capabilities: readonly Capabilities[];
  readonly arbiter: VolumeArbiter;
  /** The records on the voters, where these are the arbiter; null where another one is. */
  readonly records: VoterArbiter | null;
  /** null where no other host can have the volume, or the arbiter sees to it. */
  readonly host: HostClaim | null;
  readonly recorded: MembershipRecord;
}

export async function openVolume(request: OpenRequest, deps: OpenDeps): Promise<OpenedVolume> {
  try {
    return await open(request, deps);
  } catch (error) {
    throw asFailure(error, deps.store !== null);
  }
}

async function open(request: OpenRequest, deps: OpenDeps): Promise<OpenedVolume> {
  const { config, resumed, avoid } = request;
  let claimed: VolumeArbiter | null = null;
  const kindDeps: ReplicaKindDeps = {
    page: deps.page,
    logger: deps.log,
    deadlineMs: config.deadlineMs,
    privateDirectory: config.stateDirectory,
    metrics: deps.metrics,
    mayResume: deps.store === null ? null : () => mayResume(() => claimed),
    onFenced: deps.onFenced,
  };
  const replicas = config.replicas.map((replica, index) => makeReplica(replica, index, kindDeps));
  const control = new Map(replicas.map((replica) => [replica.name, new ReplicaControlFiles(replica)]));
  const files = (name: string): ControlFiles => {
    const known = control.get(name);
    if (known === undefined) throw new Error(`No replica is named "${name}"`);
    return known;
  };
  const names = config.replicas.map((replica) => replica.name);
  const problems = await connectAll(
    replicas.filter((replica) => !avoid.includes(replica.name)),
    config.deadlineMs,
  );
  if (!resumed) await makeRoots(replicas, problems, files, config.deadlineMs);
  const connected = replicas.filter((replica) => !avoid.includes(replica.name) && !problems.has(replica.name));
  for (const [name, error] of problems)
    deps.log.warn("Replica cannot be connected", { replica: name, error: errorText(error) });
  if (connected.length === 0) {
    const [first] = problems.values();
    if (first instanceof Error) throw first;
    throw new FailureError("busy", "An earlier process still uses all of the replicas: wait");
  }
  for (const { name, url } of connected) if (!isRemoteUrl(url) && !mayHoldLinks(url)) throw withoutLinks(name);
  const witness = config.witness === null ? null : await openWitness(config.witness, deps.log);
  const readings = await Promise.all(
    connected.map(async (replica) => await start(readBackend(replica, files(replica.name)))),
  );
  const identity = decideIdentity(readings, names, config.source, config.alike === true);
  const { volumeId } = identity;
  const refused = identity.kind === "existing" ? [...identity.refused] : [];
  for (const error of refused) deps.log.warn("Replica is not used", { replica: error.replica, error: error.message });
  const usable = identity.kind === "existing" ? identity.usable : names;
  const voters = names.filter((name) => usable.includes(name)).map((name) => ({ name, files: files(name) }));
  if (witness !== null) voters.push({ name: WITNESS, files: witness });
  const onVoters = new VoterArbiter(
    voters,
    {
      log: deps.log,
      now: () => new Date(),
      isQuiet: (voter) => !avoid.includes(voter),
      onCertain: (members, term) =>
        deps.onCertain(
          members.map((name) => config.replicas.findIndex((r) => r.name === name)),
          term,
        ),
    },
    {
      volumeId,
      witness: config.witness === null ? null : WITNESS,
      minInSync: config.minInSyncReplicas,
      forceDegraded: config.forceDegraded,
      certain: request.certain?.map((index) => config.replicas[index]?.name ?? "") ?? null,
    },
  );
  const here = connected.map(({ name }) => name).filter((name) => usable.includes(name));
  const slots: (Replica | null)[] = replicas;
  const observes = config.arbiter?.observes === true;
  const arbiter =
    deps.store === null
      ? onVoters
      : observes
        ? new StatusObserver(deps.store, volumeId, here)
        : statusArbiter(request, deps.store, onVoters, volumeId, here, slots, deps);
  if (identity.kind === "new") {
    if (observes) throw new FailureError("identity", "The volume is new: it has to be mounted for writing first");
    if (deps.store !== null && (await arbiter.peek()) !== null)
      throw new FailureError(
        "identity",
        "The volume has been in use, and none of its replicas has its marker: see what is mounted where they are",
      );
    if (resumed)
      throw new FailureError("identity", "None of the replicas has its marker any more: unmount, and look at them");
    await prepare(replicas, witness, files);
    lockAll(config, names, [], resumed, deps);
    await arbiter.initialize(identity.inSync);
    const now = new Date();
    for (const name of names) await start(writeMarker(files(name), volumeId, name, now));
  } else {
    lockAll(config, usable, avoid, resumed, deps);
    if (deps.store === null && !resumed) refuseUnknown(await onVoters.peek(), problems);
    const best = await arbiter.peek();
    if (best !== null) {
      for (const lost of identity.fresh.filter((name) => best.members.includes(name))) {
        deps.log.warn("Replica is not used", { replica: lost, error: unmounted(lost).message });
        if (voters.length === 0) throw unmounted(lost);
        refused.push(unmounted(lost));
      }
      if (request.term > 0 && best.term > request.term)
        throw new ClaimLostError(request.term, best.term, best.members[0] ?? "");
    }
  }
  const host = hostClaim(request, deps);
  if (host !== null) {
    const shared = voters.filter(({ name }) => config.replicas.some((r) => r.name === name && isRemoteUrl(r.url)));
    host.voters = () => shared.filter(({ name }) => here.includes(name));
    if (!resumed && identity.kind === "existing") await host.wait();
    host.voters = () => shared.filter(({ name }) => recorded.members.includes(name) && here.includes(name));
  }
  if (identity.kind === "existing" && witness !== null && deps.store === null) await start(witness.create());
  for (const error of refused) onVoters.explain(error.replica, reasonOf(error));
  for (const [name, error] of problems) onVoters.explain(name, reasonOf(error));
  let recorded = await arbiter.claim().catch((error: unknown) => {
    throw blamed(error, refused);
  });
  claimed = arbiter;
  if (!observes) await deps.onClaimed();
  const unfenced = await takeOver(
    connected.filter((replica) => !observes && recorded.members.includes(replica.name)),
    volumeId,
    deps.log,
  );
  if (unfenced.length > 0) recorded = await arbiter.leave(unfenced);
  await arbiter.confirm(); // somebody may have claimed it meanwhile: nothing was changed yet
  await host?.beat(true);
  const capabilities: Capabilities[] = [];
  for (const replica of connected) {
    // Also of those that are yet to be filled: the volume offers what all of them can do.
    if (usable.includes(replica.name)) {
      const found = await replica.probe();
      if (!found.symlinks) throw withoutLinks(replica.name);
      capabilities.push(found);
    }
    if (!recorded.members.includes(replica.name)) await replica.disconnect();
  }
  const place = (replica: ReplicaConfig, index: number): Replica => {
    const made = makeReplica(replica, index, kindDeps);
    control.set(replica.name, new ReplicaControlFiles(made));
    slots[index] = made;
    return made;
  };
  return {
    config,
    volumeId,
    isNew: identity.kind === "new",
    replicas: slots,
    files,
    place,
    capabilities,
    arbiter,
    records: deps.store === null ? onVoters : null,
    host,
    recorded,
  };
}

function hostClaim({ config }: OpenRequest, { store, log }: OpenDeps): HostClaim | null {
  if (store !== null || !config.replicas.some(({ url }) => isRemoteUrl(url))) return null;
  const given = process.env["CHIRON_HOST_NAME"];
  const host = given ?? hostname();
  const mount = `${given ?? machineId()}:${config.stateDirectory}`;
  const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
  const { leaseMs } = hostTimes(config.deadlineMs);
  return new HostClaim({ pause, nowMs: monotonicMs, log }, { host, mountpoint: config.mountpoint, mount, leaseMs });
}

/** Changes wait only when they would have failed anyway; who takes over waits a little longer. */
export function hostTimes(deadlineMs: number): LeaseTimes {
  const holdMs = Math.max(6_000, deadlineMs + 2_000);
  return { renewMs: 2_000, holdMs, leaseMs: holdMs + 4_000 };
}

function machineId(): string {
  for (const path of ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"]) {
    try {
      const id = readFileSync(path, "latin1").trim();
      if (id !== "") return id;
    } catch {
      // the next one
    }
  }
  return hostname();
}

/** Directories that are to become a volume may not exist yet. Where there is a volume already, nothing is made. */
async function makeRoots(
  replicas: readonly Replica[],
  problems: Map<string, unknown>,
  files: OpenedVolume["files"],
  deadlineMs: number,
): Promise<void> {
  const missing = replicas.filter(({ name, makeRoot }) => problems.has(name) && makeRoot !== undefined);
  if (missing.length === 0) return;
  for (const { name } of replicas) {
    if (!problems.has(name) && (await start(readMarker(files(name)))).kind !== "none") return;
  }
  const signal = AbortSignal.timeout(deadlineMs);
  for (const replica of missing) {
    try {
      if (!(await replica.makeRoot?.({ signal }))) continue;
      await replica.connect({ signal });
      problems.delete(replica.name);
    } catch (error) {
      problems.set(replica.name, error);
    }
  }
}

/** Makes `.chiron` everywhere, or nowhere: then nothing has been changed. */
async function prepare(
  replicas: readonly Replica[],
  witness: ControlFiles | null,
  files: OpenedVolume["files"],
): Promise<void> {
  const root = { parent: null, name: "" };
  const made: Replica[] = [];
  try {
    for (const replica of replicas) {
      await start(files(replica.name).create());
      made.push(replica);
    }
    if (witness !== null) await start(witness.create());
  } catch (error) {
    for (const replica of made) await replica.rmdir(root, CONTROL_DIRECTORY); // if it is empty
    throw error;
  }
}

/** Not one that is away, but one that the volume never had: a slip of the pen. */
function refuseUnknown(best: VoterRecord | null, problems: ReadonlyMap<string, unknown>): void {
  if (best === null) return;
  const known = [...best.voters.replicas, ...best.absent.map((replica) => replica.name)];
  for (const [name, error] of problems) if (!known.includes(name)) throw error;
}

/** Without the replica's name at its beginning. */
function reasonOf(error: unknown): string {
  return errorText(error).replace(/^Replica "[^"]*": /, "");
}

/** A quorum that is not there because somebody is not who it should be: that is what has to be looked at. */
function blamed(error: unknown, refused: readonly IdentityError[]): unknown {
  if (!(error instanceof QuorumLostError)) return error;
  const who = refused.find(({ replica }) => error.missing.includes(replica));
  return who === undefined ? error : new FailureError(codeOf(who, false), error.message, { cause: error });
}

function withoutLinks(name: string): FailureError {
  const what = "its file system has no symbolic links, in which Chiron keeps its records: use another file system";
  return new FailureError("replica", `Replica "${name}": ${what}`);
}

/** Answers who could not be connected, and why. */
async function connectAll(replicas: readonly Replica[], deadlineMs: number): Promise<Map<string, unknown>> {
  const problems = new Map<string, unknown>();
  const signal = AbortSignal.timeout(deadlineMs);
  await Promise.all(
    replicas.map(async (replica) => {
      try {
        await replica.connect({ signal });
      } catch (error) {
        problems.set(replica.name, error);
      }
    }),
  );
  return problems;
}

/** The membership is the arbiter's; the replicas have copies of it. */
function statusArbiter(
  { config, resumed }: OpenRequest,
  store: RecordStore,
  voters: VoterArbiter,
  volumeId: string,
  here: readonly string[],
  replicas: readonly (Replica | null)[],
  { log }: OpenDeps,
): StatusArbiter {
  const { node = "", mount = "", waitMs = 0 } = config.arbiter ?? {};
  const names = config.replicas.map(({ name }) => name);
  // A directory of this machine is nobody else's, and its lock tells of those who are here.
  const fences = (members: readonly string[]) =>
    replicas.every((replica) => replica === null || !members.includes(replica.name) || shutsOut(replica));
  const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
  const deps = { store, voters, fences, now: () => new Date(), nowMs: () => performance.now(), pause, log };
  return new StatusArbiter(deps, { node, mount, volumeId, resumed, waitMs, replicas: names, here });
}

export function shutsOut({ url, fences }: Replica): boolean {
  return !isRemoteUrl(url) || fences === true;
}

/** Waits for an answer as long as it takes: without one nobody may go on. */
async function mayResume(arbiter: () => VolumeArbiter | null): Promise<boolean> {
  for (;;) {
    try {
      const known = arbiter();
      if (known === null) return true; // only looking, so far
      await known.confirm();
      return true;
    } catch (error) {
      if (error instanceof ClaimLostError) return false;
      await new Promise((resolve) => setTimeout(resolve, RESUME_RETRY_MS));
    }
  }
}

/** Ends what earlier processes may still do. Answers where that failed: these are disconnected, and their calls fail. */
async function takeOver(replicas: readonly Replica[], volumeId: string, log: Logger): Promise<string[]> {
  const failed: string[] = [];
  await Promise.all(
    replicas.map(async (replica) => {
      try {
        await replica.takeOver?.(volumeId);
      } catch (error) {
        log.warn("Replica cannot be taken over", { replica: replica.name, error: errorText(error) });
        await replica.disconnect();
        failed.push(replica.name);
      }
    }),
  );
  return failed;
}

/** A directory that holds records and no data; null if it cannot be had: then it has no vote. */
async function openWitness(path: string, log: Logger): Promise<ControlFiles | null> {
  try {
    const place = new LocalReplica({ name: WITNESS, path });
    await place.connect({ signal: AbortSignal.timeout(10_000) });
    return new ReplicaControlFiles(place);
  } catch (error) {
    log.warn("The witness cannot be used", { path, error: errorText(error) });
    return null;
  }
}

function lockAll(
  config: VolumeConfig,
  names: readonly string[],
  avoid: readonly string[],
  resumed: boolean,
  { locks, page }: OpenDeps,
): void {
  for (const [index, { name, url }] of config.replicas.entries()) {
    if (isRemoteUrl(url) || !names.includes(name) || avoid.includes(name)) continue;
    const busy = page.loopCalls(index); // it may hang here as well
    busy[0] = 1;
    const ours = locks.take(url);
    busy[0] = 0;
    if (ours) continue;
    if (!resumed) throw new VolumeBusyError(url);
    locks.takeLater(url);
  }
}

function asFailure(error: unknown, kept: boolean): FailureError {
  if (error instanceof FailureError) return error;
  return new FailureError(codeOf(error, kept), errorText(error), { cause: error });
}

/** `kept`: the arbiter is nobody's but the mount's that it names. */
function codeOf(error: unknown, kept: boolean): FailureCode {
  if (error instanceof IdentityError) return error.problem === "newer-version" ? "state" : "identity";
  if (error instanceof AdoptError) return "adopt";
  if (error instanceof QuorumLostError) return "quorum";
  if (error instanceof HostBusyError) return "busy";
  if (error instanceof ClaimLostError) return kept ? "lost" : "busy";
  if (error instanceof VolumeBusyError) return "busy";
  return "replica";
}
