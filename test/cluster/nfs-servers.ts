/** Two nfs-ganesha servers, each with an export, at an address that the nodes of the cluster reach. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { brokenNetwork } from "../kubernetes/broken-network.ts";
import { available, Ganesha } from "../nfs/ganesha.ts";
import { clusterAddress } from "./cluster.ts";

export interface NfsServer extends AsyncDisposable {
  readonly name: string;
  /** What a ReplicatedVolume's replica says. */
  readonly replica: object;
  readonly mountOptions: readonly string[];
  /** Of this machine: what the export holds. */
  readonly directory: string;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export const skipWithoutNfs = (): string | false =>
  available ? false : "LEFT OUT: nfs-ganesha and rpcbind are not there";

/** `directory` must be on a file system that ganesha exports (ext4, xfs). */
export async function startNfsServer(name: string, directory: string): Promise<NfsServer> {
  if (!existsSync(directory)) throw new Error(`${directory} is not there`);
  const server = await Ganesha.start({ exports: [name], directory });
  const network = await brokenNetwork(`http://127.0.0.1:${server.port}`, clusterAddress);
  const mountOptions = ["vers=4.1", `port=${network.port}`];
  return {
    name,
    mountOptions,
    replica: { name, nfs: { server: clusterAddress, path: `/${name}`, mountOptions } },
    directory: join(directory, name),
    kill: () => server.kill(),
    start: () => server.start(),
    async [Symbol.asyncDispose]() {
      await network[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}
