/**
 * Keeps each ReplicatedVolume's PersistentVolume, status and finalizer as `volume-plan.ts` and `volume-status.ts` decide.
 * A volume is looked at when it, its PersistentVolume or a volume or claim behind a replica changes, and when a node's
 * report becomes stale. At rest it costs no calls.
 */
import { isDeepStrictEqual } from "node:util";
import { csiDriverName, provisionedLabel, removalLabel, volumeFinalizer } from "../api/names.ts";
import type { ReplicatedVolume, ReplicatedVolumeStatus } from "../api/replicated-volume.ts";
import { replicatedVolumes, typeOfVolume } from "../api/resource.ts";
import { isConflict, isNotFound, type KubeClient, KubeError, type KubeObject } from "../kube/client.ts";
import type { EventRecorder } from "../kube/events.ts";
import { Informer } from "../kube/informer.ts";
import { persistentVolumeClaims, persistentVolumes } from "../kube/resources.ts";
import { WorkQueue } from "../kube/work-queue.ts";
import type { Logger } from "../util/logger.ts";
import { type Resolved, resolveBackend } from "./backends.ts";
import type { MeasuredController } from "./controller-metrics.ts";
import type { PersistentVolume, PersistentVolumeClaim } from "./objects.ts";
import { ReportAges } from "./report-ages.ts";
import { newsBetween } from "./volume-events.ts";
import { planVolume, type Step } from "./volume-plan.ts";
import { type ControllerStatus, deriveStatus, nextStaleMs } from "./volume-status.ts";

export const controllerManager = "chiron-controller";

export type VolumeObject = ReplicatedVolume & KubeObject;

export interface ReconcilerOptions {
  readonly logger: Logger;
  readonly events: EventRecorder;
  /** A node that reported nothing for so long counts as gone. */
  readonly staleAfterMs: number;
  readonly workers?: number;
  /** Names of a volume's snapshots. */
  readonly snapshotsOf?: (volume: string) => readonly string[];
}

export class Reconciler {
  readonly #client: KubeClient;
  readonly #options: ReconcilerOptions;
  readonly #volumes: Informer<VolumeObject>;
  readonly #pvs: Informer<PersistentVolume>;
  readonly #queue: WorkQueue;
  /** Which volumes have a replica on this PersistentVolume or claim. */
  readonly #users = new Map<string, Set<string>>();
  readonly #ages = new ReportAges({ nowMs: () => Date.now(), monotonicMs: () => performance.now() });
  #started = false;

  constructor(client: KubeClient, options: ReconcilerOptions) {
    this.#client = client;
    this.#options = options;
    const { logger } = options;
    this.#queue = new WorkQueue((name) => this.#reconcile(name), { workers: options.workers ?? 4, logger });
    this.#volumes = new Informer<VolumeObject>(
      client,
      replicatedVolumes,
      (now, before) => this.#onVolume(now, before),
      { logger },
    );
    this.#pvs = new Informer<PersistentVolume>(client, persistentVolumes, (now, before) => this.#onPv(now ?? before), {
      logger,
    });
  }

  /** Resolves when the first lists are complete and the workers run. */
  async start(): Promise<void> {
    this.#volumes.start();
    this.#pvs.start();
    await Promise.all([this.#volumes.synced(), this.#pvs.synced()]);
    this.#started = true;
    this.#queue.start();
  }

  async stop(): Promise<void> {
    await this.#queue.stop();
    await Promise.all([this.#volumes.stop(), this.#pvs.stop()]);
  }

  get ready(): boolean {
    return this.#volumes.hasSynced && this.#pvs.hasSynced;
  }

  /** Something that the volume depends on has changed. */
  look(name: string): void {
    if (this.#volumes.get(name)) this.#queue.add(name);
  }

  #onVolume(now: VolumeObject | null, before: VolumeObject | null): void {
    const name = (now ?? before)?.metadata.name ?? "";
    for (const users of this.#users.values()) users.delete(name);
    for (const { persistentVolume } of now?.spec.replicas ?? [])
      if (persistentVolume) {
        const users = this.#users.get(persistentVolume.name) ?? new Set();
        this.#users.set(persistentVolume.name, users.add(name));
      }
    if (now) {
      this.#ages.dated(name, now.status?.nodes ?? [], !this.#started);
      this.#queue.add(name);
    } else this.#ages.forget(name);
  }

  #onPv(pv: PersistentVolume | null): void {
    if (!pv) return;
    if (pv.spec.csi?.driver === csiDriverName) this.#queue.add(pv.spec.csi.volumeHandle);
    for (const user of this.#users.get(pv.metadata.name) ?? []) this.#queue.add(user);
    // A PV of our volume's name that is somebody else's is a reason too.
    if (this.#volumes.get(pv.metadata.name)) this.#queue.add(pv.metadata.name);
  }

  async #reconcile(name: string): Promise<number | undefined> {
    const volume = this.#volumes.get(name);
    if (!volume) return undefined;
    try {
      return await this.#reconcileVolume(volume);
    } catch (error) {
      // Somebody else was faster: the informer tells of it, and this key comes again.
      if (isConflict(error) || isNotFound(error)) return 1_000;
      throw error;
    }
  }

  async #reconcileVolume(found: VolumeObject): Promise<number | undefined> {
    const { logger, staleAfterMs } = this.#options;
    const volume = this.#dated(found);
    const nowMs = Date.now();
    const backends = await this.#resolve(volume);
    const pv = this.#pvs.get(volume.metadata.name) ?? null;
    const snapshots = this.#options.snapshotsOf?.(volume.metadata.name) ?? [];
    const plan = planVolume({ volume, backends, pv, snapshots, nowMs, staleAfterMs });
    let made = pv;
    for (const step of plan.steps) {
      logger.info("step", { volume: volume.metadata.name, step: step.kind });
      made = (await this.#do(step, volume)) ?? made;
    }
    if (plan.steps.some(({ kind }) => kind === "remove-finalizer")) return undefined;
    const claim = made?.spec.claimRef;
    const status = deriveStatus({
      volume,
      backends,
      hasPersistentVolume: made !== null || volume.metadata.labels?.[provisionedLabel] !== undefined,
      claim: claim ? `${claim.namespace}/${claim.name}` : null,
      problem: plan.problem,
      removeTrees: plan.removeTrees,
      nowMs,
      staleAfterMs,
    });
    if (plan.waiting !== null) await this.#tell(volume, "Normal", "DeletionWaits", plan.waiting);
    await this.#writeStatus(volume, status);
    const waits = [nextStaleMs(volume.status?.nodes ?? [], nowMs, staleAfterMs)];
    // Claims are not watched: there may be very many, and few volumes stand on one.
    const unresolved = [...backends.values()].some((backend) => backend.kind === "problem" && !backend.final);
    waits.push(unresolved ? 15_000 : null);
    const next = waits.filter((ms) => ms !== null);
    return next.length === 0 ? undefined : Math.min(...next);
  }

  /** With its nodes' reports dated by our own clock. */
  #dated(volume: VolumeObject): VolumeObject {
    const nodes = volume.status?.nodes;
    if (nodes === undefined) return volume;
    const dated = this.#ages.dated(volume.metadata.name, nodes, false);
    return { ...volume, status: { ...volume.status, nodes: dated } };
  }

  measure(): Pick<MeasuredController, "phases" | "queued" | "failures"> {
    const phases = new Map(
      [...this.#volumes.values()].map(({ metadata, status }) => [metadata.name, status?.phase ?? "Pending"]),
    );
    return { phases, queued: this.#queue.length, failures: this.#queue.failed };
  }

  async #resolve(volume: VolumeObject): Promise<Map<string, Resolved>> {
    const claims = new Map<string, PersistentVolumeClaim | null>();
    for (const { persistentVolumeClaim: claim } of volume.spec.replicas)
      if (claim)
        claims.set(
          `${claim.namespace}/${claim.name}`,
          await this.#client.find<PersistentVolumeClaim>(persistentVolumeClaims, claim.name, claim.namespace),
        );
    const lookup = {
      persistentVolume: (name: string) => this.#pvs.get(name) ?? null,
      persistentVolumeClaim: (namespace: string, name: string) => claims.get(`${namespace}/${name}`) ?? null,
    };
    return new Map(volume.spec.replicas.map((replica) => [replica.name, resolveBackend(replica, lookup)]));
  }

  async #do(step: Step, volume: VolumeObject): Promise<PersistentVolume | null> {
    const { name, resourceVersion, finalizers = [] } = volume.metadata;
    const setFinalizers = (wanted: readonly string[]) =>
      this.#client.mergePatch(replicatedVolumes, name, { metadata: { resourceVersion, finalizers: wanted } });
    switch (step.kind) {
      case "add-finalizer":
        await setFinalizers([...finalizers, volumeFinalizer]);
        return null;
      case "remove-finalizer":
        await setFinalizers(finalizers.filter((finalizer) => finalizer !== volumeFinalizer));
        return null;
      case "label-removal":
        await this.#client.mergePatch(replicatedVolumes, name, {
          metadata: { labels: { [removalLabel]: "requested" } },
        });
        return null;
      case "create-pv":
        return await this.#client.create(persistentVolumes, await this.#withClaim(step.pv)).catch((error: unknown) => {
          if (error instanceof KubeError && error.reason === "AlreadyExists") return null;
          throw error;
        });
      case "patch-pv":
        return await this.#client.mergePatch<PersistentVolume>(persistentVolumes, name, step.patch);
      case "delete-pv":
        await this.#client.delete(persistentVolumes, name);
        return null;
    }
  }

  /** A claim that waits already is bound at once if it is named with its uid, and up to 15 s later if it is not. */
  async #withClaim(pv: PersistentVolume): Promise<PersistentVolume> {
    const { claimRef } = pv.spec;
    if (!claimRef) return pv;
    const claim = await this.#client.find<PersistentVolumeClaim>(
      persistentVolumeClaims,
      claimRef.name,
      claimRef.namespace,
    );
    const uid = claim?.metadata.uid;
    if (uid === undefined || claim?.spec.volumeName) return pv;
    return { ...pv, spec: { ...pv.spec, claimRef: { ...claimRef, uid } } };
  }

  async #writeStatus(volume: VolumeObject, status: ControllerStatus): Promise<void> {
    if (isDeepStrictEqual(ownPart(volume.status), status)) return;
    const { name } = volume.metadata;
    const applied = { ...typeOfVolume, metadata: { name }, status } as unknown as VolumeObject;
    await this.#client.apply(replicatedVolumes, applied, controllerManager, "status");
    for (const { type, reason, message } of newsBetween(volume.status, status))
      await this.#tell(volume, type, reason, message);
  }

  async #tell(volume: VolumeObject, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    await this.#options.events.record({ ...volume, ...typeOfVolume }, type, reason, message);
  }
}

/** The fields that `deriveStatus` decides, so that nothing is written when nothing has changed. */
function ownPart(status: ReplicatedVolumeStatus | undefined): ControllerStatus {
  const own: Record<string, unknown> = {};
  for (const field of [
    "phase",
    "observedGeneration",
    "inSyncReplicas",
    "syncProgress",
    "claim",
    "removeTrees",
    "replicas",
    "conditions",
  ] as const)
    if (status?.[field] !== undefined) own[field] = status[field];
  return own as ControllerStatus;
}
