/**
 * CSI's Node service. Stage mounts the volume on the staging path, through the mount daemon; publish binds it into the
 * pod. What is staged is read from the kernel's mount table and the registry of mounts, never remembered, so a plugin
 * that was restarted knows as much as before. Every call may be repeated.
 */
import { randomUUID } from "node:crypto";
import { topologyKey } from "../api/names.ts";
import { replicatedVolumes } from "../api/resource.ts";
import { accessModeOf, readsOnly } from "../csi/capabilities.ts";
import {
  VolumeCapability_AccessMode_Mode as Mode,
  type NodePublishVolumeRequest,
  type NodeServer,
  type NodeStageVolumeRequest,
  type NodeUnpublishVolumeRequest,
  type NodeUnstageVolumeRequest,
  NodeServiceCapability_RPC_Type as Rpc,
  type VolumeCapability,
  type VolumeUsage,
  VolumeUsage_Unit,
} from "../csi/generated/csi.ts";
import { CsiError, required, type StatusName } from "../csi/status.ts";
import { type CallContext, exclusive, type Handlers } from "../csi/unary.ts";
import { volumeHealth } from "../csi/volume-health.ts";
import { isNotFound, type KubeClient, KubeError } from "../kube/client.ts";
import { sleep } from "../kube/informer.ts";
import { errorText, type LogLevel } from "../util/logger.ts";
import { ControlClient } from "../volume/control-client.ts";
import { FailureError } from "../volume/failure.ts";
import type { FailureCode } from "../volume/protocol.ts";
import { controlSocket, type HolderConfig, mountDirectory, readRecord } from "../volume/registry.ts";
import type { DescriptorVault } from "./descriptor-vault.ts";
import { bindMount, prepareMountpoint, unmountAndRemove } from "./kernel-mounts.ts";
import type { MountDaemon } from "./mount-daemon.ts";
import { fuseType, type MountEntry, mountAt, readMountTable } from "./mount-table.ts";
import type { Trees } from "./trees.ts";
import { holderConfig, type NodeFacts, VolumeRefusal } from "./volume-config.ts";
import { claimVolume, releaseVolume, type VolumeObject } from "./volume-holder.ts";
import type { VolumeLeases } from "./volume-leases.ts";
import type { VolumeWatch } from "./volume-watch.ts";

export interface NodeServiceOptions {
  readonly facts: NodeFacts;
  readonly runDirectory: string;
  readonly logDirectory: string | null;
  readonly logLevel: LogLevel;
  /** A backend's call that takes longer is a fault. */
  readonly deadlineMs: number;
  /** Where the volume processes reach their arbiter. */
  readonly arbiterSocket: string;
}
export interface NodeServiceDeps {
  readonly client: KubeClient;
  readonly daemon: MountDaemon;
  readonly trees: Trees;
  readonly watch: VolumeWatch;
  readonly vault: DescriptorVault;
  readonly leases: VolumeLeases;
  /** A volume was taken from a node that did not give it back. */
  readonly onTaken: (volume: VolumeObject, from: string, fenced: boolean) => void;
}

const unmountTimeoutMs = 90_000;
const pingTimeoutMs = 5_000;
const statusTimeoutMs = 5_000;
const placeTimeoutMs = 20_000;
/** A write that waits is better than one that fails, while the API server or its network is being looked after. */
const recordWaitMs = 300_000;

interface StageRequest {
  readonly volumeId: string;
  readonly stagingPath: string;
  /** null: for ourselves, whatever the access modes. */
  readonly capability: VolumeCapability | null;
}

export interface NodeService {
  readonly handlers: Handlers<NodeServer>;
  /** A mount of our own that no pod uses, for work on a volume that is not mounted here: as stage and unstage do it. */
  readonly aside: {
    mount(volumeId: string, path: string, context: CallContext): Promise<void>;
    unmount(volumeId: string, path: string): Promise<void>;
  };
}

export function nodeService(deps: NodeServiceDeps, options: NodeServiceOptions): NodeService {
  const { client, daemon, trees, watch, vault, leases } = deps;
  const { node } = options.facts;
  const isOurs = ({ type }: MountEntry) => type === fuseType;

  /** A volume that has just been created is where it is only when the controller has said so: wait for that a little. */
  const placed = async (volumeId: string, signal: AbortSignal): Promise<VolumeObject> => {
    for (const endMs = performance.now() + placeTimeoutMs; ; ) {
      const volume = await fromKube(client.get<VolumeObject>(replicatedVolumes, volumeId, undefined, { signal }));
      const placedReplicas = (volume.status?.replicas ?? []).filter(({ place }) => place !== undefined).length;
      const refused = volume.status?.conditions?.some(({ type, status }) => type === "Accepted" && status === "False");
      if (placedReplicas >= volume.spec.replicas.length || refused || performance.now() > endMs) return volume;
      await sleep(200, signal);
    }
  };

  const patchStatus = (volumeId: string, status: object, signal: AbortSignal) =>
    client.mergePatch(replicatedVolumes, volumeId, { status }, undefined, "status", { signal });

  /** A mount without processes that is about to be brought back: whoever uses it waits for that, and so does the kubelet. */
  const checkRevival = (directory: string, mounted: MountEntry | null, volumeId: string) => {
    if (mounted && vault.has(directory, mounted.device))
      throw new CsiError("UNAVAILABLE", `volume "${volumeId}" is being taken over by the next mount daemon; try again`);
  };

  const claim = (volumeId: string, signal: AbortSignal) =>
    claimVolume({ client, leases, node, onTaken: deps.onTaken }, volumeId, { signal });

  const holdsElsewhere = ({ status }: VolumeObject) => (status?.holder ?? node) !== node;

  /** Readers change nothing, so what they read has been made, and left in order. */
  const isReadable = ({ status }: VolumeObject) => status?.membership?.clean === true;

  /** Mounts the volume for writing once, and unmounts it: then it is there, and its members are alike. */
  const makeReadable = async (config: HolderConfig, { signal, logger }: Pick<CallContext, "signal" | "logger">) => {
    const { volume, mountpoint, stateDirectory, arbiter } = config.volume;
    logger.info("made readable by mounting it for writing once", { volume });
    await claim(volume, signal);
    try {
      const writing = {
        ...config.volume,
        options: [],
        ...(arbiter ? { arbiter: { ...arbiter, observes: false } } : {}),
      };
      await daemon.mount({ ...config, volume: writing }, { signal });
      await unmountInOrder(stateDirectory);
      await unmountAndRemove(mountpoint, isOurs);
      prepareMountpoint(mountpoint);
    } finally {
      await releaseVolume(client, leases, volume, node);
    }
  };

  const stage = async ({ volumeId, stagingPath, capability }: StageRequest, { signal, logger }: CallContext) => {
    const mode = capability === null ? null : accessModeOf(capability);
    const readOnly = capability !== null && readsOnly(capability);
    const volume = await placed(volumeId, signal);
    // Snapshots of a deleted volume are removed before its trees are.
    if (volume.metadata.deletionTimestamp !== undefined && capability !== null)
      throw new CsiError("FAILED_PRECONDITION", `volume "${volumeId}" is being deleted`);
    if (volume.spec.source !== undefined && !volume.status?.filled)
      throw new CsiError(
        "UNAVAILABLE",
        `volume "${volumeId}" is not filled from snapshot "${volume.spec.source.snapshot}" yet${volume.status?.fillMessage ? `: ${volume.status.fillMessage}` : ""}`,
      );
    if (mode !== null && !volume.spec.accessModes.includes(mode))
      throw new CsiError(
        "INVALID_ARGUMENT",
        `volume "${volumeId}" has ${volume.spec.accessModes.join(", ")}, not ${mode}`,
      );
    const mounted = mountAt(readMountTable(), stagingPath);
    if (mounted && !isOurs(mounted))
      throw new CsiError("INTERNAL", `something else (${mounted.type}) is mounted on ${stagingPath}; unmount it`);
    const stateDirectory = mountDirectory(stagingPath, options.runDirectory);
    const other = readRecord(stateDirectory)?.config.volume.volume;
    if (mounted && (await answers(stateDirectory))) {
      if (other !== volumeId) throw new CsiError("ALREADY_EXISTS", `volume "${other}" is staged on ${stagingPath}`);
      return;
    }
    checkRevival(stateDirectory, mounted, volumeId);
    const logFile = options.logDirectory === null ? null : `${options.logDirectory}/${volumeId}.log`;
    const config = holderConfig(volume, options.facts, {
      mountpoint: stagingPath,
      stateDirectory,
      readOnly,
      logFile,
      logLevel: options.logLevel,
      deadlineMs: options.deadlineMs,
      arbiter: {
        socket: options.arbiterSocket,
        node,
        mount: randomUUID(),
        observes: readOnly,
        waitMs: recordWaitMs,
        ...leases.times,
      },
    });
    // A mount whose processes are all gone: its users have their errors already, and nobody can give it new ones.
    if (mounted) await unmountAndRemove(stagingPath, isOurs);
    const mine = volume.status?.holder === node;
    if (!readOnly) await claim(volumeId, signal);
    else if (holdsElsewhere(volume))
      throw new CsiError(
        "FAILED_PRECONDITION",
        `volume "${volumeId}" is in use for writing on node ${volume.status?.holder}; it can be read here when it is free`,
      );
    try {
      if (!volume.status?.initialized && volume.spec.subdirectory !== undefined) {
        await patchStatus(volumeId, { treesMade: true }, signal);
        await trees.make(volume, signal);
      }
      signal.throwIfAborted();
      prepareMountpoint(stagingPath);
      if (readOnly && !isReadable(volume)) await makeReadable(config, { signal, logger });
      await daemon.mount(config, { signal });
    } catch (error) {
      if (!readOnly && !mine && !mountAt(readMountTable(), stagingPath))
        await releaseVolume(client, leases, volumeId, node).catch((failure: unknown) =>
          logger.warn("cannot give the volume back", { volume: volumeId, error: failure }),
        );
      throw error;
    }
    const made = mountAt(readMountTable(), stagingPath);
    if (!made || !isOurs(made))
      throw new CsiError("INTERNAL", `the volume is not on ${stagingPath} after it was mounted`);
    if (!volume.status?.initialized) await patchStatus(volumeId, { initialized: true }, signal);
    watch.look();
  };

  const unstage = async ({ volumeId, stagingTargetPath }: NodeUnstageVolumeRequest, isAside: boolean) => {
    required(volumeId, "volume_id");
    const path = required(stagingTargetPath, "staging_target_path");
    const directory = mountDirectory(path, options.runDirectory);
    const mounted = mountAt(readMountTable(), path);
    if (mounted && !isOurs(mounted))
      throw new CsiError("INTERNAL", `what is on ${path} (${mounted.type}) is not Chiron's; left alone`);
    await unmountInOrder(directory);
    await unmountAndRemove(path, isOurs);
    // A mount of ours beside the one that pods use: the volume stays this node's.
    const others =
      isAside &&
      watch.mounts().some(({ record: { state, config } }) => {
        return state === "mounted" && config.volume.volume === volumeId && config.volume.mountpoint !== path;
      });
    if (others) return {};
    await watch.forget(volumeId);
    await releaseVolume(client, leases, volumeId, node);
    return {};
  };

  const publish = async (request: NodePublishVolumeRequest, context: CallContext) => {
    const volumeId = required(request.volumeId, "volume_id");
    const target = required(request.targetPath, "target_path");
    const source = required(request.stagingTargetPath, "staging_target_path");
    const capability = required(request.volumeCapability, "volume_capability");
    accessModeOf(capability);
    const readOnly = request.readonly || readsOnly(capability);
    // The kubelet asks again and again (requiresRepublish): a mount that was lost meanwhile is made anew.
    const directory = mountDirectory(source, options.runDirectory);
    if (!mountAt(readMountTable(), source))
      throw new CsiError("FAILED_PRECONDITION", `volume "${volumeId}" is not staged on ${source}`);
    if (!(await answers(directory))) await stage({ volumeId, stagingPath: source, capability }, context);
    const table = readMountTable();
    const from = mountAt(table, source);
    const there = mountAt(table, target);
    if (there && from && there.device === from.device && there.type === from.type) {
      if (there.readOnly !== readOnly)
        throw new CsiError(
          "ALREADY_EXISTS",
          `volume "${volumeId}" is published on ${target} with readonly ${there.readOnly}`,
        );
      return {};
    }
    if (there) await unmountAndRemove(target, isOurs);
    if (capability.accessMode?.mode === Mode.SINGLE_NODE_SINGLE_WRITER) {
      const elsewhere = table.find(
        ({ device, mountpoint }) => device === from?.device && mountpoint !== source && mountpoint !== target,
      );
      if (elsewhere)
        throw new CsiError(
          "FAILED_PRECONDITION",
          `volume "${volumeId}" is ReadWriteOncePod, and is in use on ${elsewhere.mountpoint}`,
        );
    }
    prepareMountpoint(target);
    try {
      bindMount({ source, target, readOnly });
    } catch (error) {
      await unmountAndRemove(target, isOurs);
      throw error;
    }
    return {};
  };

  const handlers: Handlers<NodeServer> = {
    nodeGetInfo: () => ({
      nodeId: node,
      maxVolumesPerNode: 0n,
      accessibleTopology: { segments: { [topologyKey]: node } },
    }),
    nodeGetCapabilities: () => ({
      capabilities: [
        Rpc.STAGE_UNSTAGE_VOLUME,
        Rpc.GET_VOLUME_STATS,
        Rpc.SINGLE_NODE_MULTI_WRITER,
        Rpc.GET_VOLUME_HEALTH,
      ].map((type) => ({ rpc: { type } })),
    }),
    nodeStageVolume: exclusive(
      (request: NodeStageVolumeRequest) => request.volumeId,
      translated(async (request: NodeStageVolumeRequest, context: CallContext) => {
        const volumeId = required(request.volumeId, "volume_id");
        const stagingPath = required(request.stagingTargetPath, "staging_target_path");
        await stage(
          { volumeId, stagingPath, capability: required(request.volumeCapability, "volume_capability") },
          context,
        );
        return {};
      }),
    ),
    nodeUnstageVolume: exclusive(
      (request: NodeUnstageVolumeRequest) => request.volumeId,
      translated((request: NodeUnstageVolumeRequest) => unstage(request, false)),
    ),
    nodePublishVolume: exclusive((request: NodePublishVolumeRequest) => request.volumeId, translated(publish)),
    nodeUnpublishVolume: exclusive(
      (request: NodeUnpublishVolumeRequest) => request.volumeId,
      translated(async (request: NodeUnpublishVolumeRequest) => {
        required(request.volumeId, "volume_id");
        await unmountAndRemove(required(request.targetPath, "target_path"), isOurs);
        return {};
      }),
    ),

    nodeGetVolumeStats: async (request) => {
      const volumeId = required(request.volumeId, "volume_id");
      const path = required(request.volumePath, "volume_path");
      const mounted = mountAt(readMountTable(), path);
      if (!mounted || !isOurs(mounted))
        throw new CsiError("NOT_FOUND", `volume "${volumeId}" is not mounted on ${path}`);
      // What its process has said last: the mount itself is not touched, for a volume that hangs would keep a thread.
      const status = await watch.ask(volumeId, statusTimeoutMs);
      if (!status?.space) throw new CsiError("UNAVAILABLE", `volume "${volumeId}" does not answer on ${path}`);
      const { totalBytes, freeBytes, availableBytes, files, freeFiles } = status.space;
      const usage = (unit: VolumeUsage["unit"], total: number, free: number, available: number) => ({
        unit,
        total: BigInt(total),
        used: BigInt(total - free),
        available: BigInt(available),
      });
      return {
        usage: [
          usage(VolumeUsage_Unit.BYTES, totalBytes, freeBytes, availableBytes),
          usage(VolumeUsage_Unit.INODES, files, freeFiles, freeFiles),
        ],
      };
    },

    nodeGetVolumeHealth: async (request) => {
      const volumeId = required(request.volumeId, "volume_id");
      const path = request.volumePublishPath || request.stagingTargetPath;
      const mounted = path === "" ? watch.isMounted(volumeId) : mountAt(readMountTable(), path)?.type === fuseType;
      if (!mounted) throw new CsiError("NOT_FOUND", `volume "${volumeId}" is not mounted ${path && `on ${path}`}`);
      const status = watch.statusOf(volumeId);
      const phase = status === null ? "Failed" : status.state;
      const replicas = (status?.replicas ?? []).map(({ name, state, reason, lastError }) => ({
        name,
        state,
        reason: reason ?? undefined,
        message: lastError ?? undefined,
      }));
      return { volumeHealth: volumeHealth(volumeId, phase, replicas) };
    },

    nodeExpandVolume: () => {
      throw new CsiError("UNIMPLEMENTED", "nothing is to be done on a node when a volume grows");
    },
  };
  return {
    handlers,
    aside: {
      mount: (volumeId, stagingPath, context) => stage({ volumeId, stagingPath, capability: null }, context),
      unmount: async (volumeId, stagingTargetPath) => void (await unstage({ volumeId, stagingTargetPath }, true)),
    },
  };
}

/** Whether a holder lives for this mount; without touching the mount. */
async function answers(directory: string): Promise<boolean> {
  try {
    const control = await ControlClient.connect(controlSocket(directory));
    try {
      await control.call("ping", { timeoutMs: pingTimeoutMs });
      return true;
    } finally {
      control.close();
    }
  } catch {
    return false;
  }
}

/** Through the holder, which settles everything on the replicas first. Fine if there is none. */
async function unmountInOrder(directory: string): Promise<void> {
  let control: ControlClient;
  try {
    control = await ControlClient.connect(controlSocket(directory));
  } catch {
    return;
  }
  try {
    await control.call("unmount", { timeoutMs: unmountTimeoutMs });
  } catch (error) {
    // It has ended, and with it the connection: sometimes before the answer is out.
    if (!(error instanceof FailureError && error.failure.code === "not-mounted")) throw error;
  } finally {
    control.close();
  }
}

const statuses: Readonly<Record<FailureCode, StatusName>> = {
  usage: "INTERNAL",
  "not-root": "INTERNAL",
  "no-fuse": "INTERNAL",
  mountpoint: "INTERNAL",
  replica: "UNAVAILABLE",
  identity: "FAILED_PRECONDITION",
  quorum: "UNAVAILABLE",
  adopt: "FAILED_PRECONDITION",
  busy: "ABORTED",
  lost: "UNAVAILABLE",
  state: "INTERNAL",
  "not-mounted": "UNAVAILABLE",
  internal: "INTERNAL",
};

/** What the data path and the API server say, as CSI's statuses. */
function translated<Q, A>(handle: (request: Q, context: CallContext) => Promise<A>) {
  return async (request: Q, context: CallContext): Promise<A> => {
    try {
      return await handle(request, context);
    } catch (error) {
      if (error instanceof FailureError) throw new CsiError(statuses[error.failure.code], error.message);
      if (error instanceof VolumeRefusal)
        throw new CsiError(error.retry ? "UNAVAILABLE" : "FAILED_PRECONDITION", error.message);
      throw error;
    }
  };
}

async function fromKube<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (isNotFound(error)) throw new CsiError("NOT_FOUND", (error as Error).message);
    throw new CsiError(
      error instanceof KubeError && error.code === 403 ? "PERMISSION_DENIED" : "UNAVAILABLE",
      errorText(error),
    );
  }
}
