/** The RPC client against servers of our own making, which answer late, twice, out of order, or not at all. */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { describe, test } from "node:test";
import { ENOTCONN, EPROTO, ETIMEDOUT } from "../util/errno.ts";
import { RpcClient, type RpcClientOptions } from "./rpc-client.ts";
import { authSys, EPROTONOSUPPORT } from "./rpc-message.ts";
import { RecordReader } from "./rpc-record.ts";

interface Request {
  readonly xid: number;
  readonly socket: net.Socket;
  /** Counted from 1. */
  readonly connection: number;
  /** The argument: one u32. */
  readonly value: number;
  readonly bytes: number;
}

/** A success with one u32. */
function success(xid: number, value: number): Buffer {
  const words = [0x80000000 + 28, xid, 1, 0, 0, 0, 0, value];
  const bytes = Buffer.alloc(32);
  words.forEach((word, index) => {
    bytes.writeUInt32BE(word >>> 0, index * 4);
  });
  return bytes;
}

class Server {
  readonly received: Request[] = [];
  connections = 0;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  constructor(answer: (request: Request) => void) {
    this.#server = net.createServer((socket) => {
      const connection = ++this.connections;
      this.#sockets.add(socket);
      socket.on("error", () => {});
      const reader = new RecordReader((record) => {
        const value = record.readUInt32BE(argumentAt(record));
        const request = { xid: record.readUInt32BE(0), socket, connection, value, bytes: record.length };
        this.received.push(request);
        answer(request);
      }, 1 << 26);
      socket.on("data", (chunk) => reader.push(chunk as Buffer));
    });
  }

  async listen(): Promise<number> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return (this.#server.address() as net.AddressInfo).port;
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}

/** Behind the credential, whatever its length, and the verifier. */
function argumentAt(record: Buffer): number {
  const credentialBytes = record.readUInt32BE(28);
  return 32 + credentialBytes + 8;
}

async function withServer(
  answer: (request: Request) => void,
  options: Partial<RpcClientOptions>,
  use: (client: RpcClient, server: Server) => Promise<void>,
): Promise<void> {
  const server = new Server(answer);
  const port = await server.listen();
  const client = new RpcClient({
    target: { addresses: ["127.0.0.1"], port },
    program: 200_000,
    version: 1,
    credential: authSys({ uid: 0, gid: 0, machine: "t" }),
    timeoutMs: 20_000,
    reservedPort: false,
    ...options,
  });
  try {
    await use(client, server);
  } finally {
    client.close();
    server.close();
  }
}

function ask(client: RpcClient, value: number, options?: { readonly timeoutMs?: number; readonly urgent?: boolean }) {
  const call = client.prepare(1);
  call.args.u32(value);
  return client.send(call, (reader) => reader.u32(), options);
}

const reply = ({ socket, xid, value }: Request) => void socket.write(success(xid, value + 1));

describe("the RPC client", () => {
  test("calls go out together, and answers find theirs in any order", async () => {
    const waiting: Request[] = [];
    const answer = (request: Request) => {
      waiting.push(request);
      if (waiting.length === 100) for (const one of waiting.reverse()) reply(one);
    };
    await withServer(answer, {}, async (client) => {
      const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => ask(client, i)));
      assert.deepEqual(
        answers,
        Array.from({ length: 100 }, (_, i) => i + 1),
      );
    });
  });

  test("no more calls are in flight than allowed, and all are answered", async () => {
    let open = 0;
    let most = 0;
    const answer = (request: Request) => {
      most = Math.max(most, ++open);
      setImmediate(() => {
        open--;
        reply(request);
      });
    };
    await withServer(answer, { maxInFlight: 4 }, async (client) => {
      const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => ask(client, i)));
      assert.equal(answers.filter((answered, i) => answered === i + 1).length, 50);
      assert.ok(most <= 4, `${most} in flight`);
    });
  });

  test("a call without an answer ends at its deadline, others go on", async () => {
    await withServer(
      (request) => request.value !== 13 && reply(request),
      {},
      async (client) => {
        const silent = ask(client, 13, { timeoutMs: 100 });
        assert.equal(await ask(client, 1), 2);
        assert.equal(await silent, -ETIMEDOUT);
        assert.equal(await ask(client, 2), 3);
        assert.equal(client.unanswered, 0);
      },
    );
  });

  test("an answer that comes after the deadline is dropped, and is not taken for another's", async () => {
    let late: Request | null = null;
    const answer = (request: Request) => {
      if (request.value !== 13) return reply(request);
      late = request;
    };
    await withServer(answer, {}, async (client) => {
      assert.equal(await ask(client, 13, { timeoutMs: 50 }), -ETIMEDOUT);
      if (late !== null) reply(late);
      assert.equal(await ask(client, 1), 2);
    });
  });

  test("a broken connection is made anew, and calls are sent again with their numbers", async () => {
    const answer = (request: Request) => {
      if (request.connection < 3) request.socket.destroy();
      else reply(request);
    };
    await withServer(answer, {}, async (client, server) => {
      assert.deepEqual(await Promise.all([ask(client, 1), ask(client, 2)]), [2, 3]);
      assert.equal(server.connections, 3);
      assert.equal(new Set(server.received.map(({ xid }) => xid)).size, 2);
    });
  });

  test("the decoder is told that a call was sent more than once", async () => {
    const answer = (request: Request) => (request.connection === 1 ? request.socket.destroy() : reply(request));
    await withServer(answer, {}, async (client) => {
      const resent: boolean[] = [];
      for (let i = 0; i < 2; i++) {
        const call = client.prepare(1);
        call.args.u32(1);
        await client.send(call, (_reader, again) => {
          resent.push(again);
          return 0;
        });
      }
      assert.deepEqual(resent, [true, false]);
    });
  });

  test("a call is not sent more often than allowed", async () => {
    await withServer(
      (request) => request.socket.destroy(),
      { maxSends: 3 },
      async (client, server) => {
        assert.equal(await ask(client, 1), -ETIMEDOUT);
        assert.equal(server.received.length, 3);
      },
    );
  });

  test("after close() every call answers ENOTCONN, and queued bytes are dropped", async () => {
    let paused: net.Socket | null = null;
    const answer = (request: Request) => {
      paused = request.socket;
      reply(request);
      request.socket.pause();
    };
    await withServer(answer, {}, async (client, server) => {
      assert.equal(await ask(client, 1), 2);
      const large = Buffer.alloc(8 << 20, 7); // more than the sockets' buffers hold
      const call = client.prepare(1);
      call.args.u32(5).payload(large);
      const answered = client.send(call, () => 0);
      const other = ask(client, 6);
      client.close();
      assert.equal(await answered, -ENOTCONN);
      assert.equal(await other, -ENOTCONN);
      assert.equal(await ask(client, 7), -ENOTCONN);
      const socket = paused as unknown as net.Socket;
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.resume();
      await closed;
      assert.equal(server.received.length, 1);
    });
  });

  test("a buffer is not read any more once its call has been given up", async () => {
    let paused: net.Socket | null = null;
    const answer = (request: Request) => {
      if (request.value === 1) {
        paused = request.socket;
        reply(request);
        request.socket.pause();
      } else reply(request);
    };
    await withServer(answer, {}, async (client, server) => {
      assert.equal(await ask(client, 1), 2);
      const large = Buffer.alloc(8 << 20, 7);
      const call = client.prepare(1);
      call.args.u32(5).payload(large);
      assert.equal(await client.send(call, () => 0, { timeoutMs: 100 }), -ETIMEDOUT);
      large.fill(8);
      const socket = paused as unknown as net.Socket;
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.resume();
      await closed;
      assert.ok(server.received.every(({ bytes }) => bytes < 1_000));
      assert.equal(await ask(client, 2), 3);
    });
  });

  test("a silent connection is given up early where repetition is harmless", async () => {
    const answer = (request: Request) => request.connection === 2 && reply(request);
    await withServer(answer, { stallMs: 100 }, async (client, server) => {
      assert.equal(await ask(client, 1), 2);
      assert.equal(server.connections, 2);
    });
  });

  test("after a reconnection the hook's calls come first, then what was waiting", async () => {
    const answer = (request: Request) => {
      if (request.connection === 1 && request.value === 1) request.socket.destroy();
      else reply(request);
    };
    let client: RpcClient | null = null;
    const onReconnected = async () => {
      for (const value of [100, 101]) await ask(client as RpcClient, value, { urgent: true });
    };
    await withServer(answer, { onReconnected }, async (made, server) => {
      client = made;
      assert.deepEqual(await Promise.all([ask(made, 1), ask(made, 2)]), [2, 3]);
      const second = server.received.filter(({ connection }) => connection === 2).map(({ value }) => value);
      assert.deepEqual(second.slice(0, 3), [100, 101, 1]);
    });
  });

  test("what is no RPC answer is an error of its own, and nothing hangs", async () => {
    const answers: ((request: Request) => void)[] = [
      ({ socket, xid }) => socket.write(Buffer.from(`80000008${hex32(xid)}00000007`, "hex")),
      ({ socket, xid }) =>
        socket.write(Buffer.from(`8000001c${hex32(xid)}0000000100000000000000000000000000000002${hex32(3)}`, "hex")),
      ({ socket }) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"),
    ];
    const expected = [-EPROTO, -EPROTONOSUPPORT, -ETIMEDOUT];
    for (const [index, answer] of answers.entries()) {
      await withServer(answer, { maxSends: 2 }, async (client) => {
        assert.equal(await ask(client, 1), expected[index], `answer ${index}`);
      });
    }
  });

  test("open() tells the system's error", async () => {
    const server = new Server(() => {});
    const port = await server.listen();
    server.close();
    const client = new RpcClient({
      target: { addresses: ["127.0.0.1"], port },
      program: 1,
      version: 1,
      credential: authSys({ uid: 0, gid: 0, machine: "t" }),
      timeoutMs: 5_000,
      reservedPort: false,
    });
    await assert.rejects(client.open(), { code: "ECONNREFUSED" });
    client.close();
  });

  test("several addresses are tried in turn", async () => {
    const server = new Server(reply);
    const port = await server.listen();
    const client = new RpcClient({
      target: { addresses: ["127.0.0.9", "::1", "127.0.0.1"], port },
      program: 1,
      version: 1,
      credential: authSys({ uid: 0, gid: 0, machine: "t" }),
      timeoutMs: 5_000,
      reservedPort: false,
    });
    await client.open();
    assert.equal(await ask(client, 1), 2);
    client.close();
    server.close();
  });
});

function hex32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
