/**
 * What the volume processes of this node ask of the API server, on a socket of the node plugin: to read the membership
 * record in a ReplicatedVolume's status, to replace it if the object has not changed since, and to renew the volume's
 * Lease. It decides nothing (`replication/takeover-rules.ts` does), and keeps nothing: it may be restarted at any time.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, renameSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { replicatedVolumes } from "../api/resource.ts";
import { isConflict, type KubeClient } from "../kube/client.ts";
import { errorText, type Logger } from "../util/logger.ts";
import type { Held, StatusRecord } from "../volume/protocol.ts";
import type { VolumeObject } from "./volume-holder.ts";
import type { VolumeLeases } from "./volume-leases.ts";

/** Shorter than the volume process waits, so that it hears why. */
const CALL_TIMEOUT_MS = 10_000;

interface Asked {
  readonly volume: string;
  readonly version?: string;
  readonly record?: StatusRecord;
}

export class ArbiterServer {
  readonly #client: KubeClient;
  readonly #leases: VolumeLeases;
  readonly #logger: Logger;
  readonly #server: Server;

  constructor(client: KubeClient, leases: VolumeLeases, logger: Logger) {
    this.#client = client;
    this.#leases = leases;
    this.#logger = logger;
    this.#server = createServer((request, response) => {
      const answer = (code: number, value: object) =>
        response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(value));
      text(request)
        .then(async (body) => answer(200, await this.#answer(request.url ?? "", JSON.parse(body) as Asked)))
        .catch((error: unknown) => {
          this.#logger.warn("cannot answer a volume", { asked: request.url, error });
          answer(503, { error: errorText(error) });
        });
    });
  }

  async start(socketPath: string): Promise<void> {
    mkdirSync(dirname(socketPath), { recursive: true, mode: 0o700 });
    // Bound under a name of its own: who ends removes what it had bound, and its successor may live already.
    const own = join(dirname(socketPath), `.${randomBytes(4).toString("hex")}`);
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(own, resolve);
    });
    chmodSync(own, 0o600);
    renameSync(own, socketPath);
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(method: string, { volume, version, record }: Asked): Promise<object> {
    const options = { signal: AbortSignal.timeout(CALL_TIMEOUT_MS) };
    switch (method) {
      case "/read":
        return heldOf(await this.#client.get<VolumeObject>(replicatedVolumes, volume, undefined, options));
      case "/swap": {
        if (version === undefined || record === undefined) throw new Error("version and record are needed");
        const patch = { metadata: { resourceVersion: version }, status: { membership: statusOf(record) } };
        try {
          await this.#client.mergePatch(replicatedVolumes, volume, patch, undefined, "status", options);
          return { swapped: true };
        } catch (error) {
          if (isConflict(error)) return { swapped: false };
          throw error;
        }
      }
      case "/renew":
        return { ours: await this.#leases.renew(volume, options) };
      default:
        throw new Error(`"${method}" is not known to this version`);
    }
  }
}

export function heldOf({ metadata, status }: VolumeObject): Held & { readonly version: string } {
  const { membership } = status ?? {};
  const record: StatusRecord | null =
    membership === undefined
      ? null
      : ({
          ...membership,
          absent: membership.absent.map((absent) => ({ ...absent, resumePoint: null })),
        } as StatusRecord);
  return { holder: status?.holder ?? null, record, version: metadata.resourceVersion ?? "" };
}

function statusOf({ absent, ...record }: StatusRecord): object {
  return { ...record, absent: absent.map(({ name, reason, since }) => ({ name, reason, since })) };
}
