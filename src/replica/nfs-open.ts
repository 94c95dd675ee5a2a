/** An NFS replica from its URL, by our own client or the kernel's. Throws an error for people where the URL says nothing useful. */
import { parseNfsUrl } from "../nfs/url.ts";
import { KernelNfsReplica } from "./nfs-kernel.ts";
import { NfsReplica, type NfsReplicaOptions } from "./nfs-replica.ts";
import type { Replica } from "./replica.ts";

export interface OpenNfsOptions extends NfsReplicaOptions {
  readonly deadlineMs: number;
  /** For the kernel's client: a directory of this process alone. */
  readonly privateDirectory: string;
  /** For the kernel's client, too: see `OffloadedReplicaOptions`. */
  readonly onThreadCalls: (calls: number) => void;
}

export function openNfsReplica(name: string, url: string, options: OpenNfsOptions): Replica {
  const target = parseNfsUrl(url);
  const { privateDirectory, deadlineMs, onThreadCalls, ...others } = options;
  if (target.kernel) return new KernelNfsReplica(target, { name, privateDirectory, deadlineMs, onThreadCalls });
  return new NfsReplica(name, target, { ...others, deadlineMs });
}
