/** A volume's own directory in each of its places: made before its first mount, removed after its deletion. */
import type { Place, ReplicatedVolume } from "../api/replicated-volume.ts";
import { makeBackend } from "../replica/backend.ts";
import { copyTree } from "../replica/copy-tree.ts";
import type { Replica, TreeObject } from "../replica/replica.ts";
import { makeSubtree, removeSubtree } from "../replica/subtree.ts";
import { byteString } from "../util/byte-string.ts";
import { errnoName } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { SharedBackends } from "./shared-backends.ts";
import { backendUrl, type NodeFacts, placeOf, VolumeRefusal } from "./volume-config.ts";

const deadlineMs = 30_000;

export class Trees {
  readonly #facts: NodeFacts;
  readonly #backends: SharedBackends;
  constructor(facts: NodeFacts, logger: Logger) {
    this.#facts = facts;
    this.#backends = new SharedBackends((url) => makeBackend(url, url, { logger, deadlineMs }), deadlineMs);
  }

  /** Throws a `VolumeRefusal` that names the replica. */
  async make(volume: ReplicatedVolume, signal: AbortSignal): Promise<void> {
    const { subdirectory } = volume.spec;
    if (subdirectory === undefined) return;
    for (const { name } of volume.spec.replicas)
      await this.#on(volume, name, signal, (replica) => makeSubtree(replica, split(subdirectory), 0o777));
  }

  async remove(volume: ReplicatedVolume, replicaName: string, signal: AbortSignal): Promise<void> {
    const { subdirectory } = volume.spec;
    if (subdirectory === undefined) return;
    await this.#on(volume, replicaName, signal, (replica) => removeSubtree(replica, split(subdirectory), signal));
  }

  /**
   * Fills a new volume's directories from a snapshot that lies on some replicas of another volume: from the same place
   * where that is possible, so that data are shared or stay on their server, from another place otherwise. May be repeated.
   */
  async fill(
    volume: ReplicatedVolume,
    source: ReplicatedVolume,
    snapshot: { readonly name: string; readonly replicas: readonly string[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { subdirectory } = volume.spec;
    if (subdirectory === undefined)
      throw new Error(`volume "${volume.metadata.name}" has no subdirectory to be filled`);
    const own = source.spec.subdirectory === undefined ? [] : split(source.spec.subdirectory);
    const there = [...own, ".chiron", "snapshots", snapshot.name];
    for (const { name } of volume.spec.replicas) {
      const place = placeOf(volume, name);
      const candidates = snapshot.replicas
        .map((replica) => ({ replica, place: placeOf(source, replica) }))
        .sort((a, b) => Number(isSamePlace(b.place, place)) - Number(isSamePlace(a.place, place)));
      const problems: string[] = [];
      let filled = false;
      for (const candidate of candidates) {
        try {
          await this.#on(volume, name, signal, async (replica) => {
            const made = await makeSubtree(replica, split(subdirectory), 0o777);
            if (made < 0) return made;
            const copy = (from: Replica): Promise<number> =>
              copyInto(from, there, replica, split(subdirectory), signal).then(() => Promise.resolve(replica.sync()));
            if (isSamePlace(candidate.place, place)) return await copy(replica);
            let result = 0;
            await this.#on(source, candidate.replica, signal, async (from) => {
              result = await copy(from);
              return 0;
            });
            return result;
          });
          filled = true;
          break;
        } catch (error) {
          signal.throwIfAborted();
          problems.push((error as Error).message);
        }
      }
      if (!filled) throw new VolumeRefusal(problems.join("; ") || `snapshot "${snapshot.name}" lies nowhere`, true);
    }
  }

  async #on(
    volume: ReplicatedVolume,
    name: string,
    signal: AbortSignal,
    work: (replica: Replica) => Promise<number>,
  ): Promise<void> {
    const url = backendUrl(volume, name, placeOf(volume, name), this.#facts, null);
    try {
      await this.#backends.use(url, signal, async (backend) => {
        const result = await work(backend);
        if (result < 0) throw new Error(`${url}: ${errnoName(result)}`);
      });
    } catch (error) {
      signal.throwIfAborted();
      throw new VolumeRefusal(
        `replica "${name}" of volume "${volume.metadata.name}": ${(error as Error).message}`,
        true,
      );
    }
  }
}

async function copyInto(
  from: Replica,
  there: readonly string[],
  to: Replica,
  here: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const source = { replica: from, object: objectAt(there) };
  await copyTree(source, { replica: to, object: objectAt(here) }, { signal, pace: async () => {} });
}

function objectAt(path: readonly string[]): TreeObject {
  let object: TreeObject = { parent: null, name: "" };
  for (const name of path) object = { parent: object, name };
  return object;
}

function isSamePlace(a: Place, b: Place): boolean {
  if (a.nfs && b.nfs) return a.nfs.server === b.nfs.server && a.nfs.path === b.nfs.path;
  return a.hostPath !== undefined && a.hostPath.node === b.hostPath?.node && a.hostPath.path === b.hostPath.path;
}

const split = (path: string): string[] => path.split("/").map(byteString);
