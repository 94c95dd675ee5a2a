/**
 * One leader at a time, by a Lease, as client-go does it: a lease lasts 15 s from when we *saw* it change (clocks of
 * machines are never compared), its holder renews it every 2 s, and stops leading when it could not for 10 s.
 */
import type { Logger } from "../util/logger.ts";
import { isConflict, isNotFound, type KubeClient, KubeError, type KubeObject } from "./client.ts";
import { sleep } from "./informer.ts";
import { leases } from "./resources.ts";

interface Lease extends KubeObject {
  readonly spec: {
    readonly holderIdentity?: string | null;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string | null;
    readonly renewTime?: string | null;
    readonly leaseTransitions?: number;
  };
}

export interface LeaderElectionOptions {
  readonly namespace: string;
  readonly name: string;
  /** Of this process, unique. */
  readonly identity: string;
  readonly logger: Logger;
  readonly leaseMs?: number;
  readonly renewDeadlineMs?: number;
  readonly retryMs?: number;
}

export class LeaderElection {
  readonly #client: KubeClient;
  readonly #options: Required<LeaderElectionOptions>;
  readonly #abort = new AbortController();
  #seen: { readonly version: string; readonly atMs: number } | null = null;
  #leading = false;

  constructor(client: KubeClient, options: LeaderElectionOptions) {
    this.#client = client;
    this.#options = { leaseMs: 15_000, renewDeadlineMs: 10_000, retryMs: 2_000, ...options };
  }

  get leading(): boolean {
    return this.#leading;
  }

  /**
   * Waits to become the leader, runs `lead`, and resolves when that has ended: `lead`'s signal aborts when leadership
   * is lost or `stop` is called. A process that lost it exits: what it still had in flight must not go on.
   */
  async run(lead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { logger, identity, retryMs, renewDeadlineMs } = this.#options;
    const stopped = this.#abort.signal;
    while (!stopped.aborted && !(await this.#try())) await sleep(retryMs, stopped);
    if (stopped.aborted) return;
    this.#leading = true;
    logger.info("leading", { identity });
    const lost = new AbortController();
    const led = lead(AbortSignal.any([stopped, lost.signal])).finally(() => lost.abort(new Error("it has ended")));
    let renewedMs = performance.now();
    while (!stopped.aborted && !lost.signal.aborted) {
      await sleep(retryMs, AbortSignal.any([stopped, lost.signal]));
      if (stopped.aborted || lost.signal.aborted) break;
      if (await this.#try()) renewedMs = performance.now();
      else if (performance.now() - renewedMs > renewDeadlineMs) {
        logger.error("leadership lost", { identity });
        lost.abort(new Error("leadership lost"));
      }
    }
    this.#leading = false;
    await led;
    if (stopped.aborted) await this.#release();
  }

  stop(): void {
    this.#abort.abort(new Error("stopping"));
  }

  /** Takes or renews the lease; answers whether it is ours now. */
  async #try(): Promise<boolean> {
    const { namespace, name, identity, leaseMs, renewDeadlineMs, logger } = this.#options;
    const signal = AbortSignal.timeout(renewDeadlineMs);
    const now = new Date().toISOString().replace("Z", "000Z");
    const spec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.round(leaseMs / 1000),
      acquireTime: now,
      renewTime: now,
      leaseTransitions: 0,
    };
    try {
      const lease = await this.#client.find<Lease>(leases, name, namespace, { signal });
      if (lease === null) {
        await this.#client.create<Lease>(leases, { ...leaseObject(namespace, name), spec }, { signal });
        return true;
      }
      const version = lease.metadata.resourceVersion ?? "";
      if (this.#seen?.version !== version) this.#seen = { version, atMs: performance.now() };
      const holder = lease.spec.holderIdentity ?? "";
      const mine = holder === identity;
      if (!mine && holder !== "" && performance.now() - this.#seen.atMs < leaseMs) return false;
      const transitions = (lease.spec.leaseTransitions ?? 0) + (mine ? 0 : 1);
      const acquireTime = mine ? (lease.spec.acquireTime ?? now) : now;
      await this.#client.replace<Lease>(
        leases,
        { ...lease, spec: { ...spec, acquireTime, leaseTransitions: transitions } },
        undefined,
        { signal },
      );
      return true;
    } catch (error) {
      const taken = isConflict(error) || (error instanceof KubeError && error.reason === "AlreadyExists");
      if (!taken) logger.warn("cannot take or renew the lease", { name, error });
      return false;
    }
  }

  /** So that the next one need not wait for the lease's end. */
  async #release(): Promise<void> {
    const { namespace, name, identity, logger } = this.#options;
    try {
      const signal = AbortSignal.timeout(2_000);
      const lease = await this.#client.get<Lease>(leases, name, namespace, { signal });
      if (lease.spec.holderIdentity !== identity) return;
      await this.#client.replace<Lease>(
        leases,
        { ...lease, spec: { ...lease.spec, holderIdentity: "", leaseDurationSeconds: 1 } },
        undefined,
        { signal },
      );
    } catch (error) {
      if (!isNotFound(error) && !isConflict(error)) logger.warn("cannot release the lease", { name, error });
    }
  }
}

const leaseObject = (namespace: string, name: string) => ({
  apiVersion: "coordination.k8s.io/v1",
  kind: "Lease",
  metadata: { name, namespace },
});
