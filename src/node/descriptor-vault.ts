/**
 * The node plugin keeps a copy of every mount's FUSE descriptor. When the mount daemon's pod is gone, and every process
 * that served a mount with it, the kernel still has the mount and its users wait; the next daemon asks here for the
 * descriptor, and goes on. The daemon's holders have the descriptors as well, so either pod may be deleted.
 *
 * On the socket: the directory of a mount as one line of text in, one byte out, 1 with the descriptor or 0 without.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, closeSync, mkdirSync, renameSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { receiveDescriptors, sendDescriptors } from "../posix/sockets.ts";
import { EAGAIN } from "../util/errno.ts";
import { errorText, type Logger } from "../util/logger.ts";
import { receiveMount } from "../volume/holder-handover.ts";
import { controlSocket, type RegistryEntry } from "../volume/registry.ts";
import { mountAt, readMountTable } from "./mount-table.ts";

interface Kept {
  readonly fd: number;
  /** Of which mount: a directory may be used again for another one. */
  readonly device: string;
}

export class DescriptorVault {
  readonly #socketPath: string;
  readonly #logger: Logger;
  readonly #kept = new Map<string, Kept>();
  readonly #asking = new Set<string>();
  readonly #server: Server;

  constructor(socketPath: string, logger: Logger) {
    this.#socketPath = socketPath;
    this.#logger = logger;
    this.#server = createServer((socket) => this.#answer(socket));
  }

  async start(): Promise<void> {
    mkdirSync(dirname(this.#socketPath), { recursive: true, mode: 0o700 });
    const own = join(dirname(this.#socketPath), `.${randomBytes(4).toString("hex")}`);
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(own, resolve);
    });
    chmodSync(own, 0o600);
    renameSync(own, this.#socketPath);
  }

  stop(): void {
    this.#server.close();
    for (const { fd } of this.#kept.values()) closeSync(fd);
    this.#kept.clear();
  }

  /** Whether the mount that is there now can be brought back if all its processes are gone. */
  has(directory: string, device: string): boolean {
    return this.#kept.get(directory)?.device === device;
  }

  /** Keeps what is mounted now, and lets go of what is not. */
  update(mounts: readonly RegistryEntry[]): void {
    const table = readMountTable();
    const devices = new Map(
      mounts.map(({ directory, record }) => [directory, mountAt(table, record.config.volume.mountpoint)?.device]),
    );
    for (const [directory, { fd, device }] of this.#kept)
      if (devices.get(directory) !== device) {
        closeSync(fd);
        this.#kept.delete(directory);
      }
    for (const [directory, device] of devices)
      if (device !== undefined && !this.#kept.has(directory)) void this.#keep(directory, device);
  }

  async #keep(directory: string, device: string): Promise<void> {
    if (this.#asking.has(directory)) return;
    this.#asking.add(directory);
    try {
      const received = await receiveMount(controlSocket(directory));
      received.abandon();
      // Its lock must end with the holder that has it.
      closeSync(received.lockFd);
      this.#kept.set(directory, { fd: received.fuseFd, device });
      this.#logger.info("descriptor kept", { volume: received.record.config.volume.volume });
    } catch (error) {
      this.#logger.debug("no descriptor to keep", { directory, error: errorText(error) });
    } finally {
      this.#asking.delete(directory);
    }
  }

  #answer(socket: Socket): void {
    let line = "";
    socket.setEncoding("utf8").setTimeout(10_000, () => socket.destroy());
    socket.on("error", () => {});
    socket.on("data", (text: string) => {
      line += text;
      if (!line.includes("\n")) return;
      const kept = this.#kept.get(line.trimEnd());
      const sent = sendDescriptors(descriptorOf(socket), Buffer.from([kept ? 1 : 0]), kept ? [kept.fd] : []);
      this.#logger.info("descriptor asked for", { directory: line.trimEnd(), given: kept !== undefined && sent === 1 });
      socket.end();
    });
  }
}

/** A copy of the mount's descriptor, the caller's to close; null where the vault has none. Rejects where nobody answers. */
export async function askVault(socketPath: string, directory: string, timeoutMs = 5_000): Promise<number | null> {
  const socket = connect(socketPath);
  try {
    await new Promise<void>((resolve, reject) => {
      // libuv would read the byte and drop the descriptor.
      socket.once("connect", () => {
        socket.pause();
        resolve();
      });
      socket.once("error", reject);
    });
    socket.write(`${directory}\n`);
    const fds: number[] = [];
    const byte = Buffer.alloc(1);
    for (const endMs = performance.now() + timeoutMs; performance.now() < endMs; ) {
      const length = receiveDescriptors(descriptorOf(socket), byte, fds);
      if (length >= 0) return fds[0] ?? null;
      if (length !== -EAGAIN) break;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    throw new Error(`no answer on ${socketPath}`);
  } finally {
    socket.on("error", () => {});
    socket.destroy();
  }
}

/** Node does not show a socket's descriptor; libuv's handle has it. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd?: number } | null };
  return handle?.fd ?? -1;
}
