/**
 * A backend for work on it from outside of a volume (making and removing a volume's directory). It
 * never takes the replica over, so a volume that is mounted goes on.
 */
import { parseNfsUrl } from "../nfs/url.ts";
import type { Logger } from "../util/logger.ts";
import { withDeadline } from "./deadline.ts";
import { NfsReplica } from "./nfs-replica.ts";
import { OffloadedReplica } from "./offload.ts";
import { isRemoteReplicaUrl, openRemoteReplica } from "./remote-open.ts";
import type { Replica } from "./replica.ts";

/** `url`: an absolute path, `nfs://…` or `chiron://…`. */
export function makeBackend(
  name: string,
  url: string,
  options: { readonly logger: Logger; readonly deadlineMs: number },
): Replica {
  return withDeadline(open(name, url, options.logger), options.deadlineMs);
}

function open(name: string, url: string, logger: Logger): Replica {
  if (url.startsWith("nfs://")) return new NfsReplica(name, parseNfsUrl(url), { logger });
  return isRemoteReplicaUrl(url) ? openRemoteReplica(name, url) : new OffloadedReplica({ name, path: url });
}
