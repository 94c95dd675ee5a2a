/** A gRPC server on a unix socket that only root may use. What an earlier process left at its path is removed. */
import { randomBytes } from "node:crypto";
import { chmodSync, lstatSync, mkdirSync, renameSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from "@grpc/grpc-js";

/** sockaddr_un has room for so many bytes and the NUL. */
const maxPathBytes = 107;

export class SocketServer {
  readonly path: string;
  readonly #server = new Server();
  #inode = -1;

  constructor(path: string) {
    if (Buffer.byteLength(path) > maxPathBytes)
      throw new Error(`Cannot listen on ${path}: a socket's path has at most ${maxPathBytes} bytes`);
    this.path = path;
  }

  add(definition: ServiceDefinition, implementation: UntypedServiceImplementation): this {
    this.#server.addService(definition, implementation);
    return this;
  }

  /**
   * Listens under a name of its own and then takes the path, at once and whole. So a process whose predecessor still
   * lives does not lose its socket when that one ends, which removes what it had bound.
   */
  async start(): Promise<void> {
    const directory = dirname(this.path);
    mkdirSync(directory, { recursive: true, mode: 0o750 });
    const found = lstatSync(this.path, { throwIfNoEntry: false });
    if (found !== undefined && !found.isSocket())
      throw new Error(`Cannot listen on ${this.path}: something that is no socket is there; remove it`);
    // Hidden: the kubelet takes every other socket in its registry for a plugin's.
    const own = join(directory, `.${randomBytes(4).toString("hex")}`);
    await new Promise<void>((resolve, reject) => {
      this.#server.bindAsync(`unix:${own}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(new Error(`Cannot listen on ${this.path}`, { cause: error })) : resolve(),
      );
    });
    chmodSync(own, 0o600);
    this.#inode = lstatSync(own).ino;
    renameSync(own, this.path);
  }

  /** Lets running calls end, `graceMs` at most. */
  async stop(graceMs = 5_000): Promise<void> {
    if (lstatSync(this.path, { throwIfNoEntry: false })?.ino === this.#inode) unlinkSync(this.path);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.forceShutdown();
        resolve();
      }, graceMs);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
