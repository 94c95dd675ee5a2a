/**
 * From a configuration to a volume that may be served: connects the replicas, finds out whose they are, makes a new volume
 * of them or claims the one that they are, and leaves the members connected. Nothing is written to a backend
 * before all of them have been looked at.
 */

import { LocalReplica } from "../replica/local.ts";
import type { Capabilities, Replica } from "../replica/replica.ts";
import { VoterArbiter } from "../replication/arbiter-voters.ts";
import { type ControlFiles, ReplicaControlFiles } from "../replication/control-files.ts";
import { AdoptError, ClaimLostError, IdentityError, QuorumLostError, VolumeBusyError } from "../replication/errors.ts";
import { decideIdentity, readBackend, unmounted, writeMarker } from "../replication/identity.ts";
import type { MembershipRecord } from "../replication/model.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { FailureError } from "./failure.ts";
import type { FailureCode, ReplicaConfig, VolumeConfig } from "./protocol.ts";
import { isNfsUrl, makeReplica, type ReplicaKindDeps } from "./replica-kinds.ts";
import type { ReplicaLocks } from "./replica-locks.ts";

export const WITNESS = "witness";

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

export interface OpenDeps extends Omit<ReplicaKindDeps, "logger" | "deadlineMs"> {
  readonly log: Logger;
  readonly locks: ReplicaLocks;
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
  readonly arbiter: VoterArbiter;
  readonly recorded: MembershipRecord;
}

export async function openVolume(request: OpenRequest, deps: OpenDeps): Promise<OpenedVolume> {
  try {
    return await open(request, deps);
  } catch (error) {
    throw asFailure(error);
  }
}

async function open(request: OpenRequest, deps: OpenDeps): Promise<OpenedVolume> {
  const { config, resumed, avoid } = request;
  const kindDeps: ReplicaKindDeps = {
    page: deps.page,
    logger: deps.log,
    deadlineMs: config.deadlineMs,
    metrics: deps.metrics,
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
  const connected = replicas.filter((replica) => !avoid.includes(replica.name) && !problems.has(replica.name));
  for (const [name, error] of problems)
    deps.log.warn("Replica cannot be connected", { replica: name, error: errorText(error) });
  if (connected.length === 0) {
    const [first] = problems.values();
    if (first instanceof Error) throw first;
    throw new FailureError("busy", "An earlier process still uses all of the replicas: wait");
  }
  const witness = config.witness === null ? null : await openWitness(config.witness, deps.log);
  const readings = await Promise.all(
    connected.map(async (replica) => await start(readBackend(replica, files(replica.name)))),
  );
  const identity = decideIdentity(readings, names, config.source);
  const { volumeId } = identity;
  const refused = identity.kind === "existing" ? identity.refused : [];
  for (const error of refused) deps.log.warn("Replica is not used", { replica: error.replica, error: error.message });
  const usable = identity.kind === "existing" ? identity.usable : names;
  const voters = names.filter((name) => usable.includes(name)).map((name) => ({ name, files: files(name) }));
  if (witness !== null) voters.push({ name: WITNESS, files: witness });
  const arbiter = new VoterArbiter(
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
  if (identity.kind === "new") {
    if (resumed)
      throw new FailureError("identity", "None of the replicas has its marker any more: unmount, and look at them");
    for (const voter of voters) await start(voter.files.create());
    lockAll(config, names, [], resumed, deps);
    await arbiter.initialize(identity.inSync);
    const now = new Date();
    for (const name of names) await start(writeMarker(files(name), volumeId, name, now));
  } else {
    lockAll(config, usable, avoid, resumed, deps);
    const best = await arbiter.peek();
    if (best !== null) {
      const lost = identity.fresh.find((name) => best.members.includes(name));
      if (lost !== undefined) {
        deps.log.warn("Replica is not used", { replica: lost, error: unmounted(lost).message });
        if (voters.length === 0) throw unmounted(lost);
      }
      if (request.term > 0 && best.term > request.term)
        throw new ClaimLostError(request.term, best.term, best.members[0] ?? "");
    }
  }
  const recorded = await arbiter.claim();
  await takeOver(
    connected.filter((replica) => recorded.members.includes(replica.name)),
    volumeId,
    deps.log,
  );
  const newest = await arbiter.peek(); // somebody may have claimed it meanwhile: nothing was changed yet
  if (newest !== null && newest.term > recorded.term)
    throw new ClaimLostError(recorded.term, newest.term, newest.members[0] ?? "");
  const capabilities: Capabilities[] = [];
  for (const replica of connected) {
    // Also of those that are yet to be filled: the volume offers what all of them can do.
    if (usable.includes(replica.name)) capabilities.push(await replica.probe());
    if (!recorded.members.includes(replica.name)) await replica.disconnect();
  }
  const slots: (Replica | null)[] = replicas;
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
    recorded,
  };
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

/** Ends what earlier processes may still do. A replica where that fails is left alone: its calls fail, and it is expelled. */
async function takeOver(replicas: readonly Replica[], volumeId: string, log: Logger): Promise<void> {
  await Promise.all(
    replicas.map(async (replica) => {
      try {
        await replica.takeOver?.(volumeId);
      } catch (error) {
        log.warn("Replica cannot be taken over", { replica: replica.name, error: errorText(error) });
        await replica.disconnect();
      }
    }),
  );
}

/** A directory that holds records and no data; null if it cannot be had: then it has no vote. */
async function openWitness(path: string, log: Logger): Promise<ControlFiles | null> {
  try {
    const place = new LocalReplica({ name: WITNESS, path });
    await place.connect({ signal: AbortSignal.timeout(10_000) });
    const files = new ReplicaControlFiles(place);
    await start(files.create());
    return files;
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
    if (isNfsUrl(url) || !names.includes(name) || avoid.includes(name)) continue;
    const busy = page.loopCalls(index); // it may hang here as well
    busy[0] = 1;
    const ours = locks.take(url);
    busy[0] = 0;
    if (ours) continue;
    if (!resumed) throw new VolumeBusyError(url);
    locks.takeLater(url);
  }
}

function asFailure(error: unknown): FailureError {
  if (error instanceof FailureError) return error;
  return new FailureError(codeOf(error), errorText(error), { cause: error });
}

function codeOf(error: unknown): FailureCode {
  if (error instanceof IdentityError) return "identity";
  if (error instanceof AdoptError) return "adopt";
  if (error instanceof QuorumLostError) return "quorum";
  if (error instanceof VolumeBusyError || error instanceof ClaimLostError) return "busy";
  return "replica";
}
