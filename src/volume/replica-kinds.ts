/** From the configuration of a replica to the replica: which kind, and where its calls run. */

import type { VolumeMetrics } from "../metrics/volume-metrics.ts";
import { chooseRun } from "../replica/choose-run.ts";
import { withDeadline } from "../replica/deadline.ts";
import { LocalReplica } from "../replica/local.ts";
import { openNfsReplica } from "../replica/nfs-open.ts";
import { OffloadedReplica } from "../replica/offload.ts";
import { isRemoteReplicaUrl, openRemoteReplica } from "../replica/remote-open.ts";
import type { Replica } from "../replica/replica.ts";
import type { Logger } from "../util/logger.ts";
import { measured } from "./measured.ts";
import type { ReplicaConfig } from "./protocol.ts";
import type { StatePageWriter } from "./state-page.ts";

export interface ReplicaKindDeps {
  readonly page: StatePageWriter;
  readonly logger: Logger;
  readonly deadlineMs: number;
  /** Of this mount alone. */
  readonly privateDirectory: string;
  /** null where nobody asks for figures: then they cost nothing. */
  readonly metrics: VolumeMetrics | null;
  /** May a session that a server ended be made anew? Asked before and after; null: always. */
  readonly mayResume: (() => Promise<boolean>) | null;
  /** A server says that another process has taken its replica over. */
  readonly onFenced: () => void;
}

/** Reached over the network by a client of ours, with deadlines of its own; no directory of this machine. */
export function isRemoteUrl(url: string): boolean {
  return url.startsWith("nfs://") || isRemoteReplicaUrl(url);
}

/** `index`: where the status page shows its calls. */
export function makeReplica(config: ReplicaConfig, index: number, deps: ReplicaKindDeps): Replica {
  const replica = unmeasured(config, index, deps);
  if (deps.metrics === null) return replica;
  return measured(replica, deps.metrics.replica(config.name), {
    except: ["connect", "disconnect", "forget", "probe", "makeRoot", "settleLateCalls"],
    withBytes: ["read", "write", "copyRange"],
  });
}

function unmeasured(config: ReplicaConfig, index: number, deps: ReplicaKindDeps): Replica {
  const { name, url } = config;
  if (isRemoteReplicaUrl(url)) return withDeadline(openRemoteReplica(name, url), deps.deadlineMs);
  const onThreadCalls = (calls: number): void => deps.page.threadCalls(index, calls);
  if (isRemoteUrl(url)) {
    const nfs = openNfsReplica(name, url, {
      deadlineMs: deps.deadlineMs,
      privateDirectory: deps.privateDirectory,
      onThreadCalls,
      logger: deps.logger.child({ replica: name }),
      onFenced: deps.onFenced,
      ...(deps.mayResume === null ? {} : { mayResume: deps.mayResume }),
    });
    return withDeadline(nfs, deps.deadlineMs);
  }
  const run = config.run === "auto" ? chooseRun(url) : config.run;
  // Cold reads and flushes of a local replica do not run on the loop either, and may hang.
  const local =
    run === "threads"
      ? new OffloadedReplica({ name, path: url, onThreadCalls })
      : new LocalReplica({ name, path: url, busy: deps.page.loopCalls(index), onThreadCalls });
  return withDeadline(local, deps.deadlineMs);
}
