/** Replicas on which everything takes a while, in an order that chance decides. */
import { setImmediate as turn } from "node:timers/promises";
import type { Replica } from "../../replica/replica.ts";
import type { Choose } from "../../replica/testing/random.ts";

/** The same replica, whose calls answer now or some turns later. */
export function late(replica: Replica, choose: Choose): Replica {
  return new Proxy(replica, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property);
      if (typeof value !== "function" || property === "connect" || property === "forget") return value;
      return (...args: unknown[]): unknown => {
        const call = (): unknown => Reflect.apply(value, target, args);
        if (choose(3) > 0) return call();
        // Half of them take effect at once, half when they answer.
        if (choose(2) === 0) {
          const result = call();
          return turn().then(() => result);
        }
        return turn().then(call);
      };
    },
  });
}
