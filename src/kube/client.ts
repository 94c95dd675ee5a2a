/**
 * The Kubernetes API over HTTPS, as much of it as Chiron needs: typed by its callers, bounded in time, errors as data.
 * Ours, because importing @kubernetes/client-node costs each process 80 MiB, and every node runs several.
 */
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import type { KubeConfig } from "./config.ts";

export interface Resource {
  /** "" for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly generation?: number;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
    readonly finalizers?: readonly string[];
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

export interface KubeList<T> {
  readonly metadata: { readonly resourceVersion?: string; readonly continue?: string };
  readonly items: readonly T[];
}

export interface WatchEvent<T> {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: T;
}

/** The API server answered with an error. */
export class KubeError extends Error {
  override readonly name = "KubeError";
  readonly code: number;
  /** Kubernetes' own word, such as `NotFound`, `Conflict`, `AlreadyExists`. */
  readonly reason: string;
  readonly retryAfterMs: number | null;
  constructor(code: number, reason: string, message: string, retryAfterMs: number | null = null) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}
export const isNotFound = (error: unknown): boolean => error instanceof KubeError && error.code === 404;
export const isConflict = (error: unknown): boolean => error instanceof KubeError && error.code === 409;

interface RequestOptions {
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
  readonly agent?: Agent;
}
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

const requestTimeoutMs = 30_000;
/** Asked of the API server, so that a watch ends by itself, and by then something has been heard. */
const watchSeconds = 290;

export class KubeClient {
  readonly config: KubeConfig;
  readonly #agent: Agent;
  /** Each watch keeps a connection for as long as it lasts: they must not use up those of the calls. */
  readonly #watchAgent: Agent;
  readonly #base: URL;
  /** How many requests were made: what the volumes at rest cost the API server is bounded by a test. */
  requests = 0;

  constructor(config: KubeConfig) {
    this.config = config;
    this.#base = new URL(config.server);
    const { ca, cert, key } = config;
    const identity = { ...(ca ? { ca } : {}), ...(cert ? { cert } : {}), ...(key ? { key } : {}) };
    this.#agent = new Agent({ keepAlive: true, maxSockets: 32, ...identity });
    this.#watchAgent = new Agent({ keepAlive: true, ...identity });
  }

  close(): void {
    this.#agent.destroy();
    this.#watchAgent.destroy();
  }

  get<T extends KubeObject>(
    resource: Resource,
    name: string,
    namespace?: string,
    options: CallOptions = {},
  ): Promise<T> {
    return this.json<T>("GET", path(resource, namespace, name), options);
  }

  /** null where there is no such object. */
  async find<T extends KubeObject>(
    resource: Resource,
    name: string,
    namespace?: string,
    options: CallOptions = {},
  ): Promise<T | null> {
    try {
      return await this.get<T>(resource, name, namespace, options);
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }

  /** One page. */
  list<T extends KubeObject>(
    resource: Resource,
    query: RequestOptions["query"] = {},
    namespace?: string,
    options: CallOptions = {},
  ): Promise<KubeList<T>> {
    return this.json<KubeList<T>>("GET", path(resource, namespace), { ...options, query });
  }

  create<T extends KubeObject>(resource: Resource, object: T, options: CallOptions = {}): Promise<T> {
    return this.json<T>("POST", path(resource, object.metadata.namespace), { ...options, body: object });
  }

  /** Refused with a Conflict if the object changed since `metadata.resourceVersion`. */
  replace<T extends KubeObject>(
    resource: Resource,
    object: T,
    subresource?: "status",
    options: CallOptions = {},
  ): Promise<T> {
    const { name, namespace } = object.metadata;
    return this.json<T>("PUT", path(resource, namespace, name, subresource), { ...options, body: object });
  }

  /** Server-side apply: `object` is all that `manager` wants to own. */
  apply<T extends KubeObject>(
    resource: Resource,
    object: T,
    manager: string,
    subresource?: "status",
    options: CallOptions = {},
  ): Promise<T> {
    const { name, namespace } = object.metadata;
    return this.json<T>("PATCH", path(resource, namespace, name, subresource), {
      ...options,
      query: { fieldManager: manager, force: true },
      body: object,
      contentType: "application/apply-patch+yaml",
    });
  }

  /** RFC 7386: what is null is removed. With `metadata.resourceVersion` it is a compare-and-swap. */
  mergePatch<T extends KubeObject>(
    resource: Resource,
    name: string,
    patch: unknown,
    namespace?: string,
    subresource?: "status",
    options: CallOptions = {},
  ): Promise<T> {
    return this.json<T>("PATCH", path(resource, namespace, name, subresource), {
      ...options,
      body: patch,
      contentType: "application/merge-patch+json",
    });
  }

  /** Answers whether it was there. */
  async delete(
    resource: Resource,
    name: string,
    namespace?: string,
    preconditions?: { readonly uid: string },
    options: CallOptions = {},
  ): Promise<boolean> {
    try {
      const body = { kind: "DeleteOptions", apiVersion: "v1", propagationPolicy: "Background", preconditions };
      await this.json("DELETE", path(resource, namespace, name), { ...options, body });
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  /** Resolves when the API server ends the watch, rejects when it fails; never silent for longer than its own bound. */
  async watch<T extends KubeObject>(
    resource: Resource,
    query: Readonly<Record<string, string | number | boolean | undefined>>,
    onEvent: (event: WatchEvent<T>) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const answer = await this.#send("GET", path(resource), {
      signal,
      agent: this.#watchAgent,
      query: { ...query, watch: true, allowWatchBookmarks: true, timeoutSeconds: watchSeconds },
    });
    answer.setTimeout((watchSeconds + 30) * 1000, () => answer.destroy(new Error("the watch went silent")));
    for await (const line of createInterface({ input: answer, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (line === "") continue;
      onEvent(JSON.parse(line) as WatchEvent<T>);
    }
    // A connection that breaks ends readline without an error.
    if (answer.errored) throw answer.errored;
  }

  async json<T>(method: string, target: string, options: RequestOptions): Promise<T> {
    const timeout = AbortSignal.timeout(requestTimeoutMs);
    const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
    return JSON.parse(await text(await this.#send(method, target, { ...options, signal }))) as T;
  }

  async #send(method: string, target: string, options: RequestOptions): Promise<IncomingMessage> {
    options.signal?.throwIfAborted();
    this.requests += 1;
    const url = new URL(this.#base.pathname.replace(/\/$/, "") + target, this.#base);
    for (const [name, value] of Object.entries(options.query ?? {}))
      if (value !== undefined) url.searchParams.set(name, String(value));
    const body = options.body === undefined ? null : Buffer.from(JSON.stringify(options.body));
    const token = this.config.token?.();
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const call = request(url, {
        method,
        agent: options.agent ?? this.#agent,
        ...(options.signal ? { signal: options.signal } : {}),
        headers: {
          accept: "application/json",
          "user-agent": "chiron",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body ? { "content-type": options.contentType ?? "application/json", "content-length": body.length } : {}),
        },
      });
      call.on("response", resolve);
      const failed = (cause: unknown) =>
        reject(new Error(`Cannot reach the API server at ${this.#base.host}`, { cause }));
      call.on("error", (error) => failed(options.signal?.aborted ? options.signal.reason : error));
      // A call that waits for a connection has no error to tell when it is given up.
      const giveUp = () => failed(options.signal?.reason);
      options.signal?.addEventListener("abort", giveUp);
      call.on("close", () => options.signal?.removeEventListener("abort", giveUp));
      call.end(body ?? undefined);
    });
    const code = answer.statusCode ?? 0;
    if (code >= 200 && code < 300) return answer;
    throw toKubeError(code, answer.headers["retry-after"], await text(answer));
  }
}

export function toKubeError(code: number, retryAfter: string | undefined, body: string): KubeError {
  let status: { message?: string; reason?: string } = {};
  try {
    status = JSON.parse(body) as typeof status;
  } catch {
    // A proxy's page, not the API server's.
  }
  const seconds = Number(retryAfter);
  const retryAfterMs = retryAfter === undefined || Number.isNaN(seconds) ? null : seconds * 1000;
  return new KubeError(
    code,
    status.reason ?? "",
    status.message ?? `HTTP ${code}: ${body.slice(0, 200)}`,
    retryAfterMs,
  );
}

export function path(resource: Resource, namespace?: string, name?: string, subresource?: string): string {
  const { group, version, plural, namespaced } = resource;
  const parts = group === "" ? ["api", version] : ["apis", group, version];
  if (namespaced && namespace !== undefined) parts.push("namespaces", namespace);
  parts.push(plural);
  if (name !== undefined) parts.push(name);
  if (subresource !== undefined) parts.push(subresource);
  return `/${parts.map(encodeURIComponent).join("/")}`;
}
