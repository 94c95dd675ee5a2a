/**
 * A backend for work on it from outside of a volume (making and removing a volume's directory). It
 * never takes the replica over, so a volume that is mounted goes on.
 */
import { parseNfsUrl } from "../nfs/url.ts";
import type { Logger } from "../util/logger.ts";
import { withDeadline } from "./deadline.ts";
import { NfsReplica } from "./nfs-replica.ts";
import { OffloadedReplica } from "./offload.ts";
import type { Replica } from "./replica.ts";

/** `url`: an absolute path or `nfs://…`. */
export function makeBackend(
  name: string,
  url: string,
  options: { readonly logger: Logger; readonly deadlineMs: number },
): Replica {
  const replica = url.startsWith("nfs://")
    ? new NfsReplica(name, parseNfsUrl(url), { logger: options.logger })
    : new OffloadedReplica({ name, path: url });
  return withDeadline(replica, options.deadlineMs);
}
