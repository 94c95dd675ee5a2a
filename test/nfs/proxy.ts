/**
 * A TCP proxy on loopback for faults between client and server: it can delay, cut, swallow and hold back what goes
 * through. What it holds back is kept for as long as wanted, also when the client has gone, and is then delivered.
 */
import { once } from "node:events";
import net from "node:net";

interface Pair {
  readonly client: net.Socket;
  readonly server: net.Socket;
  /** Bytes towards the server that are held back; null: nothing is. */
  held: Buffer[] | null;
  swallowAnswers: boolean;
}

export class FaultyProxy implements AsyncDisposable {
  readonly #server: net.Server;
  readonly #pairs = new Set<Pair>();
  /** One way, in milliseconds; for connections and bytes to come. */
  delayMs = 0;
  port = 0;
  #holding = false;

  private constructor(targetPort: number) {
    this.#server = net.createServer((client) => this.#accept(client, targetPort));
  }

  static async start(targetPort: number): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(targetPort);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    proxy.port = (proxy.#server.address() as net.AddressInfo).port;
    return proxy;
  }

  /** From now on, what clients send stays here. */
  hold(): void {
    this.#holding = true;
    for (const pair of this.#pairs) pair.held ??= [];
  }

  /** New connections work; what is held back stays where it is. */
  passNew(): void {
    this.#holding = false;
  }

  /** Delivers what was held back, whether or not its sender is still there. */
  release(): void {
    for (const pair of this.#pairs) {
      for (const chunk of pair.held ?? []) pair.server.write(chunk);
      pair.held = null;
    }
  }

  get heldBytes(): number {
    let bytes = 0;
    for (const pair of this.#pairs) for (const chunk of pair.held ?? []) bytes += chunk.length;
    return bytes;
  }

  /** What the server answers on the connections that are open is lost. */
  swallowAnswers(): void {
    for (const pair of this.#pairs) pair.swallowAnswers = true;
  }

  /** Breaks all connections that are open. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy();
      server.destroy();
    }
    this.#pairs.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(client: net.Socket, targetPort: number): void {
    const server = net.connect({ host: "127.0.0.1", port: targetPort, noDelay: true });
    client.setNoDelay(true);
    const pair: Pair = { client, server, held: this.#holding ? [] : null, swallowAnswers: false };
    this.#pairs.add(pair);
    const later = (act: () => void) => {
      if (this.delayMs === 0) act();
      else setTimeout(act, this.delayMs);
    };
    client.on("data", (chunk) => {
      if (pair.held !== null) pair.held.push(chunk as Buffer);
      else later(() => server.write(chunk));
    });
    server.on("data", (chunk) => {
      if (!pair.swallowAnswers) later(() => client.destroyed || client.write(chunk));
    });
    client.on("error", () => {});
    server.on("error", () => {});
    server.on("close", () => {
      client.resetAndDestroy();
      this.#pairs.delete(pair);
    });
    client.on("close", () => {
      if (pair.held !== null) return; // its bytes are still to be delivered
      server.destroy();
      this.#pairs.delete(pair);
    });
  }
}
