/** A file system whose every answer comes a turn of the event loop later than the wrapped one's, or never. */
import { EINTR } from "../../util/errno.ts";
import type { Answer, FileSystem, Request } from "../filesystem.ts";

/** The result is found out later, too, so that buffers and outs are used when the method has long returned. */
export function answerLater(fs: FileSystem): FileSystem {
  return new Proxy(fs, {
    get(target, property) {
      const method = Reflect.get(target, property) as unknown;
      if (typeof method !== "function") return method;
      if (property === "init" || property === "destroy" || property === "forget") return method.bind(target);
      return async (...args: unknown[]) => {
        await new Promise(setImmediate);
        return Reflect.apply(method, target, args) as number;
      };
    },
  });
}

/** fsync waits until the request is interrupted. */
export function hangingFsync(fs: FileSystem): FileSystem {
  return new Proxy(fs, {
    get(target, property) {
      const method = Reflect.get(target, property) as unknown;
      if (typeof method !== "function") return method;
      if (property !== "fsync") return method.bind(target);
      return (request: Request): Answer =>
        new Promise((resolve) => {
          const interrupted = () => resolve(-EINTR);
          if (request.signal.aborted) interrupted();
          else request.signal.addEventListener("abort", interrupted);
        });
    },
  });
}
