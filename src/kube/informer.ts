/**
 * All objects of a kind, kept up to date: list, then watch, and list again whenever the watch cannot go on (410, a
 * broken connection, an error in the stream), with a delay that doubles up to half a minute. After a list, objects
 * that are gone are reported as deleted, so nothing that happened meanwhile is missed.
 */
import type { Logger } from "../util/logger.ts";
import { type KubeClient, KubeError, type KubeObject, type Resource, type WatchEvent } from "./client.ts";

export interface InformerOptions {
  readonly logger: Logger;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly firstRetryMs?: number;
  readonly longestRetryMs?: number;
}
/** `now` is null when the object was deleted, `before` when it is new. */
export type OnChange<T> = (now: T | null, before: T | null) => void;

export const objectKey = (object: KubeObject): string =>
  object.metadata.namespace === undefined
    ? object.metadata.name
    : `${object.metadata.namespace}/${object.metadata.name}`;

export class Informer<T extends KubeObject> {
  readonly #client: KubeClient;
  readonly #resource: Resource;
  readonly #options: InformerOptions;
  readonly #onChange: OnChange<T>;
  readonly #objects = new Map<string, T>();
  readonly #abort = new AbortController();
  readonly #synced = Promise.withResolvers<void>();
  #hasSynced = false;
  #done: Promise<void> = Promise.resolve();

  constructor(client: KubeClient, resource: Resource, onChange: OnChange<T>, options: InformerOptions) {
    this.#client = client;
    this.#resource = resource;
    this.#onChange = onChange;
    this.#options = options;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }
  values(): Iterable<T> {
    return this.#objects.values();
  }
  get size(): number {
    return this.#objects.size;
  }
  /** Whether there was a complete list once. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  start(): void {
    this.#done = this.#run();
  }
  /** Resolves when the first list is complete. */
  synced(): Promise<void> {
    return this.#synced.promise;
  }
  async stop(): Promise<void> {
    this.#abort.abort(new Error("stopping"));
    await this.#done;
  }

  async #run(): Promise<void> {
    const { logger, firstRetryMs = 500, longestRetryMs = 30_000 } = this.#options;
    const { signal } = this.#abort;
    let resourceVersion: string | null = null;
    let failures = 0;
    while (!signal.aborted) {
      try {
        resourceVersion ??= await this.#list();
        resourceVersion = await this.#watch(resourceVersion, () => {
          failures = 0;
        });
      } catch (error) {
        if (signal.aborted) return;
        resourceVersion = null;
        failures += 1;
        const retryMs = Math.min(longestRetryMs, firstRetryMs * 2 ** Math.min(failures - 1, 20));
        const gone = error instanceof KubeError && error.code === 410;
        if (!gone) logger.warn("watch ended, listing again", { resource: this.#resource.plural, error, retryMs });
        await sleep(gone ? 0 : retryMs, signal);
      }
    }
  }

  async #list(): Promise<string> {
    const { labelSelector, fieldSelector } = this.#options;
    const seen = new Set<string>();
    let next: string | undefined;
    let resourceVersion = "";
    do {
      const page = await this.#client.list<T>(
        this.#resource,
        { labelSelector, fieldSelector, limit: 500, continue: next },
        undefined,
        { signal: this.#abort.signal },
      );
      for (const object of page.items) {
        seen.add(objectKey(object));
        this.#put(object);
      }
      next = page.metadata.continue === "" ? undefined : page.metadata.continue;
      resourceVersion = page.metadata.resourceVersion ?? "";
    } while (next !== undefined);
    for (const [key, object] of this.#objects) {
      if (seen.has(key)) continue;
      this.#objects.delete(key);
      this.#onChange(null, object);
    }
    this.#hasSynced = true;
    this.#synced.resolve();
    return resourceVersion;
  }

  /** Answers from where to watch on. */
  async #watch(from: string, heard: () => void): Promise<string> {
    const { labelSelector, fieldSelector } = this.#options;
    let resourceVersion = from;
    const failures: KubeError[] = [];
    const onEvent = ({ type, object }: WatchEvent<T>) => {
      if (type === "ERROR") {
        const status = object as unknown as { code?: number; reason?: string; message?: string };
        failures.push(new KubeError(status.code ?? 0, status.reason ?? "", status.message ?? "the watch failed"));
        return;
      }
      heard();
      resourceVersion = object.metadata.resourceVersion ?? resourceVersion;
      if (type === "DELETED") {
        this.#objects.delete(objectKey(object));
        this.#onChange(null, object);
      } else if (type !== "BOOKMARK") this.#put(object);
    };
    const query = { labelSelector, fieldSelector, resourceVersion: from };
    await this.#client.watch<T>(this.#resource, query, onEvent, this.#abort.signal);
    const [failure] = failures;
    if (failure !== undefined) throw failure;
    return resourceVersion;
  }

  #put(object: T): void {
    const key = objectKey(object);
    const before = this.#objects.get(key) ?? null;
    // What only one writer owns is half of an object's size, and nobody here reads it.
    delete (object.metadata as Record<string, unknown>)["managedFields"];
    this.#objects.set(key, object);
    if (before?.metadata.resourceVersion === object.metadata.resourceVersion) return;
    this.#onChange(object, before);
  }
}

export function sleep(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, delayMs);
    signal.addEventListener("abort", done);
  });
}
