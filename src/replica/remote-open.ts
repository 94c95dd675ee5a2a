/**
 * A remote replica from its URL: `chiron://host:port/below?tls=/directory`, with `tls.crt`, `tls.key` and `ca.crt` in that
 * directory (a Secret of type kubernetes.io/tls). Throws an error for people where the URL says nothing useful.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { byteString } from "../util/byte-string.ts";
import { RemoteReplica } from "./remote.ts";

/** What every server's certificate is made out to: which server it is the address tells, and the authority vouches. */
export const backendServerName = "backend.chiron.storage";
const defaultTlsDirectory = "/etc/chiron/backend";

export const isRemoteReplicaUrl = (url: string): boolean => url.startsWith("chiron://");

export function openRemoteReplica(name: string, url: string): RemoteReplica {
  const { hostname, port, pathname, searchParams } = new URL(url);
  if (hostname === "" || port === "") throw new Error(`"${url}": write it like chiron://10.1.2.3:9811/directory`);
  const directory = searchParams.get("tls") ?? defaultTlsDirectory;
  return new RemoteReplica({
    name,
    host: hostname.replaceAll(/[[\]]/g, ""),
    port: Number(port),
    path: pathname
      .split("/")
      .filter((part) => part !== "")
      .map((part) => byteString(decodeURIComponent(part))),
    tls: () => ({
      key: readFileSync(join(directory, "tls.key")),
      cert: readFileSync(join(directory, "tls.crt")),
      ca: readFileSync(join(directory, "ca.crt")),
      servername: backendServerName,
    }),
  });
}
