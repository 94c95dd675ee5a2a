/**
 * From a URL to a protocol that answers, with one clear line for each way in which that can fail: what happened, and
 * what to check.
 */
import { lookup } from "node:dns/promises";
import { hostname } from "node:os";
import { EACCES, ECONNREFUSED, EHOSTUNREACH, ENOENT, EPROTO, ETIMEDOUT } from "../util/errno.ts";
import { type Logger, silentLogger } from "../util/logger.ts";
import { portOf } from "./mount3.ts";
import { newNfs3 } from "./nfs3.ts";
import { nfsProgram } from "./nfs3-wire.ts";
import { newNfs4, type SessionLoss } from "./nfs4.ts";
import { type MountPoint, NfsError, type NfsProtocol } from "./protocol.ts";
import { RpcClient } from "./rpc-client.ts";
import { authSys, type Credential, EPROTONOSUPPORT } from "./rpc-message.ts";
import type { NfsUrl } from "./url.ts";

export interface NfsConnectOptions {
  /** Whoever waits for our answers gives up after this time; the URL's own if that is shorter. */
  readonly deadlineMs?: number;
  readonly logger?: Logger;
  /** Source ports below 1024, which most exports demand; by default as root. */
  readonly reservedPort?: boolean;
  /**
   * The server has restarted and forgotten our session (v4.1): may this process go on? Asked before a session is made
   * anew, and again after. By default it may. Never asked when another process has taken the replica over: then every
   * call answers ESTALE from now on.
   */
  readonly mayResume?: () => Promise<boolean>;
  /** Told once, when another process has taken over. */
  readonly onFenced?: () => void;
}

export interface NfsConnection {
  readonly protocol: NfsProtocol;
  readonly mountPoint: MountPoint;
}

interface Attempt extends NfsConnectOptions {
  readonly signal: AbortSignal;
  /** Runs after a reconnection, before anything else is sent. */
  readonly onReconnected: () => Promise<void>;
}

/** The port of NFS itself. */
const nfsPort = 2049;

export async function connectNfs(url: NfsUrl, options: Attempt): Promise<NfsConnection> {
  const { signal } = options;
  signal.throwIfAborted();
  const addresses = await resolve(url, signal);
  const credential = authSys({ uid: 0, gid: 0, machine: hostname() });
  const route: Route = { url, addresses, credential, reservedPort: options.reservedPort ?? process.getuid?.() === 0 };
  if (url.version !== "auto") return attempt(url.version, route, options);
  try {
    return await attempt("4.1", route, options);
  } catch (error) {
    if (!(error instanceof NfsError) || !saysNoV4(error)) throw error;
    options.logger?.debug("The server does not speak NFS v4.1", { reason: error.message });
    return await attempt("3", route, options);
  }
}

interface Route {
  readonly url: NfsUrl;
  readonly addresses: readonly string[];
  readonly credential: Credential;
  readonly reservedPort: boolean;
}

/** The server is there and does not have this version, or not on this port. */
function saysNoV4(error: NfsError): boolean {
  return error.errno === -EPROTONOSUPPORT || error.errno === -ECONNREFUSED;
}

async function resolve(url: NfsUrl, signal: AbortSignal): Promise<string[]> {
  const addresses: string[] = [];
  let failure: unknown;
  for (const host of url.hosts) {
    try {
      const answers = await within(lookup(host, { all: true }), url.timeoutMs, signal);
      for (const { address } of answers) if (!addresses.includes(address)) addresses.push(address);
    } catch (error) {
      signal.throwIfAborted();
      failure = error;
    }
  }
  if (addresses.length === 0) {
    const hosts = url.hosts.join(", ");
    throw new NfsError(`the host ${hosts} is not known: check the name, and DNS`, -EHOSTUNREACH, { cause: failure });
  }
  return addresses;
}

async function within<T>(promise: Promise<T>, timeoutMs: number, signal: AbortSignal): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  let abort: (() => void) | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new NfsError("no answer in time", -ETIMEDOUT)), timeoutMs);
        abort = () => reject(signal.reason as Error);
        signal.addEventListener("abort", abort);
      }),
    ]);
  } finally {
    clearTimeout(timer);
    if (abort !== undefined) signal.removeEventListener("abort", abort);
  }
}

async function attempt(version: "3" | "4.1", route: Route, options: Attempt): Promise<NfsConnection> {
  const { url, addresses } = route;
  const port = url.port !== 0 ? url.port : await defaultPort(version, route, options.signal);
  const server = `${url.hosts.join(", ")} port ${port}`;
  const { protocol, rpc } = version === "3" ? speakV3(route, port, options) : speakV4(route, port, options);
  const abort = () => protocol.close();
  options.signal.addEventListener("abort", abort, { once: true });
  try {
    await rpc.open();
    const mountPoint = await protocol.mount(url.path, { signal: options.signal });
    return { protocol, mountPoint };
  } catch (error) {
    protocol.close();
    options.signal.throwIfAborted();
    throw explain(error, version, server, addresses);
  } finally {
    options.signal.removeEventListener("abort", abort);
  }
}

async function defaultPort(version: "3" | "4.1", { url, addresses }: Route, signal: AbortSignal): Promise<number> {
  if (version !== "3") return nfsPort;
  try {
    const port = await portOf(addresses, nfsProgram, 3, url.timeoutMs, signal);
    return port > 0 ? port : nfsPort;
  } catch {
    return nfsPort; // no portmapper: the error of NFS itself says more
  }
}

interface Spoken {
  readonly protocol: NfsProtocol;
  readonly rpc: RpcClient;
}

function speakV3({ url, addresses, credential, reservedPort }: Route, port: number, options: Attempt): Spoken {
  const { timeoutMs, mountPort } = url;
  const rpc = new RpcClient({
    target: { addresses, port },
    program: nfsProgram,
    version: 3,
    credential,
    timeoutMs,
    reservedPort,
    onReconnected: options.onReconnected,
  });
  return { protocol: newNfs3(rpc, { addresses, credential, reservedPort, timeoutMs, mountPort }), rpc };
}

function speakV4({ url, addresses, credential, reservedPort }: Route, port: number, options: Attempt): Spoken {
  const { timeoutMs } = url;
  const rpc = new RpcClient({
    target: { addresses, port },
    program: nfsProgram,
    version: 4,
    credential,
    timeoutMs,
    reservedPort,
    stallMs: Math.max(200, timeoutMs / 3),
    onReconnected: options.onReconnected,
  });
  const onLoss = (loss: SessionLoss) => {
    const logger = options.logger ?? silentLogger;
    if (loss === "fenced") {
      logger.error("Another process has taken this replica over; this one stops", { url: url.hosts.join(",") });
      options.onFenced?.();
    } else logger.warn("The NFS server was restarted", { url: url.hosts.join(",") });
  };
  const { mayResume = async () => true } = options;
  return { protocol: newNfs4(rpc, { timeoutMs, onLoss, mayResume }), rpc };
}

/** The error as one line for people. */
function explain(error: unknown, version: string, server: string, addresses: readonly string[]): unknown {
  if (error instanceof NfsError) {
    if (error.errno === -ETIMEDOUT) return new NfsError(timeoutText(server), -ETIMEDOUT);
    if (error.errno === -EPROTONOSUPPORT) {
      return new NfsError(`${server} does not serve NFS v${version}: choose another version`, error.errno);
    }
    return error;
  }
  const { code } = error as NodeJS.ErrnoException;
  switch (code) {
    case undefined:
      return error;
    case "ECONNREFUSED":
      return new NfsError(`${server} refuses connections: is the NFS server running?`, -ECONNREFUSED, { cause: error });
    case "ETIMEDOUT":
      return new NfsError(timeoutText(server), -ETIMEDOUT, { cause: error });
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return new NfsError(`there is no way to ${addresses.join(", ")}: check the network`, -EHOSTUNREACH, {
        cause: error,
      });
    case "ENOENT":
      return new NfsError("not found", -ENOENT, { cause: error });
    case "EACCES":
      return new NfsError("not permitted to connect", -EACCES, { cause: error });
    default:
      return new NfsError(`${server}: ${(error as Error).message}`, -EPROTO, { cause: error });
  }
}

function timeoutText(server: string): string {
  return `${server} does not answer in time: check that the server runs, and that no firewall is between`;
}
