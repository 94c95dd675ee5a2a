/** A gRPC server on a unix socket that only root may use. What an earlier process left at its path is removed. */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from "@grpc/grpc-js";

/** sockaddr_un has room for so many bytes and the NUL. */
const maxPathBytes = 107;

export class SocketServer {
  readonly path: string;
  readonly #server = new Server();

  constructor(path: string) {
    if (Buffer.byteLength(path) > maxPathBytes)
      throw new Error(`Cannot listen on ${path}: a socket's path has at most ${maxPathBytes} bytes`);
    this.path = path;
  }

  add(definition: ServiceDefinition, implementation: UntypedServiceImplementation): this {
    this.#server.addService(definition, implementation);
    return this;
  }

  async start(): Promise<void> {
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o750 });
    removeSocket(this.path);
    await new Promise<void>((resolve, reject) => {
      this.#server.bindAsync(`unix:${this.path}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(new Error(`Cannot listen on ${this.path}`, { cause: error })) : resolve(),
      );
    });
    chmodSync(this.path, 0o600);
  }

  /** Lets running calls end, `graceMs` at most. */
  async stop(graceMs = 5_000): Promise<void> {
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
    removeSocket(this.path);
  }
}

function removeSocket(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new Error(`Cannot listen on ${path}: something that is no socket is there; remove it`);
  unlinkSync(path);
}
