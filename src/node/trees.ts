/** A volume's own directory in each of its places: made before its first mount, removed after its deletion. */
import type { ReplicatedVolume } from "../api/replicated-volume.ts";
import { makeBackend } from "../replica/backend.ts";
import type { Replica } from "../replica/replica.ts";
import { makeSubtree, removeSubtree } from "../replica/subtree.ts";
import { byteString } from "../util/byte-string.ts";
import { errnoName } from "../util/errno.ts";
import type { Logger } from "../util/logger.ts";
import { backendUrl, type NodeFacts, placeOf, VolumeRefusal } from "./volume-config.ts";

const deadlineMs = 30_000;

export class Trees {
  readonly #facts: NodeFacts;
  readonly #logger: Logger;
  constructor(facts: NodeFacts, logger: Logger) {
    this.#facts = facts;
    this.#logger = logger;
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

  async #on(
    volume: ReplicatedVolume,
    name: string,
    signal: AbortSignal,
    work: (replica: Replica) => Promise<number>,
  ): Promise<void> {
    const url = backendUrl(volume, name, placeOf(volume, name), this.#facts, null);
    const replica = makeBackend(name, url, { logger: this.#logger, deadlineMs });
    try {
      await replica.connect({ signal });
      const result = await work(replica);
      if (result < 0) throw new Error(`${url}: ${errnoName(result)}`);
    } catch (error) {
      signal.throwIfAborted();
      throw new VolumeRefusal(
        `replica "${name}" of volume "${volume.metadata.name}": ${(error as Error).message}`,
        true,
      );
    } finally {
      // A backend that hangs keeps its calls for ever; nobody waits for that.
      void replica.disconnect();
    }
  }
}

const split = (path: string): string[] => path.split("/").map(byteString);
