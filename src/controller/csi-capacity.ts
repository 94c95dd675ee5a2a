/**
 * How much room there is for volumes of a StorageClass: that of its tightest place. NFS servers are asked; of directories
 * of a node that node has told with its volumes' health, if one of them is in use there.
 */
import { topologyKey } from "../api/names.ts";
import { replicatedVolumes } from "../api/resource.ts";
import { parseStorageClass, StorageClassError } from "../api/storage-class.ts";
import type { ControllerServer, GetCapacityRequest } from "../csi/generated/csi.ts";
import { CsiError } from "../csi/status.ts";
import type { Handlers } from "../csi/unary.ts";
import type { KubeClient } from "../kube/client.ts";
import { makeBackend } from "../replica/backend.ts";
import type { FileSystemStats } from "../replica/replica.ts";
import { fromKube } from "./kube-status.ts";
import type { VolumeObject } from "./reconciler.ts";

const deadlineMs = 10_000;

type Settings = ReturnType<typeof parseStorageClass>;
type Nfs = NonNullable<Settings["replicas"][number]["nfs"]>;
type HostPath = NonNullable<Settings["replicas"][number]["hostPath"]>;

export function capacityHandler(client: KubeClient): Handlers<ControllerServer>["getCapacity"] {
  return async (request, { signal, logger }) => {
    const answer = (bytes: number) => ({
      availableCapacity: BigInt(Math.max(0, Math.floor(bytes))),
      maximumVolumeSize: undefined,
      minimumVolumeSize: undefined,
    });
    const own = (name: string) => !name.startsWith("csi.storage.k8s.io/");
    // Without a class there is no place that could be asked.
    if (!Object.keys(request.parameters).some(own)) return answer(0);
    const { replicas } = settingsOf(request);
    const node = request.accessibleTopology?.segments[topologyKey];
    const rooms: number[] = [];
    for (const { nfs, hostPath } of replicas) {
      if (hostPath && node !== undefined && hostPath.node !== node) return answer(0);
      if (nfs) rooms.push(await roomOnServer(nfs, signal, logger));
      else if (hostPath) rooms.push(await roomInDirectory(client, hostPath, signal));
    }
    return answer(Math.min(...rooms));
  };
}

function settingsOf({ parameters, volumeCapabilities }: GetCapacityRequest): Settings {
  try {
    const flags = volumeCapabilities.flatMap(({ mount }) => mount?.mountFlags ?? []);
    return parseStorageClass(parameters, [...new Set(flags)]);
  } catch (error) {
    if (error instanceof StorageClassError) throw new CsiError("INVALID_ARGUMENT", error.message);
    throw error;
  }
}

async function roomOnServer(
  { server, path, mountOptions = [] }: Nfs,
  signal: AbortSignal,
  logger: Parameters<typeof makeBackend>[2]["logger"],
): Promise<number> {
  const options = new Map(mountOptions.map((option) => option.split("=") as [string, string | undefined]));
  const host = server.includes(":") ? `[${server}]` : server;
  const port = options.get("port");
  const version = (options.get("vers") ?? options.get("nfsvers")) === "3" ? "?version=3" : "";
  const where = path.split("/").map(encodeURIComponent).join("/");
  const replica = makeBackend(server, `nfs://${host}${port === undefined ? "" : `:${port}`}${where}${version}`, {
    logger,
    deadlineMs,
  });
  try {
    await replica.connect({ signal: AbortSignal.any([signal, AbortSignal.timeout(deadlineMs)]) });
    const stats: FileSystemStats = {
      blockSizeBytes: 0,
      blocks: 0,
      freeBlocks: 0,
      availableBlocks: 0,
      files: 0,
      freeFiles: 0,
      maxNameBytes: 0,
    };
    if ((await replica.statfs(stats)) < 0) throw new Error("it does not say how much is free");
    return stats.availableBlocks * stats.blockSizeBytes;
  } catch (error) {
    throw new CsiError("UNAVAILABLE", `${server}:${path}: ${(error as Error).message}`);
  } finally {
    void replica.disconnect();
  }
}

async function roomInDirectory(client: KubeClient, place: HostPath, signal: AbortSignal): Promise<number> {
  const { items } = await fromKube(client.list<VolumeObject>(replicatedVolumes, {}, undefined, { signal }));
  let newest: { readonly at: string; readonly bytes: number } | null = null;
  for (const { spec, status } of items) {
    const here = spec.replicas.find(({ hostPath }) => hostPath?.node === place.node && hostPath.path === place.path);
    if (!here) continue;
    for (const report of status?.nodes ?? []) {
      const bytes = report.replicas?.find(({ name }) => name === here.name)?.freeBytes;
      if (bytes !== undefined && (newest === null || report.reportedAt > newest.at))
        newest = { at: report.reportedAt, bytes };
    }
  }
  if (newest === null)
    throw new CsiError(
      "UNAVAILABLE",
      `nobody knows yet how much is free in ${place.path} of node ${place.node}: no volume there is in use`,
    );
  return newest.bytes;
}
