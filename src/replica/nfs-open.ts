/** An NFS replica from its URL. Throws an error for people where the URL says nothing useful. */
import { parseNfsUrl } from "../nfs/url.ts";
import { NfsReplica, type NfsReplicaOptions } from "./nfs-replica.ts";

export function openNfsReplica(name: string, url: string, options: NfsReplicaOptions): NfsReplica {
  return new NfsReplica(name, parseNfsUrl(url), options);
}
