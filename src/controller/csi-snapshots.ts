/**
 * Snapshots and what is made from them, as CSI's Controller service has them. A snapshot's id is the name of its
 * ReplicatedVolumeSnapshot; a node carries it out. A clone is a snapshot that goes away once the new volume is filled.
 */
import { cloneLabel, fillLabel, snapshotFinalizer } from "../api/names.ts";
import { quantityToBytes } from "../api/quantity.ts";
import type { ReplicatedVolumeSnapshot } from "../api/replicated-volume-snapshot.ts";
import { replicatedVolumes, typeOfSnapshot, volumeSnapshots } from "../api/resource.ts";
import type {
  ControllerServer,
  CreateSnapshotRequest,
  DeleteSnapshotRequest,
  Snapshot,
  VolumeContentSource,
} from "../csi/generated/csi.ts";
import { CsiError, required } from "../csi/status.ts";
import { type CallContext, exclusive, type Handlers } from "../csi/unary.ts";
import { type KubeClient, KubeError, type KubeList, type KubeObject } from "../kube/client.ts";
import { sleep } from "../kube/informer.ts";
import { fromKube } from "./kube-status.ts";
import type { VolumeObject } from "./reconciler.ts";
import { volumeNameOf } from "./volume-names.ts";

export type SnapshotObject = ReplicatedVolumeSnapshot & KubeObject;

const pollMs = 200;
/** Of a VolumeSnapshotClass. */
const maxPauseParameter = "maxPauseSeconds";

export function findSnapshot(client: KubeClient, name: string, signal: AbortSignal): Promise<SnapshotObject | null> {
  return fromKube(client.find<SnapshotObject>(volumeSnapshots, name, undefined, { signal }));
}

export async function listSnapshots(client: KubeClient, signal: AbortSignal): Promise<SnapshotObject[]> {
  const all: SnapshotObject[] = [];
  let next: string | undefined;
  do {
    const page: KubeList<SnapshotObject> = await fromKube(
      client.list<SnapshotObject>(volumeSnapshots, { limit: 500, continue: next }, undefined, { signal }),
    );
    all.push(...page.items);
    next = page.metadata.continue || undefined;
  } while (next !== undefined);
  return all.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
}

/** Asks for a snapshot and waits until it is there; may be repeated. */
async function takeSnapshot(
  client: KubeClient,
  wanted: {
    readonly name: string;
    readonly volume: string;
    readonly cloneFor?: string;
    readonly maxPauseSeconds?: number;
  },
  signal: AbortSignal,
): Promise<SnapshotObject> {
  const { name, volume, cloneFor, maxPauseSeconds } = wanted;
  const object = {
    ...typeOfSnapshot,
    metadata: {
      name,
      finalizers: [snapshotFinalizer],
      ...(cloneFor === undefined ? {} : { labels: { [cloneLabel]: cloneFor } }),
    },
    spec: { volume, ...(maxPauseSeconds === undefined ? {} : { maxPauseSeconds }) },
  } as unknown as SnapshotObject;
  for (;;) {
    let snapshot = await findSnapshot(client, name, signal);
    snapshot ??= await fromKube(
      client.create(volumeSnapshots, object, { signal }).catch((error: unknown) => {
        if (error instanceof KubeError && error.reason === "AlreadyExists") return null;
        throw error;
      }),
    );
    if (snapshot !== null) {
      if (snapshot.metadata.deletionTimestamp !== undefined)
        throw new CsiError("ABORTED", `snapshot "${name}" is being deleted; try again`);
      if (snapshot.spec.volume !== volume)
        throw new CsiError("ALREADY_EXISTS", `snapshot "${name}" is there, of volume "${snapshot.spec.volume}"`);
      if (snapshot.status?.phase === "Ready") return snapshot;
      if (snapshot.status?.phase === "Failed")
        throw new CsiError("UNAVAILABLE", snapshot.status.message ?? `snapshot "${name}" cannot be made`);
    }
    await sleep(pollMs, signal);
    signal.throwIfAborted();
  }
}

async function removeSnapshot(client: KubeClient, name: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const snapshot = await findSnapshot(client, name, signal);
    if (snapshot === null) return;
    if (snapshot.metadata.deletionTimestamp === undefined)
      await fromKube(client.delete(volumeSnapshots, name, undefined, { uid: snapshot.metadata.uid ?? "" }, { signal }));
    await sleep(pollMs, signal);
    signal.throwIfAborted();
  }
}

/** What a new volume is to be filled with: the snapshot, made first if another volume is the source. */
export async function resolveSource(
  client: KubeClient,
  source: VolumeContentSource,
  newVolume: string,
  bytes: bigint,
  signal: AbortSignal,
): Promise<SnapshotObject> {
  const { snapshot: bySnapshot, volume: byVolume } = source;
  if (bySnapshot) {
    const id = required(bySnapshot.snapshotId, "volume_content_source.snapshot.snapshot_id");
    const snapshot = await findSnapshot(client, id, signal);
    if (snapshot === null || snapshot.metadata.deletionTimestamp !== undefined)
      throw new CsiError("NOT_FOUND", `there is no snapshot "${id}"`);
    if (snapshot.status?.phase !== "Ready") throw new CsiError("UNAVAILABLE", `snapshot "${id}" is not there yet`);
    checkSize(BigInt(snapshot.status.capacityBytes ?? 0), bytes);
    return snapshot;
  }
  const id = required(byVolume?.volumeId, "volume_content_source.volume.volume_id");
  const volume = await fromKube(client.find<VolumeObject>(replicatedVolumes, id, undefined, { signal }));
  if (volume === null) throw new CsiError("NOT_FOUND", `there is no ReplicatedVolume "${id}"`);
  checkSize(quantityToBytes(volume.spec.capacity), bytes);
  return await takeSnapshot(client, { name: cloneName(newVolume), volume: id, cloneFor: newVolume }, signal);
}

function checkSize(has: bigint, wanted: bigint): void {
  if (wanted < has)
    throw new CsiError("OUT_OF_RANGE", `the source has a capacity of ${has} bytes, and ${wanted} are asked for`);
}

export const cloneName = (newVolume: string): string => volumeNameOf(`clone-${newVolume}`);

/** Waits until a node has filled the volume; then the snapshot of a clone is needed no more. */
export async function awaitFilled(client: KubeClient, name: string, signal: AbortSignal): Promise<VolumeObject> {
  for (;;) {
    const volume = await fromKube(client.get<VolumeObject>(replicatedVolumes, name, undefined, { signal }));
    if (volume.metadata.deletionTimestamp !== undefined)
      throw new CsiError("ABORTED", `volume "${name}" is being deleted; try again`);
    if (volume.status?.filled) {
      if (volume.metadata.labels?.[fillLabel] !== undefined)
        await fromKube(
          client.mergePatch(
            replicatedVolumes,
            name,
            { metadata: { labels: { [fillLabel]: null } } },
            undefined,
            undefined,
            {
              signal,
            },
          ),
        );
      const snapshot = await findSnapshot(client, cloneName(name), signal);
      if (snapshot?.metadata.labels?.[cloneLabel] === name) await removeSnapshot(client, cloneName(name), signal);
      return volume;
    }
    await sleep(pollMs, signal);
    signal.throwIfAborted();
  }
}

/** Deletes the snapshot that a clone was made by, without waiting for its trees. */
export async function dropClone(client: KubeClient, newVolume: string, signal: AbortSignal): Promise<void> {
  const snapshot = await findSnapshot(client, cloneName(newVolume), signal);
  if (snapshot === null || snapshot.metadata.deletionTimestamp !== undefined) return;
  if (snapshot.metadata.labels?.[cloneLabel] !== newVolume) return;
  const { name, uid = "" } = snapshot.metadata;
  await fromKube(client.delete(volumeSnapshots, name, undefined, { uid }, { signal }));
}

/** Why a volume must not be deleted yet: its snapshots lie within it. Those that are going are waited for. */
export async function awaitNoSnapshots(client: KubeClient, volume: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const own = (await listSnapshots(client, signal)).filter(({ spec }) => spec.volume === volume);
    if (own.length === 0) return;
    const kept = own.filter(
      ({ metadata }) => metadata.deletionTimestamp === undefined && metadata.labels?.[cloneLabel] === undefined,
    );
    if (kept.length > 0)
      throw new CsiError(
        "FAILED_PRECONDITION",
        `volume "${volume}" has snapshots (${kept.map(({ metadata }) => metadata.name).join(", ")}), which lie in its own directories; delete them first`,
      );
    await sleep(pollMs, signal);
    signal.throwIfAborted();
  }
}

export type SnapshotHandlers = Pick<
  Handlers<ControllerServer>,
  "createSnapshot" | "deleteSnapshot" | "listSnapshots" | "getSnapshot"
>;

export function snapshotHandlers(client: KubeClient): SnapshotHandlers {
  return {
    createSnapshot: exclusive(
      (request: CreateSnapshotRequest) => `snapshot ${request.name}`,
      async (request: CreateSnapshotRequest, { signal }: CallContext) => {
        const name = volumeNameOf(required(request.name, "name"));
        const volume = required(request.sourceVolumeId, "source_volume_id");
        const maxPauseSeconds = parsePause(request.parameters);
        const existing = await findSnapshot(client, name, signal);
        const source = await fromKube(client.find<VolumeObject>(replicatedVolumes, volume, undefined, { signal }));
        if (existing === null && (source === null || source.metadata.deletionTimestamp !== undefined))
          throw new CsiError("NOT_FOUND", `there is no ReplicatedVolume "${volume}"`);
        const wanted = { name, volume, ...(maxPauseSeconds === undefined ? {} : { maxPauseSeconds }) };
        return { snapshot: toSnapshot(await takeSnapshot(client, wanted, signal)) };
      },
    ),

    deleteSnapshot: exclusive(
      (request: DeleteSnapshotRequest) => `snapshot ${request.snapshotId}`,
      async (request: DeleteSnapshotRequest, { signal }: CallContext) => {
        await removeSnapshot(client, required(request.snapshotId, "snapshot_id"), signal);
        return {};
      },
    ),

    async listSnapshots(request, { signal }) {
      const { maxEntries, startingToken, sourceVolumeId, snapshotId } = request;
      if (maxEntries < 0) throw new CsiError("INVALID_ARGUMENT", "max_entries is negative");
      if (startingToken !== "" && !startingToken.startsWith("after:"))
        throw new CsiError("ABORTED", `starting_token "${startingToken}" is not one of ours`);
      const ready = (await listSnapshots(client, signal)).filter(
        ({ metadata, spec, status }) =>
          status?.phase === "Ready" &&
          metadata.labels?.[cloneLabel] === undefined &&
          (sourceVolumeId === "" || spec.volume === sourceVolumeId) &&
          (snapshotId === "" || metadata.name === snapshotId),
      );
      const rest = ready.filter(({ metadata }) => startingToken === "" || metadata.name > startingToken.slice(6));
      const page = maxEntries > 0 ? rest.slice(0, maxEntries) : rest;
      const last = page.at(-1);
      return {
        entries: page.map((snapshot) => ({ snapshot: toSnapshot(snapshot) })),
        nextToken: page.length < rest.length && last ? `after:${last.metadata.name}` : "",
      };
    },

    async getSnapshot(request, { signal }) {
      const id = required(request.snapshotId, "snapshot_id");
      const snapshot = await findSnapshot(client, id, signal);
      if (snapshot === null || snapshot.metadata.labels?.[cloneLabel] !== undefined)
        throw new CsiError("NOT_FOUND", `there is no snapshot "${id}"`);
      return { snapshot: toSnapshot(snapshot) };
    },
  };
}

function toSnapshot({ metadata, spec, status }: SnapshotObject): Snapshot {
  return {
    snapshotId: metadata.name,
    sourceVolumeId: spec.volume,
    // A volume that is made from it needs as much as its source had.
    sizeBytes: BigInt(status?.capacityBytes ?? 0),
    creationTime: status?.creationTime === undefined ? undefined : new Date(status.creationTime),
    readyToUse: status?.phase === "Ready",
    groupSnapshotId: "",
    accessibleTopology: [],
  };
}

function parsePause(parameters: Readonly<Record<string, string>>): number | undefined {
  for (const parameter of Object.keys(parameters))
    if (parameter !== maxPauseParameter && !parameter.startsWith("csi.storage.k8s.io/"))
      throw new CsiError(
        "INVALID_ARGUMENT",
        `VolumeSnapshotClass parameter "${parameter}" is not known; there is ${maxPauseParameter}`,
      );
  const value = parameters[maxPauseParameter];
  if (value === undefined) return undefined;
  const seconds = Number(value);
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 600)
    throw new CsiError(
      "INVALID_ARGUMENT",
      `VolumeSnapshotClass parameter "${maxPauseParameter}" is "${value}"; it must be 1 to 600`,
    );
  return seconds;
}
