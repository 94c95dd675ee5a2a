/**
 * CSI's Controller service: volumes are ReplicatedVolumes, and this only reads and writes those. The volume's id is the
 * object's name. Every call may be repeated: what is there already is answered, what is gone already is gone.
 */

import { fillLabel, provisionedLabel, topologyKey, volumeFinalizer } from "../api/names.ts";
import { bytesToQuantity, quantityToBytes } from "../api/quantity.ts";
import type { ReplicatedVolumeSpecInput } from "../api/replicated-volume.ts";
import { replicatedVolumes, typeOfVolume } from "../api/resource.ts";
import {
  claimNameParameter,
  claimNamespaceParameter,
  parseStorageClass,
  StorageClassError,
} from "../api/storage-class.ts";
import { accessModeOf, refusalOf } from "../csi/capabilities.ts";
import {
  type CapacityRange,
  type ControllerExpandVolumeRequest,
  type ControllerServer,
  type CreateVolumeRequest,
  type DeleteVolumeRequest,
  ControllerServiceCapability_RPC_Type as Rpc,
  type Volume,
  type VolumeHealth,
} from "../csi/generated/csi.ts";
import { CsiError, required } from "../csi/status.ts";
import { type CallContext, exclusive, type Handlers } from "../csi/unary.ts";
import { volumeHealth } from "../csi/volume-health.ts";
import { type KubeClient, KubeError, type KubeList } from "../kube/client.ts";
import { sleep } from "../kube/informer.ts";
import { nodesOf } from "./backends.ts";
import { capacityHandler } from "./csi-capacity.ts";
import { awaitFilled, awaitNoSnapshots, dropClone, resolveSource, snapshotHandlers } from "./csi-snapshots.ts";
import { fromKube } from "./kube-status.ts";
import type { VolumeObject } from "./reconciler.ts";
import { volumeNameOf } from "./volume-names.ts";

const defaultBytes = 1n << 30n;
/** As much as a volume's capacity can be told apart from overflow. */
const mostBytes = 1n << 60n;

const rpcs = [
  Rpc.CREATE_DELETE_VOLUME,
  Rpc.LIST_VOLUMES,
  Rpc.LIST_VOLUMES_PUBLISHED_NODES,
  Rpc.GET_CAPACITY,
  Rpc.CREATE_DELETE_SNAPSHOT,
  Rpc.LIST_SNAPSHOTS,
  Rpc.GET_SNAPSHOT,
  Rpc.CLONE_VOLUME,
  Rpc.EXPAND_VOLUME,
  Rpc.GET_VOLUME,
  Rpc.SINGLE_NODE_MULTI_WRITER,
  Rpc.GET_VOLUME_HEALTH,
  Rpc.LIST_VOLUME_HEALTH,
];

export function controllerHandlers(client: KubeClient): Handlers<ControllerServer> {
  const find = async (name: string, { signal }: CallContext): Promise<VolumeObject> => {
    const volume = await fromKube(client.find<VolumeObject>(replicatedVolumes, name, undefined, { signal }));
    if (!volume) throw new CsiError("NOT_FOUND", `there is no ReplicatedVolume "${name}"`);
    return volume;
  };

  const createVolume = async (request: CreateVolumeRequest, context: CallContext) => {
    required(request.name, "name");
    if (request.volumeCapabilities.length === 0) required(undefined, "volume_capabilities");
    const accessModes = [...new Set(request.volumeCapabilities.map(accessModeOf))];
    const bytes = sizeOf(request.capacityRange);
    const settings = specOf(request, accessModes, bytes);
    checkTopology(request, settings);
    const name = volumeNameOf(request.name);
    const { signal } = context;
    const { volumeContentSource: contentSource } = request;
    let volume = await fromKube(client.find<VolumeObject>(replicatedVolumes, name, undefined, { signal }));
    const isFilled = volume?.status?.filled === true;
    const source =
      contentSource === undefined || isFilled
        ? null
        : await resolveSource(client, contentSource, name, bytes, signal).then(({ metadata }) => metadata.name);
    const labels = { [provisionedLabel]: "csi", ...(source === null ? {} : { [fillLabel]: "requested" }) };
    const object = {
      ...typeOfVolume,
      metadata: { name, labels, finalizers: [volumeFinalizer] },
      spec: { ...settings, ...(source === null ? {} : { source: { snapshot: source } }) },
    } as unknown as VolumeObject;
    volume ??= await fromKube(
      client.create(replicatedVolumes, object, { signal }).catch((error: unknown) => {
        if (error instanceof KubeError && error.reason === "AlreadyExists")
          return client.get<VolumeObject>(replicatedVolumes, name, undefined, { signal });
        throw error;
      }),
    );
    checkSame(volume, request, bytes, source);
    if (contentSource !== undefined) volume = await awaitFilled(client, name, signal);
    return { volume: { ...toVolume(volume), contentSource } };
  };

  const deleteVolume = async (request: DeleteVolumeRequest, { signal }: CallContext) => {
    const name = required(request.volumeId, "volume_id");
    for (;;) {
      const volume = await fromKube(client.find<VolumeObject>(replicatedVolumes, name, undefined, { signal }));
      if (!volume) {
        await dropClone(client, name, signal);
        return {};
      }
      if (volume.metadata.labels?.[provisionedLabel] === undefined)
        throw new CsiError(
          "FAILED_PRECONDITION",
          `ReplicatedVolume "${name}" was not made by a StorageClass; delete it with kubectl`,
        );
      if (volume.metadata.deletionTimestamp === undefined) await awaitNoSnapshots(client, name, signal);
      if (volume.metadata.deletionTimestamp === undefined)
        await fromKube(
          client.delete(replicatedVolumes, name, undefined, { uid: volume.metadata.uid ?? "" }, { signal }),
        );
      // The reconciler takes the object away once the trees are gone; csi-provisioner asks again if that lasts.
      await sleep(200, signal);
      signal.throwIfAborted();
    }
  };

  const list = async (
    request: { readonly maxEntries: number; readonly startingToken: string },
    { signal }: CallContext,
  ) => {
    if (request.maxEntries < 0) throw new CsiError("INVALID_ARGUMENT", "max_entries is negative");
    const volumes: VolumeObject[] = [];
    let next: string | undefined;
    do {
      const page: KubeList<VolumeObject> = await fromKube(
        client.list<VolumeObject>(replicatedVolumes, { limit: 500, continue: next }, undefined, { signal }),
      );
      volumes.push(...page.items);
      next = page.metadata.continue || undefined;
    } while (next !== undefined);
    volumes.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    // A token is the name of the last volume of its page, so that pages go on though volumes come and go.
    const token = request.startingToken;
    if (token !== "" && !token.startsWith("after:"))
      throw new CsiError("ABORTED", `starting_token "${token}" is not one of ours`);
    const rest = volumes.filter(({ metadata }) => token === "" || metadata.name > token.slice(6));
    const page = request.maxEntries > 0 ? rest.slice(0, request.maxEntries) : rest;
    const last = page.at(-1);
    return { page, nextToken: page.length < rest.length && last ? `after:${last.metadata.name}` : "" };
  };

  return {
    ...snapshotHandlers(client),
    getCapacity: capacityHandler(client),
    controllerGetCapabilities: () => ({ capabilities: rpcs.map((type) => ({ rpc: { type } })) }),
    createVolume: exclusive((request: CreateVolumeRequest) => volumeNameOf(request.name), createVolume),
    deleteVolume: exclusive((request: DeleteVolumeRequest) => request.volumeId, deleteVolume),

    async validateVolumeCapabilities(request, context) {
      const volumeId = required(request.volumeId, "volume_id");
      if (request.volumeCapabilities.length === 0) required(undefined, "volume_capabilities");
      const volume = await find(volumeId, context);
      for (const capability of request.volumeCapabilities) {
        const refusal = refusalOf(capability);
        if (refusal !== null) return { confirmed: undefined, message: refusal };
        const mode = accessModeOf(capability);
        if (!volume.spec.accessModes.includes(mode))
          return { confirmed: undefined, message: `the volume has ${volume.spec.accessModes.join(", ")}, not ${mode}` };
      }
      const { volumeContext, volumeCapabilities, parameters, mutableParameters } = request;
      return { confirmed: { volumeContext, volumeCapabilities, parameters, mutableParameters }, message: "" };
    },

    async listVolumes(request, context) {
      const { page, nextToken } = await list(request, context);
      const entries = page.map((volume) => ({
        volume: toVolume(volume),
        status: { publishedNodeIds: usersOf(volume) },
      }));
      return { entries, nextToken };
    },

    async controllerGetVolume(request, context) {
      const volume = await find(required(request.volumeId, "volume_id"), context);
      return { volume: toVolume(volume), status: { publishedNodeIds: usersOf(volume) } };
    },

    async controllerGetVolumeHealth(request, context) {
      return { volumeHealth: healthOf(await find(required(request.volumeId, "volume_id"), context)) };
    },

    async controllerListVolumeHealth(request, context) {
      const { page, nextToken } = await list(request, context);
      return { entries: page.map(healthOf), nextToken };
    },

    controllerExpandVolume: exclusive(
      (request: ControllerExpandVolumeRequest) => request.volumeId,
      async (request: ControllerExpandVolumeRequest, context: CallContext) => {
        const name = required(request.volumeId, "volume_id");
        if (!request.capacityRange) required(undefined, "capacity_range");
        const volume = await find(name, context);
        const now = quantityToBytes(volume.spec.capacity);
        const wanted = sizeOf(request.capacityRange);
        const grows = wanted > now;
        if (grows) {
          const patch = { spec: { capacity: bytesToQuantity(wanted) } };
          await fromKube(
            client.mergePatch(replicatedVolumes, name, patch, undefined, undefined, { signal: context.signal }),
          );
        }
        return { capacityBytes: grows ? wanted : now, nodeExpansionRequired: false };
      },
    ),
  };
}

function sizeOf(range: CapacityRange | undefined): bigint {
  const { requiredBytes = 0n, limitBytes = 0n } = range ?? {};
  if (requiredBytes < 0n || limitBytes < 0n) throw new CsiError("INVALID_ARGUMENT", "capacity_range is negative");
  const bytes =
    requiredBytes > 0n ? requiredBytes : limitBytes > 0n && limitBytes < defaultBytes ? limitBytes : defaultBytes;
  if (limitBytes > 0n && bytes > limitBytes)
    throw new CsiError("OUT_OF_RANGE", `${bytes} bytes are required, and ${limitBytes} are the limit`);
  if (bytes > mostBytes) throw new CsiError("OUT_OF_RANGE", `${bytes} bytes are too many; ${mostBytes} is the most`);
  return bytes;
}

function specOf(
  request: CreateVolumeRequest,
  accessModes: ReplicatedVolumeSpecInput["accessModes"],
  bytes: bigint,
): ReplicatedVolumeSpecInput {
  const flags = request.volumeCapabilities.flatMap(({ mount }) => mount?.mountFlags ?? []);
  try {
    const settings = parseStorageClass(request.parameters, [...new Set(flags)]);
    const claim = {
      namespace: request.parameters[claimNamespaceParameter],
      name: request.parameters[claimNameParameter],
    };
    const hosts = nodesOf(settings.replicas.map(({ nfs, hostPath }) => ({ nfs, hostPath })));
    if (hosts.length > 1)
      throw new StorageClassError(
        "hostPath",
        `names directories of several nodes (${hosts.join(", ")}), and no node reaches all of them; use NFS exports`,
      );
    return {
      ...settings,
      accessModes,
      capacity: bytesToQuantity(bytes),
      subdirectory: volumeNameOf(request.name),
      reclaimPolicy: "Delete",
      ...(claim.namespace && claim.name ? { claimRef: { namespace: claim.namespace, name: claim.name } } : {}),
    };
  } catch (error) {
    if (error instanceof StorageClassError) throw new CsiError("INVALID_ARGUMENT", error.message);
    throw error;
  }
}

/** Where the volume must be usable: directories are usable on their own node only. */
function checkTopology({ accessibilityRequirements }: CreateVolumeRequest, spec: ReplicatedVolumeSpecInput): void {
  const [node] = nodesOf(spec.replicas.map(({ nfs, hostPath }) => ({ nfs, hostPath })));
  const requisite = accessibilityRequirements?.requisite ?? [];
  if (node === undefined || requisite.length === 0) return;
  if (!requisite.some(({ segments }) => segments[topologyKey] === node))
    throw new CsiError(
      "RESOURCE_EXHAUSTED",
      `the replicas are directories of node ${node}, and the volume is wanted elsewhere`,
    );
}

/** A volume of this name that was made for other wishes is not the one that is asked for. */
function checkSame(volume: VolumeObject, request: CreateVolumeRequest, bytes: bigint, source: string | null): void {
  const has = quantityToBytes(volume.spec.capacity);
  const limit = request.capacityRange?.limitBytes ?? 0n;
  const { name, deletionTimestamp } = volume.metadata;
  if (deletionTimestamp !== undefined) throw new CsiError("ABORTED", `volume "${name}" is being deleted; try again`);
  if (volume.metadata.labels?.[provisionedLabel] === undefined)
    throw new CsiError("ALREADY_EXISTS", `ReplicatedVolume "${name}" is there, and was not made by a StorageClass`);
  if (has < bytes || (limit > 0n && has > limit))
    throw new CsiError("ALREADY_EXISTS", `volume "${name}" is there with ${has} bytes, and ${bytes} are asked for`);
  const made = volume.spec.source?.snapshot ?? null;
  if ((made === null) !== (request.volumeContentSource === undefined) || (source !== null && source !== made))
    throw new CsiError("ALREADY_EXISTS", `volume "${name}" is there, and was made from ${made ?? "nothing"}`);
  for (const capability of request.volumeCapabilities) {
    const mode = accessModeOf(capability);
    if (!volume.spec.accessModes.includes(mode))
      throw new CsiError(
        "ALREADY_EXISTS",
        `volume "${name}" is there with ${volume.spec.accessModes.join(", ")}, and ${mode} is asked for`,
      );
  }
}

function toVolume(volume: VolumeObject): Volume {
  const [node] = nodesOf(volume.spec.replicas.map(({ nfs, hostPath }) => ({ nfs, hostPath })));
  return {
    volumeId: volume.metadata.name,
    capacityBytes: quantityToBytes(volume.spec.capacity),
    volumeContext: {},
    contentSource: undefined,
    accessibleTopology: node === undefined ? [] : [{ segments: { [topologyKey]: node } }],
  };
}

const usersOf = (volume: VolumeObject): string[] => (volume.status?.nodes ?? []).map(({ name }) => name);

const healthOf = (volume: VolumeObject): VolumeHealth =>
  volumeHealth(volume.metadata.name, volume.status?.phase, volume.status?.replicas ?? []);
