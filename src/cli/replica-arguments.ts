/** How replicas are named on the command line and in fstab → `ReplicaConfig`. Pure. */
import { basename, resolve } from "node:path";
import { parseNfsUrl } from "../nfs/url.ts";
import { isRemoteReplicaUrl, openRemoteReplica } from "../replica/remote-open.ts";
import { FailureError } from "../volume/failure.ts";
import type { ReplicaConfig } from "../volume/protocol.ts";

export const MAX_REPLICAS = 8;
const RESERVED_NAME = "witness";
const dnsLabel = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

export interface ReplicaArgument {
  readonly name: string | null;
  /** An absolute path, or `nfs://…`. */
  readonly url: string;
  readonly slow: boolean;
  readonly run: ReplicaConfig["run"];
}

/** `[NAME=]PATH[?run=loop|threads]` or `[NAME=]nfs://…`. */
export function parseReplica(text: string, slow: boolean, directory: string): ReplicaArgument {
  const named = /^([^/=:?]+)=(.*)$/s.exec(text);
  return place(named?.[1] ?? null, named?.[2] ?? text, slow, directory);
}

/**
 * ChironFS's own form: `/a=/b=:/slow`, where a colon marks a replica that is read only when the others are out. A part
 * without a slash is the name of the one after it: `mars=/a=venus=/b`. A `=` in a path is written `\=`.
 */
export function parseSpec(text: string, directory: string): ReplicaArgument[] {
  const parts = text.split(/(?<!\\)=/).map((part) => part.replaceAll("\\=", "="));
  const replicas: ReplicaArgument[] = [];
  let name: string | null = null;
  for (const part of parts) {
    if (part !== "" && !part.includes("/") && name === null) {
      name = part;
      continue;
    }
    const slow = part.startsWith(":");
    replicas.push(place(name, slow ? part.slice(1) : part, slow, directory));
    name = null;
  }
  if (name !== null) throw usage(`"${name}" names no replica: what follows "${name}=" is missing in ${text}`);
  return replicas;
}

function place(name: string | null, where: string, slow: boolean, directory: string): ReplicaArgument {
  if (where === "") throw usage("A replica's path is empty: --replica [NAME=]PATH");
  if (/^nfs:/i.test(where)) {
    try {
      parseNfsUrl(where);
    } catch (error) {
      throw usage((error as Error).message);
    }
    return { name, url: where, slow, run: "auto" };
  }
  if (isRemoteReplicaUrl(where)) {
    try {
      openRemoteReplica(name ?? "replica", where);
    } catch (error) {
      throw usage((error as Error).message);
    }
    return { name, url: where, slow, run: "auto" };
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(where)) throw usage(`"${where}": a replica is a directory or an nfs:// address`);
  const [, path = where, run = "auto"] = /^(.*)\?run=([^/]*)$/s.exec(where) ?? [];
  if (!["loop", "threads", "auto"].includes(run)) throw usage(`"${where}": ?run= is loop, threads or auto`);
  return { name, url: resolve(directory, path), slow, run: run as ReplicaConfig["run"] };
}

/**
 * Everyone gets a name: the given one, or the last part of its path, or the whole path where two would be alike. It does
 * not depend on the order, since it has to be the same at every mount.
 */
export function nameReplicas(replicas: readonly ReplicaArgument[]): ReplicaConfig[] {
  if (replicas.length === 0) throw usage("No replica is given: chiron mount --replica PATH --replica PATH MOUNTPOINT");
  if (replicas.length > MAX_REPLICAS)
    throw usage(`${replicas.length} replicas are given: ${MAX_REPLICAS} are possible`);
  const twice = replicas.find(({ url }, index) => replicas.findIndex((other) => other.url === url) !== index);
  if (twice !== undefined) throw usage(`${twice.url} is given twice: give each replica a directory of its own`);
  const short = replicas.map((replica) => replica.name ?? slug(basename(urlPath(replica.url))));
  const names = replicas.map((replica, index) => {
    const alike = short.filter((other) => other === short[index]).length > 1;
    return replica.name ?? (alike || short[index] === "" ? slug(urlPath(replica.url)) : short[index]) ?? "";
  });
  return replicas.map(({ url, slow, run }, index) => {
    const name = names[index] ?? "";
    checkName(name, url);
    if (names.indexOf(name) !== index) throw usage(`Two replicas are called "${name}": give them names, NAME=PATH`);
    return { name, url, slow, run };
  });
}

export function checkName(name: string, url: string): void {
  if (!dnsLabel.test(name)) {
    throw usage(
      `"${name}" cannot be the name of ${url}: lower-case letters, digits and dashes, 63 at most (NAME=PATH)`,
    );
  }
  if (name === RESERVED_NAME) throw usage(`"${name}" cannot be a replica's name: give it another one, NAME=PATH`);
}

function urlPath(url: string): string {
  return url.replace(/^nfs:\/\//i, "").replace(/\?.*$/s, "");
}

/** A DNS label made of a path; "" if nothing of it can stay. */
function slug(text: string): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, "");
}

function usage(message: string): FailureError {
  return new FailureError("usage", message);
}
