/**
 * One host at a time, where other hosts reach the replicas as well (NFS exports): who has the volume mounted says so in
 * `.chiron/host.json` on the voters, and counts a beat there. Whoever is about to mount looks first, and is refused while
 * that beat goes on, with the name of the host.
 *
 * This is politeness, so that nobody's mount is ended by mistake. What makes it safe is the claimed term (and, on NFS v4.1,
 * the session that the server ends): a host that seemed dead for `leaseMs`, and was only frozen, finds a newer term.
 */
import { errorText, type Logger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import type { Voter } from "./contracts.ts";

const FILE = "host.json";
const MAX_BYTES = 4_096;
const LOOK_MS = 250;
const MAX_LEASE_MS = 300_000;

export interface HostRecord {
  readonly host: string;
  readonly mountpoint: string;
  /** The same for all processes of one mount, and for nothing else. */
  readonly mount: string;
  /** Without a beat for so long it has stopped changing anything. */
  readonly leaseMs: number;
  readonly beat: number;
}

/** Another host has the volume mounted. */
export class HostBusyError extends Error {
  override readonly name = "HostBusyError";
  readonly host: string;
  readonly retry = true;

  constructor({ host, mountpoint }: HostRecord) {
    super(
      `The volume is mounted on host "${host}" (at ${mountpoint}), and one host at a time can have it: unmount it there. ` +
        "If that host is gone, try again in a moment",
    );
    this.host = host;
  }
}

export interface HostClaimDeps {
  readonly pause: (ms: number) => Promise<void>;
  readonly nowMs: () => number;
  readonly log: Logger;
}

export class HostClaim {
  readonly #deps: HostClaimDeps;
  readonly #own: Omit<HostRecord, "beat">;
  #beat: number;
  #beating: Promise<unknown> = Promise.resolve();
  /** Whose marker was seen to be right, and who takes changes: nobody else is written to. */
  voters: () => readonly Voter[] = () => [];

  constructor(deps: HostClaimDeps, own: Omit<HostRecord, "beat">) {
    this.#deps = deps;
    this.#own = own;
    this.#beat = Date.now(); // never the one of an earlier process of this mount
  }

  /** Resolves when no other host has the volume mounted; where one is gone this takes the lease that it had. */
  async wait(): Promise<void> {
    const { pause, nowMs, log } = this.#deps;
    const first = await this.#others();
    if (first.length === 0) return;
    log.info("Another host has had the volume mounted: it is waited for a sign of life", {
      host: first[0]?.host ?? "",
    });
    const leaseMs = Math.max(...first.map((record) => record.leaseMs));
    for (const until = nowMs() + Math.min(leaseMs, MAX_LEASE_MS); nowMs() < until; ) {
      await pause(LOOK_MS);
      for (const record of await this.#others()) {
        const before = first.find(({ mount }) => mount === record.mount);
        if (before === undefined || record.beat !== before.beat) throw new HostBusyError(record);
      }
    }
    log.warn("The host that had the volume mounted shows no sign of life: it is taken over", {
      host: first[0]?.host ?? "",
    });
  }

  /**
   * One more beat. False if another mount has written its own since ours; rejects if no voter took it. Right after the claim
   * (`first`) it is written over whatever is there. Without voters there is nothing that another host could use.
   */
  async beat(first = false): Promise<boolean> {
    const voters = this.voters();
    if (voters.length === 0) return true;
    const isOurs = async (voter: Voter) => {
      const record = await this.#read(voter);
      return record === null || record.mount === this.#own.mount;
    };
    // One that hangs must not keep us from those that answer.
    if (!first && !(await Promise.any(voters.map(isOurs)))) return false;
    this.#beat++;
    const content = Buffer.from(JSON.stringify({ ...this.#own, beat: this.#beat }));
    const writes = voters.map(({ files }) => settled(files.replace(FILE, content)));
    this.#beating = Promise.allSettled(writes);
    await Promise.any(writes);
    return true;
  }

  /** At an unmount in order: another host need not wait. */
  async release(): Promise<void> {
    await this.#beating;
    for (const { name, files } of this.voters()) {
      try {
        if ((await this.#read({ name, files }))?.mount === this.#own.mount) await settled(files.remove(FILE));
      } catch (error) {
        this.#deps.log.debug("The host's mark stays", { voter: name, error: errorText(error) });
      }
    }
  }

  /** What other mounts have written, on any voter that can be read. Rejects if none can. */
  async #others(): Promise<HostRecord[]> {
    const voters = this.voters();
    const readings = await Promise.allSettled(voters.map((voter) => this.#read(voter)));
    const failed = readings.find((reading) => reading.status === "rejected");
    if (voters.length > 0 && readings.every((reading) => reading.status === "rejected")) throw failed?.reason;
    return readings.flatMap((reading) => {
      const record = reading.status === "fulfilled" ? reading.value : null;
      return record === null || record.mount === this.#own.mount ? [] : [record];
    });
  }

  async #read({ files }: Voter): Promise<HostRecord | null> {
    const content = await settled(files.read(FILE, MAX_BYTES));
    return content === null ? null : parseHostRecord(content);
  }
}

/** null for what is no such record: nothing depends on it. */
export function parseHostRecord(content: Uint8Array): HostRecord | null {
  try {
    const value = JSON.parse(Buffer.from(content).toString("utf8")) as Partial<Record<keyof HostRecord, unknown>>;
    const { host, mountpoint, mount, leaseMs, beat } = value;
    const isText = [host, mountpoint, mount].every((text) => typeof text === "string");
    return isText && typeof beat === "number" && typeof leaseMs === "number" ? (value as HostRecord) : null;
  } catch {
    return null;
  }
}

/** An operation's outcome as a promise, whether it ends at once or later. */
async function settled<T>(op: Parameters<typeof start<T>>[0]): Promise<T> {
  return await start(op);
}
