/** What is kept until COMMIT, against a server that forgets: a protocol of our own making, with a disk and a cache. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { FileHandle, NfsProtocol, WriteResult } from "../nfs/protocol.ts";
import { NfsUnstable } from "./nfs-unstable.ts";

/** Files as a server has them: what is stable, and what a restart loses. Each call takes some turns of the loop. */
class ForgetfulServer {
  readonly stable = new Map<string, Buffer>();
  readonly cached = new Map<string, Buffer>();
  instance = 1;
  readonly #turns: () => number;

  constructor(turns: () => number) {
    this.#turns = turns;
  }

  /** As the protocol has it: stable when it is answered. */
  async truncate(handle: FileHandle, size: number): Promise<number> {
    await this.#wait();
    for (const contents of [this.stable, this.cached]) contents.get(handle.toString())?.fill(0, size);
    return 0;
  }

  restart(): void {
    this.instance++;
    this.cached.clear();
  }

  content(handle: FileHandle): Buffer {
    const key = handle.toString();
    return this.cached.get(key) ?? this.stable.get(key) ?? Buffer.alloc(64);
  }

  get protocol(): NfsProtocol {
    return {
      write: async (handle: FileHandle, _state: null, data: Uint8Array, position: number, result: WriteResult) => {
        await this.#wait();
        const content = Buffer.from(this.content(handle));
        content.set(data, position);
        this.cached.set(handle.toString(), content);
        Object.assign(result, { stable: false, verifier: String(this.instance) });
        return data.length;
      },
      getattr: async () => 0,
      setattr: async () => 0,
      commit: async (handle: FileHandle, result: WriteResult) => {
        await this.#wait();
        this.stable.set(handle.toString(), Buffer.from(this.content(handle)));
        Object.assign(result, { stable: true, verifier: String(this.instance) });
        return 0;
      },
    } as unknown as NfsProtocol;
  }

  async #wait(): Promise<void> {
    for (let turns = this.#turns(); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
  }
}

const file = Buffer.from("file");

const write = (at: number, byte: number) => ({ kind: "write", at, byte }) as const;
const commit = { kind: "commit" } as const;
const restart = { kind: "restart" } as const;

describe("uncommitted writes", () => {
  test("what a restart lost is written again by the next commit, in its order", async () => {
    const server = new ForgetfulServer(() => 0);
    const unstable = new NfsUnstable(server.protocol);
    await unstable.write(server.protocol, file, null, Buffer.from("aaaaaaaa"), 0);
    await unstable.write(server.protocol, file, null, Buffer.from("bb"), 2);
    server.restart();
    await unstable.write(server.protocol, file, null, Buffer.from("c"), 3);
    assert.equal(await unstable.commit(file), 0);
    assert.equal(server.stable.get("file")?.toString("latin1", 0, 8), "aabcaaaa");
    assert.equal(unstable.bytes, 0);
  });

  test("past the bound files are committed early, and memory is given back", async () => {
    const server = new ForgetfulServer(() => 1);
    const unstable = new NfsUnstable(server.protocol, { softBytes: 64, hardBytes: 128 });
    for (let i = 0; i < 200; i++) {
      const handle = Buffer.from(`file-${i % 50}`);
      await unstable.write(server.protocol, handle, null, Buffer.alloc(16, i), (i % 4) * 16);
      assert.ok(unstable.bytes <= 128 + 16, `${unstable.bytes} bytes are kept`);
    }
    assert.equal(await unstable.commitAll(), 0);
    assert.equal(unstable.bytes, 0);
  });

  test("whatever the order of writes, commits, restarts and recoveries: what was committed is there", async () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          kind: fc.constant("write" as const),
          at: fc.nat(56),
          byte: fc.integer({ min: 1, max: 255 }),
        }),
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("commit" as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("truncate" as const), size: fc.nat(64) }) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 40 }),
        fc.array(fc.nat(3), { minLength: 1 }),
        async (steps, turns) => {
          let turn = 0;
          const server = new ForgetfulServer(() => turns[turn++ % turns.length] ?? 0);
          const unstable = new NfsUnstable(server.protocol, { softBytes: 40, hardBytes: 80 });
          const expected = Buffer.alloc(64);
          const commits: Promise<number>[] = [];
          for (const next of steps) {
            if (next.kind === "write") {
              const data = Buffer.alloc(8, next.byte);
              data.copy(expected, next.at);
              assert.equal(await unstable.write(server.protocol, file, null, data, next.at), 8);
            } else if (next.kind === "truncate") {
              expected.fill(0, next.size);
              await unstable.truncate(file, next.size, () => server.truncate(file, next.size));
            } else if (next.kind === "commit") {
              commits.push(unstable.commit(file));
            } else {
              server.restart();
              await unstable.recover();
            }
          }
          assert.ok((await Promise.all(commits)).every((result) => result === 0));
          assert.equal(await unstable.commitAll(), 0);
          server.restart();
          assert.equal(server.content(file).toString("hex"), expected.toString("hex"));
          assert.equal(unstable.bytes, 0);
        },
      ),
      {
        numRuns: 500,
        // A COMMIT that is answered while lost writes are being written again does not cover them.
        examples: [
          [
            [write(0, 1), write(0, 1), write(0, 1), commit, write(0, 1), write(0, 2), commit, restart],
            [1, 0, 3, 2, 0],
          ],
        ],
      },
    );
  });
});
