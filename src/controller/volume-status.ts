/**
 * The health of a volume from what its nodes report: pure, and the only place where phase and conditions are decided.
 * A report counts until it is older than `staleAfterMs`; what nobody reports about keeps its last state if the last
 * node left in order, and is Unknown if that node just went silent.
 */
import { minInSyncReplicas } from "../api/names.ts";
import type {
  Condition,
  NodeReport,
  Phase,
  Place,
  ReplicaReport,
  ReplicaStatus,
  ReplicatedVolume,
  ReplicatedVolumeStatus,
} from "../api/replicated-volume.ts";
import { nodesOf, type Resolved } from "./backends.ts";

/** What the controller owns of a status. */
export type ControllerStatus = Pick<
  ReplicatedVolumeStatus,
  | "phase"
  | "observedGeneration"
  | "inSyncReplicas"
  | "syncProgress"
  | "claim"
  | "replicas"
  | "conditions"
  | "removeTrees"
>;

export interface StatusInput {
  readonly volume: ReplicatedVolume;
  /** By replica name. */
  readonly backends: ReadonlyMap<string, Resolved>;
  /** Of the PersistentVolume, once there is one. */
  readonly hasPersistentVolume: boolean;
  readonly claim: string | null;
  /** Why there is no PersistentVolume and cannot be. */
  readonly problem: string | null;
  readonly removeTrees: boolean;
  readonly nowMs: number;
  readonly staleAfterMs: number;
}

type ReplicaState = ReplicaReport["state"];
const badness: Readonly<Record<ReplicaState, number>> = {
  InSync: 0,
  Syncing: 1,
  Unknown: 2,
  OutOfSync: 3,
  Unreachable: 4,
};

export function freshReports(
  reports: readonly NodeReport[],
  nowMs: number,
  staleAfterMs: number,
): readonly NodeReport[] {
  return reports.filter((report) => nowMs - Date.parse(report.reportedAt) <= staleAfterMs);
}

/** When the next report becomes stale, so that the volume is looked at again then; null without reports. */
export function nextStaleMs(reports: readonly NodeReport[], nowMs: number, staleAfterMs: number): number | null {
  const ages = freshReports(reports, nowMs, staleAfterMs).map(
    (report) => Date.parse(report.reportedAt) + staleAfterMs - nowMs,
  );
  return ages.length === 0 ? null : Math.max(0, Math.min(...ages)) + 1;
}

export function deriveStatus(input: StatusInput): ControllerStatus {
  const { volume, nowMs, staleAfterMs } = input;
  const reports = volume.status?.nodes ?? [];
  const fresh = freshReports(reports, nowMs, staleAfterMs);
  const silent = fresh.length === 0 && reports.length > 0;
  const replicas = volume.spec.replicas.map(({ name }) =>
    replicaStatus(name, fresh, silent, volume.status?.replicas ?? [], input.backends.get(name), nowMs),
  );
  const accepted = acceptance(input);
  const phase = phaseOf(input, fresh, silent, replicas, accepted === null);
  const inSync = replicas.filter(({ state }) => state === "InSync").length;
  const known = replicas.some(({ state }) => state !== "Unknown");
  const slowest = Math.min(...replicas.flatMap(({ progress }) => (progress ? [progress.percent] : [])));
  return {
    phase,
    observedGeneration: volume.metadata.generation ?? 0,
    ...(known ? { inSyncReplicas: `${inSync}/${replicas.length}` } : {}),
    ...(Number.isFinite(slowest) ? { syncProgress: `${slowest}%` } : {}),
    ...(input.claim === null ? {} : { claim: input.claim }),
    ...(input.removeTrees ? { removeTrees: true } : {}),
    replicas,
    conditions: conditionsOf(input, phase, fresh, replicas, accepted),
  };
}

/** Of several nodes' views the worst. */
function replicaStatus(
  name: string,
  fresh: readonly NodeReport[],
  silent: boolean,
  before: readonly ReplicaStatus[],
  backend: Resolved | undefined,
  nowMs: number,
): ReplicaStatus {
  const place: Place | undefined = backend?.kind === "place" ? backend.place : undefined;
  const withPlace = (report: ReplicaReport): ReplicaStatus => (place ? { ...report, place } : { ...report });
  const views = fresh.flatMap(({ replicas = [] }) => replicas.filter((view) => view.name === name));
  const worst = views.toSorted((a, b) => badness[b.state] - badness[a.state])[0];
  if (worst) {
    const { freeBytes: _free, ...view } = worst; // it changes all the time, and stays with the node's report
    return withPlace(view);
  }
  const { place: _, ...last } = before.find((earlier) => earlier.name === name) ?? {
    place: undefined,
    name,
    state: "Unknown" as const,
  };
  if (fresh.length > 0 && last.state !== "OutOfSync")
    return withPlace({ name, state: "OutOfSync", reason: "New", since: new Date(nowMs).toISOString() });
  if (silent && last.state !== "Unknown")
    return withPlace({ name, state: "Unknown", reason: "NodeSilent", since: new Date(nowMs).toISOString() });
  return withPlace(last);
}

/** Why the spec cannot be carried out; null if it can. */
function acceptance(input: StatusInput): { readonly reason: string; readonly message: string } | null {
  const problems = [...input.backends.values()].flatMap((backend) =>
    backend.kind === "problem" ? [backend.message] : [],
  );
  if (problems.length > 0) return { reason: "BackendUnresolved", message: problems.join("; ") };
  const hosts = nodesOf(
    [...input.backends.values()].flatMap((backend) => (backend.kind === "place" ? [backend.place] : [])),
  );
  if (hosts.length > 1)
    return {
      reason: "BackendUnreachable",
      message: `the replicas are directories of several nodes (${hosts.join(", ")}), and no node reaches all of them; use NFS exports`,
    };
  if (input.problem !== null) return { reason: "PersistentVolumeRefused", message: input.problem };
  return null;
}

function phaseOf(
  input: StatusInput,
  fresh: readonly NodeReport[],
  silent: boolean,
  replicas: readonly ReplicaStatus[],
  accepted: boolean,
): Phase {
  if (input.volume.metadata.deletionTimestamp !== undefined) return "Deleting";
  if (fresh.some(({ state }) => state === "Failed")) return "Failed";
  if (fresh.some(({ state }) => state === "QuorumLost")) return "QuorumLost";
  if (silent) return "Unknown";
  if (fresh.length === 0 && (!accepted || !input.hasPersistentVolume)) return "Pending";
  if (replicas.some(({ state }) => state === "Syncing")) return "Syncing";
  const lost = replicas.filter(({ state }) => state === "OutOfSync" || state === "Unreachable").length;
  if (lost > 0) return replicas.length - lost < minInSyncReplicas(input.volume.spec) ? "QuorumLost" : "Degraded";
  return fresh.length === 0 ? "Available" : "Ready";
}

function conditionsOf(
  { volume, nowMs }: StatusInput,
  phase: Phase,
  fresh: readonly NodeReport[],
  replicas: readonly ReplicaStatus[],
  accepted: { readonly reason: string; readonly message: string } | null,
): Condition[] {
  const min = minInSyncReplicas(volume.spec);
  const inSync = replicas.filter(({ state }) => state === "InSync").length;
  const behind = replicas.filter(({ state }) => state === "OutOfSync" || state === "Unreachable");
  const syncing = replicas.filter(({ state }) => state === "Syncing");
  const describe = (list: readonly ReplicaStatus[]) =>
    list
      .map(({ name, state, reason, message }) =>
        [`${name} is ${state}`, reason && `(${reason})`, message && `– ${message}`].filter(Boolean).join(" "),
      )
      .join("; ");
  const serving = ["Available", "Ready", "Degraded", "Syncing"].includes(phase);
  const trouble = fresh.find(({ message }) => message !== undefined)?.message;
  const known = replicas.some(({ state }) => state !== "Unknown");
  const wanted: (readonly [type: string, status: Condition["status"], reason: string, message: string])[] = [
    accepted === null
      ? ["Accepted", "True", "Resolved", "every replica's place is known"]
      : ["Accepted", "False", accepted.reason, accepted.message],
    phase === "Unknown"
      ? ["Ready", "Unknown", "NodeSilent", "the node that used the volume does not report any more"]
      : [
          "Ready",
          serving ? "True" : "False",
          phase,
          trouble ?? (serving ? "reads and writes are served" : `the volume is ${phase}`),
        ],
    behind.length + syncing.length > 0
      ? ["Degraded", "True", "ReplicasOutOfSync", describe([...behind, ...syncing])]
      : [
          "Degraded",
          known ? "False" : "Unknown",
          known ? "AllInSync" : "NotInUse",
          known ? "all replicas are in sync" : "no node uses the volume",
        ],
    syncing.length > 0
      ? [
          "Syncing",
          "True",
          "Resyncing",
          syncing.map(({ name, progress }) => `${name}: ${progress?.percent ?? 0} %`).join("; "),
        ]
      : ["Syncing", "False", "Idle", "no replica is being brought up to date"],
    known
      ? [
          "QuorumMet",
          phase !== "QuorumLost" && inSync >= min ? "True" : "False",
          inSync >= min ? "EnoughInSync" : "TooFewInSync",
          `${inSync} in sync, ${min} needed`,
        ]
      : ["QuorumMet", "Unknown", "NotInUse", "no node uses the volume"],
  ];
  const before = volume.status?.conditions ?? [];
  return wanted.map(([type, status, reason, message]) => {
    const earlier = before.find((condition) => condition.type === type);
    return {
      type,
      status,
      reason,
      message,
      observedGeneration: volume.metadata.generation ?? 0,
      lastTransitionTime: earlier?.status === status ? earlier.lastTransitionTime : new Date(nowMs).toISOString(),
    };
  });
}
