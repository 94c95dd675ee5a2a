/**
 * Every call of every service goes through here: it has a deadline, runs alone on its volume if it changes anything,
 * is logged without secrets, and its errors become gRPC statuses. A call is answered exactly once, at its deadline at
 * the latest; its lock stays until it has ended.
 */
import { type handleUnaryCall, type ServerUnaryCall, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { errorText, type Logger } from "../util/logger.ts";
import type { Operations } from "./operations.ts";
import { redact } from "./redact.ts";
import { CsiError, type StatusName } from "./status.ts";

export interface CallContext {
  /** Aborts at the deadline, and when the caller goes away: nothing new is begun after that. */
  readonly signal: AbortSignal;
  readonly logger: Logger;
}
type Handle<Q, A> = (request: Q, context: CallContext) => A | Promise<A>;
/** A call that runs alone on the volume that it names. */
interface Exclusive<Q, A> {
  readonly volumeOf: (request: Q) => string;
  readonly handle: Handle<Q, A>;
}
export const exclusive = <Q, A>(volumeOf: (request: Q) => string, handle: Handle<Q, A>): Exclusive<Q, A> => ({
  volumeOf,
  handle,
});

/** The methods that a ts-proto server interface names; its index signature is left out. */
type Methods<S> = keyof { [M in keyof S as string extends M ? never : number extends M ? never : M]: true };
/** A handler for each method of a ts-proto server interface. */
export type Handlers<S> = {
  readonly [M in Methods<S>]: M extends keyof S
    ? S[M] extends handleUnaryCall<infer Q, infer A>
      ? Handle<Q, A> | Exclusive<Q, A>
      : never
    : never;
};

export interface UnaryOptions {
  readonly operations: Operations;
  readonly logger: Logger;
  /** No call takes longer, whatever deadline its caller gave. */
  readonly maxCallMs: number;
  /** Told of each call that has ended, for metrics. */
  readonly observe?: (method: string, statusName: StatusName, seconds: number) => void;
}

/** The service as grpc-js takes it. */
export function serve<S>(handlers: Handlers<S>, options: UnaryOptions): UntypedServiceImplementation {
  const service: UntypedServiceImplementation = {};
  for (const [method, handler] of Object.entries(handlers)) {
    const call = handler as Handle<unknown, unknown> | Exclusive<unknown, unknown>;
    service[method] = unary(method.charAt(0).toUpperCase() + method.slice(1), call, options);
  }
  return service;
}

function unary<Q, A>(
  method: string,
  handler: Handle<Q, A> | Exclusive<Q, A>,
  { operations, logger, maxCallMs, observe }: UnaryOptions,
): handleUnaryCall<Q, A> {
  const changes = typeof handler !== "function";
  const handle = changes ? handler.handle : handler;
  return (call, callback) => {
    const startedMs = performance.now();
    const log = logger.child({ method });
    const abort = new AbortController();
    let answered = false;
    const answer = (error: CsiError | null, value: A | null) => {
      if (answered) return;
      answered = true;
      clearTimeout(timer);
      const statusName = error?.status ?? "OK";
      const seconds = (performance.now() - startedMs) / 1000;
      observe?.(method, statusName, seconds);
      const facts = { request: redact(call.request), status: statusName, seconds: Number(seconds.toFixed(3)) };
      if (error === null) log[changes ? "info" : "debug"]("call answered", facts);
      else log[statusName === "INTERNAL" ? "error" : "warn"]("call failed", { ...facts, error: errorText(error) });
      if (error) callback({ code: status[error.status], details: errorText(error) });
      else callback(null, value);
    };
    const timeoutMs = Math.min(maxCallMs, remainingMs(call));
    const timer = setTimeout(() => {
      const error = new CsiError(
        "DEADLINE_EXCEEDED",
        `${method} did not end within ${(timeoutMs / 1000).toFixed(1)} s; try again`,
      );
      abort.abort(error);
      answer(error, null);
    }, timeoutMs);
    call.on("cancelled", () => {
      const error = new CsiError("CANCELLED", `the caller of ${method} went away`);
      abort.abort(error);
      answer(error, null);
    });
    const work = async () => {
      using _lock = changes ? operations.acquire(handler.volumeOf(call.request), method) : null;
      return await handle(call.request, { signal: abort.signal, logger: log });
    };
    work().then(
      (value) => answer(null, value),
      (error: unknown) => answer(toCsiError(error, abort.signal), null),
    );
  };
}

function remainingMs(call: ServerUnaryCall<unknown, unknown>): number {
  const deadline = call.getDeadline();
  return Math.max(0, (typeof deadline === "number" ? deadline : deadline.getTime()) - Date.now());
}

/** What a handler threw; anything that it did not foresee is INTERNAL. */
function toCsiError(error: unknown, signal: AbortSignal): CsiError {
  if (error instanceof CsiError) return error;
  if (signal.aborted && signal.reason instanceof CsiError) return signal.reason;
  return new CsiError("INTERNAL", errorText(error));
}
