/**
 * Looks after the volumes that are mounted on this node: asks each holder how its volume is, tells the API server when
 * that is news, and hands on what was changed in `spec.replicas`. What is mounted it finds in the registry of mounts, so
 * it knows after a restart what it knew before.
 */

import { setTimeout as delay } from "node:timers/promises";
import { nextTime, parseSchedule } from "../api/cron.ts";
import { quantityToBytes } from "../api/quantity.ts";
import type { NodeReport } from "../api/replicated-volume.ts";
import { replicatedVolumes, typeOfVolume } from "../api/resource.ts";
import { isNotFound, type KubeClient } from "../kube/client.ts";
import { Informer } from "../kube/informer.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { ControlClient } from "../volume/control-client.ts";
import type { VerifyReport, VolumeStatus } from "../volume/protocol.ts";
import { controlSocket, listMounts, type RegistryEntry } from "../volume/registry.ts";
import type { MeasuredVolume } from "./node-metrics.ts";
import { type NodeFacts, replicaConfigs } from "./volume-config.ts";
import type { VolumeObject } from "./volume-holder.ts";
import { isWorthReporting, nextReplicaChange, reportOf } from "./volume-report.ts";

export interface VolumeWatchOptions {
  readonly facts: NodeFacts;
  readonly logger: Logger;
  readonly runDirectory: string;
  /** Only mounts below this directory are ours: others are of people who use this machine by hand. */
  readonly kubeletDirectory: string;
  /** Told of what is mounted, to keep the descriptors. */
  readonly vault: { update(mounts: readonly RegistryEntry[]): void };
  readonly periodMs?: number;
  readonly heartbeatMs?: number;
  readonly progressMs?: number;
}

interface Watched {
  readonly volume: string;
  directory: string;
  client: ControlClient | null;
  status: VolumeStatus | null;
  restarts: number;
  reported: NodeReport | null;
  readOnly: boolean;
  /** The visit that is going on. */
  visit: Promise<void> | null;
  /** Why `spec.replicas` is not carried out, and when to try again. */
  /** When the volume is verified next (`spec.scrub`), for the schedule that it was worked out from. */
  scrub: { readonly schedule: string; readonly atMs: number | null } | null;
  scrubbing: boolean;
  problem: { readonly message: string; readonly untilMs: number } | null;
  readonly informer: Informer<VolumeObject>;
}

const callTimeoutMs = 5_000;
const changeTimeoutMs = 60_000;
const changeRetryMs = 30_000;

export class VolumeWatch {
  readonly #client: KubeClient;
  readonly #options: Required<VolumeWatchOptions>;
  readonly #watched = new Map<string, Watched>();
  readonly #leaving = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;

  constructor(client: KubeClient, options: VolumeWatchOptions) {
    this.#client = client;
    this.#options = { periodMs: 2_000, heartbeatMs: 240_000, progressMs: 5_000, ...options };
  }

  start(): void {
    const turn = () => {
      this.look();
      if (!this.#stopped) this.#timer = setTimeout(turn, this.#options.periodMs);
    };
    turn();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer) clearTimeout(this.#timer);
    await Promise.all([...this.#watched.keys()].map((volume) => this.#leave(volume)));
  }

  /** What is known of a volume here, without asking anybody; null if it is not mounted. */
  statusOf(volume: string): VolumeStatus | null {
    return this.#watched.get(volume)?.status ?? null;
  }

  /** Asks now, and answers what was known before where the volume takes longer than this. */
  async ask(volume: string, timeoutMs: number): Promise<VolumeStatus | null> {
    this.look();
    await Promise.race([this.#watched.get(volume)?.visit, delay(timeoutMs, undefined, { ref: false })]);
    return this.statusOf(volume);
  }

  measure(): MeasuredVolume[] {
    return [...this.#watched.values()].map(({ volume, status, restarts }) => ({ volume, status, restarts }));
  }

  isMounted(volume: string): boolean {
    return this.mounts().some(({ record }) => record.state === "mounted" && record.config.volume.volume === volume);
  }

  mounts(): readonly RegistryEntry[] {
    const { runDirectory, kubeletDirectory } = this.#options;
    return listMounts(runDirectory).filter(({ record }) =>
      record.config.volume.mountpoint.startsWith(`${kubeletDirectory}/`),
    );
  }

  /** Looks at once: something was mounted or unmounted. */
  look(): void {
    const entries = this.mounts().filter(({ record }) => record.state === "mounted");
    this.#options.vault.update(entries);
    for (const { directory, record } of entries) {
      const { volume, options } = record.config.volume;
      let watched = this.#watched.get(volume);
      if (!watched) {
        watched = this.#watch(volume, directory, options.includes("ro"));
        this.#watched.set(volume, watched);
      }
      watched.directory = directory;
      watched.visit ??= this.#visit(watched).finally(() => {
        watched.visit = null;
      });
    }
    const mounted = new Set(entries.map(({ record }) => record.config.volume.volume));
    for (const volume of this.#watched.keys()) if (!mounted.has(volume)) void this.#vanished(volume);
  }

  /** Another node has the volume, or somebody has unmounted it by hand: what this node said of it counts no more. */
  async #vanished(volume: string): Promise<void> {
    try {
      await this.#leave(volume);
      if (!this.#watched.has(volume)) await this.#apply(volume, null);
    } catch (error) {
      this.#options.logger.warn("cannot take a report back", { volume, error });
    }
  }

  /** The volume was unmounted in order: what this node said of it is taken back. */
  async forget(volume: string): Promise<void> {
    await this.#leave(volume);
    await this.#apply(volume, null);
  }

  #watch(volume: string, directory: string, readOnly: boolean): Watched {
    const informer = new Informer<VolumeObject>(this.#client, replicatedVolumes, () => this.look(), {
      logger: this.#options.logger,
      fieldSelector: `metadata.name=${volume}`,
    });
    informer.start();
    return {
      volume,
      directory,
      client: null,
      status: null,
      restarts: 0,
      reported: null,
      readOnly,
      visit: null,
      scrub: null,
      scrubbing: false,
      problem: null,
      informer,
    };
  }

  /** Resolves when nothing of this volume is under way any more, whoever began to leave it. */
  #leave(volume: string): Promise<void> {
    const watched = this.#watched.get(volume);
    if (!watched) return this.#leaving.get(volume) ?? Promise.resolve();
    this.#watched.delete(volume);
    const left = this.#end(watched).finally(() => {
      if (this.#leaving.get(volume) === left) this.#leaving.delete(volume);
    });
    this.#leaving.set(volume, left);
    return left;
  }

  async #end(watched: Watched): Promise<void> {
    watched.client?.close();
    await watched.informer.stop();
    // A report that is under way would come after the one that takes it back.
    await watched.visit;
  }

  /** One at a time for each volume; a holder that hangs delays nobody else. */
  async #visit(watched: Watched): Promise<void> {
    const { logger, facts } = this.#options;
    try {
      watched.status = await this.#ask(watched);
      await this.#change(watched);
      this.#scrubWhenDue(watched);
      const report = reportOf(
        facts.node,
        watched.status,
        watched.readOnly,
        watched.problem?.message ?? null,
        Date.now(),
      );
      const isStillHere = this.#watched.get(watched.volume) === watched;
      if (isStillHere && isWorthReporting(watched.reported, report, this.#options)) {
        if (await this.#apply(watched.volume, report)) watched.reported = report;
      }
    } catch (error) {
      logger.warn("cannot report on a volume", { volume: watched.volume, error });
    }
  }

  async #ask(watched: Watched): Promise<VolumeStatus | null> {
    try {
      watched.client ??= await ControlClient.connect(controlSocket(watched.directory));
      const { restarts } = (await watched.client.call("ping", { timeoutMs: callTimeoutMs })) as {
        readonly restarts: number;
      };
      watched.restarts = restarts;
      return (await watched.client.call("status", { timeoutMs: callTimeoutMs })) as VolumeStatus;
    } catch (error) {
      watched.client?.close();
      watched.client = null;
      this.#options.logger.debug("no status", { volume: watched.volume, error: errorText(error) });
      return null;
    }
  }

  /** A volume that was expanded may hold more from now on. */
  async #resize({ volume, status, client }: Watched, wanted: VolumeObject): Promise<void> {
    const capacityBytes = Number(quantityToBytes(wanted.spec.capacity));
    if (status?.capacityBytes === undefined || status.capacityBytes === capacityBytes) return;
    this.#options.logger.info("resized", { volume, capacityBytes });
    await client?.call("resize", { params: { capacityBytes }, timeoutMs: callTimeoutMs });
  }

  async #change(watched: Watched): Promise<void> {
    const wanted = watched.informer.get(watched.volume);
    if (!wanted || !watched.status || !watched.client || wanted.metadata.deletionTimestamp !== undefined) return;
    const { logger, facts } = this.#options;
    await this.#resize(watched, wanted);
    let configs: ReturnType<typeof replicaConfigs>;
    try {
      configs = replicaConfigs(wanted, facts);
    } catch {
      return; // the controller says in the volume's status what is wrong with a new replica
    }
    const change = nextReplicaChange(wanted, configs, watched.status);
    if (!change) watched.problem = null;
    if (!change || performance.now() < (watched.problem?.untilMs ?? 0)) return;
    logger.info("replica change", { volume: watched.volume, change: change.kind, replica: change.name });
    const params =
      change.kind === "add" ? { replica: change.name, path: change.url, slow: change.slow } : { replica: change.name };
    try {
      await watched.client.call(change.kind === "add" ? "replica.add" : "replica.remove", {
        params,
        timeoutMs: changeTimeoutMs,
      });
      watched.problem = null;
    } catch (error) {
      const message = `cannot ${change.kind} replica "${change.name}": ${errorText(error)}`;
      logger.warn("replica change failed", { volume: watched.volume, error });
      watched.problem = { message, untilMs: performance.now() + changeRetryMs };
    }
  }

  /** Begins a verification when its time has come; only one node does, the one that may write. */
  #scrubWhenDue(watched: Watched): void {
    const schedule = watched.informer.get(watched.volume)?.spec.scrub?.schedule ?? null;
    if (schedule === null || watched.readOnly) {
      watched.scrub = null;
      return;
    }
    const nowMs = Date.now();
    if (watched.scrub?.schedule !== schedule) watched.scrub = { schedule, atMs: this.#nextScrub(schedule, nowMs) };
    if (watched.scrub.atMs === null || nowMs < watched.scrub.atMs || watched.scrubbing) return;
    watched.scrub = { schedule, atMs: this.#nextScrub(schedule, nowMs) };
    watched.scrubbing = true;
    void this.#scrub(watched).finally(() => {
      watched.scrubbing = false;
    });
  }

  async #scrub({ volume, directory }: Watched): Promise<void> {
    const { logger } = this.#options;
    try {
      // A connection of its own, without a deadline: comparing everything takes as long as it takes.
      const client = await ControlClient.connect(controlSocket(directory));
      try {
        const report = (await client.call("verify", { params: { full: true, repair: false } })) as VerifyReport;
        const { filesCompared, bytesCompared, differences } = report;
        const facts = { volume, filesCompared, bytesCompared, differences: differences.length };
        if (differences.length === 0) logger.info("verified", facts);
        else logger.error("replicas differ", { ...facts, first: differences.slice(0, 10) });
      } finally {
        client.close();
      }
    } catch (error) {
      logger.warn("cannot verify", { volume, error });
    }
  }

  #nextScrub(schedule: string, nowMs: number): number | null {
    try {
      return nextTime(parseSchedule(schedule), nowMs);
    } catch (error) {
      this.#options.logger.warn("cannot verify: the schedule is wrong", { schedule, error });
      return null;
    }
  }

  /** Answers false when the volume is gone. */
  async #apply(volume: string, report: NodeReport | null): Promise<boolean> {
    const status = report ? { nodes: [report] } : {};
    const object = { ...typeOfVolume, metadata: { name: volume }, status } as unknown as VolumeObject;
    try {
      await this.#client.apply(
        replicatedVolumes,
        object,
        `chiron-node-${this.#options.facts.node}`.slice(0, 128),
        "status",
      );
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }
}
