/** Replicas on which everything takes a while, in an order that chance decides. */
import { setImmediate as turn } from "node:timers/promises";
import type { Replica, TreeObject } from "../../replica/replica.ts";
import type { Choose } from "../../replica/testing/random.ts";

/** The same replica, whose calls answer now or some turns later. */
export function late(replica: Replica, choose: Choose): Replica {
  return new Proxy(replica, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property);
      if (typeof value !== "function" || property === "connect" || property === "forget") return value;
      return (...args: unknown[]): unknown => {
        if (choose(3) > 0) return Reflect.apply(value, target, args);
        // Half of them take effect at once, half when they answer.
        if (choose(2) === 0) {
          const result = Reflect.apply(value, target, args);
          return turn().then(() => result);
        }
        const issued = args.map(asIssued);
        return turn().then(() => Reflect.apply(value, target, issued));
      };
    },
  });
}

/** Names are what they were when a call was issued, as for one that goes to a thread or a server. */
function asIssued(argument: unknown): unknown {
  return isObject(argument) ? copyOf(argument) : argument;
}

function isObject(argument: unknown): argument is TreeObject {
  return typeof argument === "object" && argument !== null && "parent" in argument && "name" in argument;
}

function copyOf({ parent, name }: TreeObject): TreeObject {
  return { parent: parent === null ? null : copyOf(parent), name };
}
