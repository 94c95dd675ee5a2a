/**
 * The Lease of each volume that this node has mounted for writing: says who uses it, and for how long nobody else may
 * think of taking it. Renewed only when the volume's process asks for that, one call each time.
 *
 * - What another node's lease is worth is found out by watching whether it changes, never by comparing clocks.
 * - Where a volume was taken from a node that nothing shuts out, it is not used until that node's last renewal is over:
 *   the Lease remembers whom it was taken from, across restarts of this process.
 */
import { createHash } from "node:crypto";
import { replicatedVolumes, typeOfVolume } from "../api/resource.ts";
import { isConflict, isNotFound, type KubeClient, type KubeObject } from "../kube/client.ts";
import { leases } from "../kube/resources.ts";
import type { LeaseTimes } from "../volume/protocol.ts";
import type { VolumeObject } from "./volume-holder.ts";

export interface VolumeLeaseObject extends KubeObject {
  readonly spec: {
    readonly holderIdentity?: string | null;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string | null;
    readonly renewTime?: string | null;
    readonly leaseTransitions?: number;
  };
}

export interface VolumeLeasesOptions {
  readonly namespace: string;
  readonly node: string;
  readonly times: LeaseTimes;
  readonly nowMs?: () => number;
}

interface CallOptions {
  readonly signal: AbortSignal;
}

const takenFrom = "chiron.storage/taken-from";
const attempts = 5;

export class VolumeLeases {
  readonly #client: KubeClient;
  readonly #options: Required<VolumeLeasesOptions>;
  /** As they were when we wrote them last. */
  readonly #ours = new Map<string, VolumeLeaseObject>();
  /** When somebody's lease was first seen as it is. */
  readonly #seen = new Map<string, { readonly version: string; readonly atMs: number }>();

  constructor(client: KubeClient, options: VolumeLeasesOptions) {
    this.#client = client;
    this.#options = { nowMs: () => performance.now(), ...options };
  }

  get times(): LeaseTimes {
    return this.#options.times;
  }

  /** How long it has not changed under our eyes. */
  async unchangedMs(volume: string, options: CallOptions): Promise<number> {
    const lease = await this.#find(volume, options);
    return this.#unchanged(volume, lease?.metadata.resourceVersion ?? "none");
  }

  /**
   * It is ours from now on. Answers for how long it must not be used yet, since the node that it was taken from may
   * still be writing.
   */
  async take(volume: VolumeObject, from: string | null, options: CallOptions): Promise<number> {
    const { name } = volume.metadata;
    for (let attempt = 0; attempt < attempts; attempt++) {
      const lease = await this.#find(name, options);
      const waits = from ?? lease?.metadata.annotations?.[takenFrom] ?? "";
      try {
        const taken =
          lease !== null && lease.spec.holderIdentity === this.#options.node && from === null
            ? lease
            : await this.#write(volume, lease, waits, options);
        this.#ours.set(name, taken);
        if (waits === "") return 0;
        const passedMs = this.#unchanged(name, taken.metadata.resourceVersion ?? "");
        return Math.max(0, this.#options.times.leaseMs - passedMs);
      } catch (error) {
        if (!isConflict(error)) throw error;
      }
    }
    throw new Error(`the lease of volume "${name}" changes too often`);
  }

  /** Answers whether it is ours. */
  async renew(volume: string, options: CallOptions): Promise<boolean> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      const lease = this.#ours.get(volume) ?? (await this.#find(volume, options));
      this.#ours.delete(volume);
      if (lease !== null && lease.spec.holderIdentity !== this.#options.node) return false;
      try {
        // One that is gone is made again, if the volume is still this node's.
        const object =
          lease === null
            ? await this.#client.get<VolumeObject>(replicatedVolumes, volume, undefined, options)
            : { metadata: { name: volume } };
        if (lease === null && (object as VolumeObject).status?.holder !== this.#options.node) return false;
        this.#ours.set(volume, await this.#write(object as VolumeObject, lease, "", options));
        return true;
      } catch (error) {
        if (!isConflict(error) && !isNotFound(error)) throw error;
        if (isNotFound(error) && lease === null) return false;
      }
    }
    throw new Error(`the lease of volume "${volume}" changes too often`);
  }

  /** Nobody has to wait for it any more. Fine if it is not ours. */
  async release(volume: string, options: CallOptions): Promise<void> {
    this.#ours.delete(volume);
    this.#seen.delete(volume);
    const lease = await this.#find(volume, options);
    const { uid } = lease?.metadata ?? {};
    if (lease?.spec.holderIdentity !== this.#options.node || uid === undefined) return;
    await this.#client.delete(leases, leaseName(volume), this.#options.namespace, { uid }, options);
  }

  #unchanged(volume: string, version: string): number {
    const now = this.#options.nowMs();
    const seen = this.#seen.get(volume);
    if (seen?.version === version) return now - seen.atMs;
    this.#seen.set(volume, { version, atMs: now });
    return 0;
  }

  async #find(volume: string, options: CallOptions): Promise<VolumeLeaseObject | null> {
    return await this.#client.find<VolumeLeaseObject>(leases, leaseName(volume), this.#options.namespace, options);
  }

  async #write(
    volume: VolumeObject,
    before: VolumeLeaseObject | null,
    from: string,
    options: CallOptions,
  ): Promise<VolumeLeaseObject> {
    const { node, namespace, times } = this.#options;
    const now = new Date().toISOString().replace("Z", "000Z");
    const same = before?.spec.holderIdentity === node;
    const spec = {
      holderIdentity: node,
      leaseDurationSeconds: Math.max(1, Math.round(times.leaseMs / 1000)),
      acquireTime: same ? (before?.spec.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: (before?.spec.leaseTransitions ?? 0) + (before === null || same ? 0 : 1),
    };
    const { name, uid = "" } = volume.metadata;
    const annotations = { [takenFrom]: from };
    if (before !== null) {
      const metadata = { ...before.metadata, annotations };
      return await this.#client.replace<VolumeLeaseObject>(leases, { ...before, metadata, spec }, undefined, options);
    }
    return await this.#client.create<VolumeLeaseObject>(
      leases,
      {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: {
          name: leaseName(name),
          namespace,
          annotations,
          labels: { "app.kubernetes.io/managed-by": "chiron" },
          // Goes with its volume.
          ownerReferences: [{ apiVersion: typeOfVolume.apiVersion, kind: typeOfVolume.kind, name, uid }],
        } as VolumeLeaseObject["metadata"],
        spec,
      },
      options,
    );
  }
}

/** Names of volumes may be as long as those of leases. */
export function leaseName(volume: string): string {
  const name = `chiron-volume-${volume}`;
  if (name.length <= 253) return name;
  return `chiron-volume-${volume.slice(0, 200)}-${createHash("sha256").update(volume).digest("hex").slice(0, 16)}`;
}
