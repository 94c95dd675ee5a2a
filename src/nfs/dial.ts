/**
 * Opens the TCP connection of an RPC client: tries each of the server's addresses, and, as root, from a reserved source
 * port (below 1024), which most exports demand. The port of the last connection is tried first, because servers find
 * the answers to retransmitted calls by the client's address and port.
 */
import net from "node:net";

export interface DialTarget {
  /** IP addresses of one server, tried in order. */
  readonly addresses: readonly string[];
  readonly port: number;
}

export interface DialOptions {
  readonly reservedPort: boolean;
  /** A source port to try first; 0 for none. */
  readonly localPort: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Chunks as they arrive, valid only during the call. */
  readonly onData: (socket: net.Socket, chunk: Buffer) => void;
}

const receiveBytes = 256 * 1024;
const portTries = 24;

/** Resolves with a connected socket without Nagle's delay; rejects with the last system error (`code`). */
export async function dial(target: DialTarget, options: DialOptions): Promise<net.Socket> {
  const deadline = performance.now() + options.timeoutMs;
  let failure: unknown = Object.assign(new Error("no address"), { code: "ENOTFOUND" });
  for (const [index, address] of target.addresses.entries()) {
    const left = deadline - performance.now();
    if (left <= 0 || options.signal.aborted) break;
    const share = left / (target.addresses.length - index);
    try {
      return await dialAddress(address, target.port, options, share);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

async function dialAddress(host: string, port: number, options: DialOptions, timeoutMs: number): Promise<net.Socket> {
  if (!options.reservedPort) return attempt(host, port, 0, options, timeoutMs);
  const random = 512 + Math.floor(Math.random() * 512);
  for (let i = 0; i < portTries; i++) {
    const localPort = i === 0 && options.localPort > 0 ? options.localPort : 512 + ((random + i * 37) % 512);
    try {
      return await attempt(host, port, localPort, options, timeoutMs);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EACCES") break; // not allowed to use reserved ports: go on without
      if (code !== "EADDRINUSE" && code !== "EADDRNOTAVAIL") throw error;
    }
  }
  return attempt(host, port, 0, options, timeoutMs);
}

function attempt(
  host: string,
  port: number,
  localPort: number,
  options: DialOptions,
  timeoutMs: number,
): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const onread = {
      buffer: Buffer.allocUnsafeSlow(receiveBytes),
      callback: (bytes: number, buffer: Uint8Array) => {
        options.onData(socket, (buffer as Buffer).subarray(0, bytes));
        return true;
      },
    };
    const socket: net.Socket = net.connect({
      host,
      port,
      noDelay: true,
      onread,
      ...(localPort > 0 ? { localPort, localAddress: net.isIPv6(host) ? "::" : "0.0.0.0" } : {}),
    });
    const failed = (error: Error) => {
      settled();
      socket.on("error", () => {});
      socket.destroy();
      reject(error);
    };
    const late = () => failed(Object.assign(new Error(`connect ETIMEDOUT ${host}:${port}`), { code: "ETIMEDOUT" }));
    const given = () => failed(Object.assign(new Error("connecting was given up"), { code: "ECANCELED" }));
    const timer = setTimeout(late, timeoutMs);
    const settled = () => {
      clearTimeout(timer);
      options.signal.removeEventListener("abort", given);
      socket.off("error", failed);
    };
    options.signal.addEventListener("abort", given);
    socket.once("error", failed);
    socket.once("connect", () => {
      settled();
      resolve(socket);
    });
  });
}
