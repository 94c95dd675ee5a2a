/**
 * The portmapper (RFC 1833) and the MOUNT protocol, version 3 (RFC 1813, appendix I): from a server and a path to the
 * file handle where an export begins.
 */

import type { ByteString } from "../util/byte-string.ts";
import { EACCES, ECONNREFUSED, EIO, ENOENT, ENOTDIR } from "../util/errno.ts";
import { maxHandleBytes } from "./nfs3-wire.ts";
import { type FileHandle, type MountPoint, NfsError } from "./protocol.ts";
import { RpcClient } from "./rpc-client.ts";
import { authNone, type Credential } from "./rpc-message.ts";

const mountProgram = 100005;
export const portmapPort = 111;

/** The TCP port of a program as the portmapper knows it; 0 if it is not registered; or a negative errno. */
export async function portOf(
  addresses: readonly string[],
  program: number,
  version: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<number> {
  const client = new RpcClient({
    target: { addresses, port: portmapPort },
    program: 100000,
    version: 2,
    credential: authNone,
    timeoutMs,
    reservedPort: false,
  });
  using _ = closedOnAbort(client, signal);
  try {
    await client.open();
    const call = client.prepare(3);
    call.args.u32(program).u32(version).u32(6).u32(0);
    return await client.send(call, (reader) => reader.u32());
  } finally {
    client.close();
  }
}

export interface MountOptions {
  readonly addresses: readonly string[];
  readonly port: number;
  readonly credential: Credential;
  readonly reservedPort: boolean;
  readonly timeoutMs: number;
}

/**
 * Asks for the whole path first, and for its parents as long as the server says that there is no such export. Answers
 * the names that are left to walk.
 */
export async function mountExport(
  path: readonly ByteString[],
  options: MountOptions,
  signal: AbortSignal,
): Promise<MountPoint> {
  const { addresses, port, credential, reservedPort, timeoutMs } = options;
  const client = new RpcClient({
    target: { addresses, port },
    program: mountProgram,
    version: 3,
    credential,
    timeoutMs,
    reservedPort,
  });
  using _ = closedOnAbort(client, signal);
  try {
    await client.open();
    let denied = false;
    for (let length = path.length; length >= 0; length--) {
      const asked = `/${path.slice(0, length).join("/")}`;
      const answer = await ask(client, asked);
      if (typeof answer !== "number") return { handle: answer, rest: path.slice(length) };
      if (answer === -EACCES) denied = true;
      if (answer !== -EACCES && answer !== -ENOENT && answer !== -ENOTDIR) {
        throw new NfsError(`the server's mount service did not answer for ${asked}`, answer);
      }
      if (answer === -ENOTDIR && length === path.length) {
        throw new NfsError(`${asked} on the server is not a directory`, -ENOTDIR);
      }
    }
    const asked = `/${path.join("/")}`;
    if (denied) throw new NfsError(deniedText(asked), -EACCES);
    throw new NfsError(
      `the server does not export ${asked}: check the path, and the server's list (showmount -e)`,
      -ENOENT,
    );
  } finally {
    client.close();
  }
}

function deniedText(path: string): string {
  return `the server refuses to let this host mount ${path}: check the export's list of clients, and that it allows NFS v3`;
}

async function ask(client: RpcClient, path: ByteString): Promise<FileHandle | number> {
  let handle: FileHandle = Buffer.alloc(0);
  const call = client.prepare(1);
  call.args.string(path);
  const result = await client.send(call, (reader) => {
    const status = reader.u32();
    if (status === 0) handle = Buffer.from(reader.opaque(maxHandleBytes));
    if (status === 1) return -EACCES; // NOT_OWNER is how some say it
    return status > 255 ? -EIO : -status;
  });
  return result === 0 ? handle : result;
}

/** Resolves the mount service's port: as given, or as the portmapper says. */
export async function mountPort(
  addresses: readonly string[],
  given: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<number> {
  if (given !== 0) return given;
  const port = await portOf(addresses, mountProgram, 3, timeoutMs, signal);
  if (port <= 0) {
    throw new NfsError("the server's portmapper knows no mount service: does it serve NFS v3?", -ECONNREFUSED);
  }
  return port;
}

function closedOnAbort(client: RpcClient, signal: AbortSignal): Disposable {
  const close = () => client.close();
  signal.addEventListener("abort", close);
  return { [Symbol.dispose]: () => signal.removeEventListener("abort", close) };
}
