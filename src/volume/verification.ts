/**
 * Comparing the replicas of a volume in use: when an administrator asks, and by itself after a change that may have left them
 * different without anybody being to blame. Until that is looked at, the volume counts as one that has to be looked at.
 */

import type { Throttle } from "../replication/throttle.ts";
import { Verify, type VerifyResult } from "../replication/verify.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import type { VerifyReport, WorkProgress } from "./protocol.ts";
import type { Volume } from "./volume.ts";

const SUSPECT_AFTER_MS = 1_000;

export interface VerificationDeps {
  readonly volume: Volume;
  readonly throttle: Throttle;
  /** While a snapshot is made, files have links that are its own. */
  readonly linksVary: () => boolean;
  readonly log: Logger;
}

export class Verification {
  readonly #deps: VerificationDeps;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  /** How many suspicions there were, and up to which one everything was compared. */
  #suspicions = 0;
  #settled = 0;

  constructor(deps: VerificationDeps) {
    this.#deps = deps;
  }

  /** Replicas may differ in something, and nobody has looked yet. */
  get isSuspect(): boolean {
    return this.#settled < this.#suspicions;
  }

  stop(): void {
    this.#stopped.abort();
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  suspect(): void {
    this.#suspicions++;
    this.#later();
  }

  #later(): void {
    if (this.#stopped.signal.aborted) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      void this.#look();
    }, SUSPECT_AFTER_MS).unref();
  }

  async #look(): Promise<void> {
    const { log } = this.#deps;
    const upTo = this.#suspicions;
    log.info("A change failed on some replicas: everything is compared");
    try {
      const result = await this.#run(true, () => {});
      this.#settled = upTo;
      log.info("Everything was compared", { files: result.filesCompared, differences: result.differences.length });
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      log.warn("Comparing did not succeed, and is tried again", { error: errorText(error) });
    }
    if (this.isSuspect) this.#later();
  }

  async verify(repair: boolean, onProgress: (progress: WorkProgress) => void): Promise<VerifyReport> {
    const { membership, fanOut, opened } = this.#deps.volume;
    const compared = membership.inSync.map((index) => fanOut.replica(index).name);
    const all = opened.replicas.flatMap((replica) => replica?.name ?? []);
    const leftOut = all.filter((name) => !compared.includes(name));
    return { compared, leftOut, ...(await this.#run(repair, onProgress)) };
  }

  #run(repair: boolean, onProgress: (progress: WorkProgress) => void): Promise<VerifyResult> {
    const { volume, throttle } = this.#deps;
    const { membership, missed, fanOut, times } = volume;
    const verify = new Verify(
      {
        tree: volume.table.tree,
        locks: volume.locks,
        replica: (index) => fanOut.replica(index),
        inSync: () => membership.inSync,
        linksVary: this.#deps.linksVary,
        settle: async (node) => void (await start(times.settle(node))),
        repair: async (index, set) => {
          missed.begin(index, { kind: "saved", set });
          membership.expel([index], "Diverged", 0);
          await membership.settled;
        },
      },
      {
        throttle,
        signal: this.#stopped.signal,
        repair,
        onProgress: ({ filesCompared, bytesCompared }) =>
          onProgress({
            replica: null,
            filesDone: filesCompared,
            filesTotal: 0,
            bytesDone: bytesCompared,
            bytesTotal: 0,
          }),
      },
    );
    return verify.run();
  }
}
