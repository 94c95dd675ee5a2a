/** The same object, with every call of it recorded: a decorator for any contract whose methods answer a number, now or later. */
import type { CallRecorder } from "../metrics/volume-metrics.ts";
import type { Eventual } from "../util/op.ts";

type Method = (...given: unknown[]) => unknown;

/** `except`: methods that are passed on without being recorded. `withBytes`: those whose answer is a number of bytes. */
export function measured<T extends object>(
  target: T,
  recorder: CallRecorder,
  options: { readonly except: readonly (keyof T)[]; readonly withBytes: readonly (keyof T)[] },
): T {
  const wrapper = {};
  for (const name of propertyNames(target)) {
    const value = target[name as keyof T];
    if (typeof value !== "function") {
      Object.defineProperty(wrapper, name, { get: () => target[name as keyof T], enumerable: true });
      continue;
    }
    const method = value.bind(target) as Method;
    const recorded = !options.except.includes(name as keyof T);
    const withBytes = options.withBytes.includes(name as keyof T);
    Object.defineProperty(wrapper, name, {
      value: recorded ? timed(name, method, recorder, withBytes) : method,
      enumerable: true,
    });
  }
  return wrapper as T;
}

/** Methods are in the prototypes; a replica's own are behind private names, so the wrapper cannot inherit from it. */
function propertyNames(target: object): Set<string> {
  const names = new Set<string>();
  for (
    let level: object | null = target;
    level !== null && level !== Object.prototype;
    level = Object.getPrototypeOf(level)
  ) {
    for (const name of Object.getOwnPropertyNames(level)) if (name !== "constructor") names.add(name);
  }
  return names;
}

function timed(name: string, method: Method, recorder: CallRecorder, withBytes: boolean): Method {
  const figures = recorder.of(name);
  const record = (begin: number, answer: unknown) => {
    const result = typeof answer === "number" ? answer : 0;
    figures.record((performance.now() - begin) * 1000, result);
    if (withBytes && result > 0) figures.bytes += result;
  };
  // More arguments than any method of these contracts has; spreading them would cost more than the call.
  return (a, b, c, d, e, f, g, h) => {
    const begin = performance.now();
    const answer = method(a, b, c, d, e, f, g, h) as Eventual<unknown>;
    if (!(answer instanceof Promise)) {
      record(begin, answer);
      return answer;
    }
    return answer.then((value) => {
      record(begin, value);
      return value;
    });
  };
}
