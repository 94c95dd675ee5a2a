/**
 * Events for `kubectl describe`. The same event about the same object is one Event that is counted up, and is sent at
 * most once in five minutes: a broken volume must not flood the API server. Events are best effort; what must not be
 * lost is a condition.
 */
import { createHash } from "node:crypto";
import type { Logger } from "../util/logger.ts";
import { isNotFound, type KubeClient, type KubeObject } from "./client.ts";
import { events } from "./resources.ts";

export interface Involved extends KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
}
interface KubeEvent extends KubeObject {
  readonly count?: number;
  readonly [field: string]: unknown;
}

const repeatMs = 300_000;
const remembered = 1_000;

export class EventRecorder {
  readonly #client: KubeClient;
  readonly #component: string;
  readonly #logger: Logger;
  readonly #sent = new Map<string, number>();

  constructor(client: KubeClient, component: string, logger: Logger) {
    this.#client = client;
    this.#component = component;
    this.#logger = logger;
  }

  async record(object: Involved, type: "Normal" | "Warning", reason: string, message: string): Promise<void> {
    const { name, uid = "", namespace = "default" } = object.metadata;
    const hash = createHash("sha256")
      .update([this.#component, object.kind, uid, type, reason, message].join("\0"))
      .digest("hex")
      .slice(0, 16);
    const nowMs = performance.now();
    const sentMs = this.#sent.get(hash);
    if (sentMs !== undefined && nowMs - sentMs < repeatMs) return;
    this.#sent.set(hash, nowMs);
    for (const [oldest] of this.#sent) {
      if (this.#sent.size <= remembered) break;
      this.#sent.delete(oldest);
    }
    const now = new Date().toISOString();
    const eventName = `${name.slice(0, 200)}.${hash}`;
    try {
      const earlier = await this.#client.find<KubeEvent>(events, eventName, namespace);
      if (earlier) {
        const patch = { count: (earlier.count ?? 1) + 1, lastTimestamp: now };
        await this.#client.mergePatch<KubeEvent>(events, eventName, patch, namespace);
        return;
      }
      await this.#client.create<KubeEvent>(events, {
        apiVersion: "v1",
        kind: "Event",
        metadata: { name: eventName, namespace },
        involvedObject: {
          apiVersion: object.apiVersion,
          kind: object.kind,
          name,
          uid,
          ...(object.metadata.namespace === undefined ? {} : { namespace }),
        },
        type,
        reason,
        message: message.slice(0, 1024),
        source: { component: this.#component },
        reportingComponent: this.#component,
        firstTimestamp: now,
        lastTimestamp: now,
        count: 1,
      });
    } catch (error) {
      if (!isNotFound(error)) this.#logger.warn("cannot record an event", { object: name, reason, error });
    }
  }
}
