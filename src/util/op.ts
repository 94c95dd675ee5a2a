/**
 * Operations written once that finish at once or later. An `Op` is a generator that yields only promises it has to
 * wait for; `start` runs it on the spot and makes a promise only if it had to wait. An operation on replicas whose
 * calls answer at once therefore runs to its end in one go, without a promise or a turn of the event loop.
 */
export type Op<T> = Generator<PromiseLike<unknown>, T, unknown>;

/** A value now, or a promise of it. */
export type Eventual<T> = T | Promise<T>;

function isPromise<T>(value: Eventual<T>): value is Promise<T> {
  return typeof value === "object" && value !== null && "then" in value;
}

/** Inside an operation: `const n = yield* wait(replica.write(...))`. */
export function* wait<T>(value: Eventual<T>): Op<T> {
  return isPromise(value) ? ((yield value) as T) : value;
}

/** Runs an operation up to its end, or up to its first wait and the rest later. */
export function start<T>(op: Op<T>): Eventual<T> {
  const step = op.next();
  return step.done ? step.value : resume(op, step.value);
}

async function resume<T>(op: Op<T>, first: PromiseLike<unknown>): Promise<T> {
  let awaited = first;
  for (;;) {
    let value: unknown;
    let failure: { readonly error: unknown } | null = null;
    try {
      value = await awaited;
    } catch (error) {
      failure = { error };
    }
    const step = failure === null ? op.next(value) : op.throw(failure.error);
    if (step.done) return step.value;
    awaited = step.value;
  }
}
