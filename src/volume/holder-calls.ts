/**
 * Calls of the control socket that are the volume process's to answer. They wait while it is being started again; one that
 * changes nothing is asked of the next process if the first one dies, any other fails and is the caller's to repeat.
 */
import type { CallContext } from "./control-server.ts";
import { FailureError } from "./failure.ts";
import { type VolumeProcess, VolumeProcessGoneError } from "./holder-child.ts";
import type { CallParams, Failure, Method, VolumeStatus } from "./protocol.ts";

/** When there is an older answer to fall back on. */
const STATUS_TIMEOUT_MS = 3000;

export class HolderCalls {
  readonly #timeoutMs: number;
  readonly #waiting = new Set<() => void>();
  #process: VolumeProcess | null = null;
  #lastStatus: VolumeStatus | null = null;
  /** Why the last process could not go on. */
  #trouble: Failure | null = null;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** The process that serves from now on; null while there is none. */
  serveBy(process: VolumeProcess | null): void {
    this.#process = process;
    if (process === null) return;
    this.#trouble = null;
    this.#wakeAll();
  }

  get isFailing(): boolean {
    return this.#trouble !== null;
  }

  /** A process was started and could not go on from its predecessor: who waits in vain is told why. */
  failing(trouble: Failure): void {
    this.#trouble = trouble;
  }

  /** Nothing will serve any more. */
  end(): void {
    this.#process = null;
    this.#wakeAll();
  }

  async call(method: Method, params: CallParams, context: Pick<CallContext, "progress" | "signal">): Promise<unknown> {
    const asking = method === "status" || method === "metrics";
    const hasOlder = method === "status" && this.#lastStatus !== null;
    const timeoutMs = hasOlder ? STATUS_TIMEOUT_MS : this.#timeoutMs;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      try {
        const serving = await this.#serving(deadline, context.signal);
        const answer = serving.call(method, params, context.progress);
        const value = await within(answer, asking ? timeoutMs : null);
        if (method === "status") this.#lastStatus = value as VolumeStatus;
        return value;
      } catch (error) {
        if (error instanceof VolumeProcessGoneError && asking) continue;
        if (error instanceof VolumeProcessGoneError) {
          throw new FailureError(
            "busy",
            `The volume process was started again during "${method}": see the status, then repeat it`,
          );
        }
        if (hasOlder && this.#trouble === null) return this.#olderStatus();
        throw error;
      }
    }
  }

  /** What was true when the volume process answered last. That it does not answer now is no health. */
  #olderStatus(): VolumeStatus | null {
    const last = this.#lastStatus;
    return last?.state === "Healthy" ? { ...last, state: "Degraded" } : last;
  }

  #serving(deadlineMs: number, signal: AbortSignal): Promise<VolumeProcess> {
    const serving = () => (this.#process?.exited === false ? this.#process : null);
    const now = serving();
    if (now !== null) return Promise.resolve(now);
    return new Promise((resolve, reject) => {
      const wake = () => {
        this.#waiting.delete(wake);
        clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        const process = serving();
        if (process !== null) resolve(process);
        else if (this.#trouble !== null) reject(FailureError.from(this.#trouble));
        else reject(new FailureError("busy", "The volume process is being started again: try again in a moment"));
      };
      const timer = setTimeout(wake, Math.max(0, deadlineMs - performance.now()));
      signal.addEventListener("abort", wake);
      this.#waiting.add(wake);
    });
  }

  #wakeAll(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}

async function within<T>(promise: Promise<T>, timeoutMs: number | null): Promise<T> {
  if (timeoutMs === null) return await promise;
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`The volume process gave no answer in ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
