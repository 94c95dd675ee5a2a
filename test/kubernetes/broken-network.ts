/** A TCP proxy before a server that can be cut, and mended: what a client sees of a broken network. */
import { connect, createServer, type Socket } from "node:net";

export interface BrokenNetwork extends AsyncDisposable {
  readonly port: number;
  /** Ends all connections and refuses new ones, until `mend`. */
  cut(): void;
  mend(): void;
}

/** `host`: where the proxy listens. */
export async function brokenNetwork(target: string, host = "127.0.0.1"): Promise<BrokenNetwork> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let isCut = false;
  const server = createServer((inner) => {
    if (isCut) {
      inner.destroy();
      return;
    }
    const outer = connect(Number(port), hostname);
    for (const [socket, other] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    cut() {
      isCut = true;
      for (const socket of sockets) socket.destroy();
    },
    mend() {
      isCut = false;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
