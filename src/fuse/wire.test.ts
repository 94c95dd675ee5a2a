/** The session without a kernel: what it replies to which bytes. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { EINTR, EIO, ENOENT, ENOSYS, EPROTO } from "../util/errno.ts";
import * as abi from "./abi.ts";
import type { Request } from "./filesystem.ts";
import { MemoryFileSystem } from "./testing/memory-file-system.ts";
import { cstr, request, u32, u64 } from "./testing/requests.ts";
import { Wire } from "./testing/wire.ts";

const options = { timeout: 60_000 };
const init = request(abi.FUSE_INIT, { unique: 2n }, u32(7, 45, 131_072, 0xffff_ffff, 0xffff_ffff), Buffer.alloc(44));
const lookup = (unique: bigint, name = "none") => request(abi.FUSE_LOOKUP, { unique }, cstr(name));

/** What answers a STATFS; each test sets it. */
class Settable extends MemoryFileSystem {
  answer: (request: Request) => number | Promise<number> = () => 0;
  destroyed = 0;

  override statfs(request: Request): number | Promise<number> {
    return this.answer(request);
  }

  destroy(): void {
    this.destroyed++;
  }
}

const statfs = (unique: bigint) => request(abi.FUSE_STATFS, { unique });

async function started(): Promise<{ wire: Wire; fs: Settable; stack: AsyncDisposableStack }> {
  const stack = new AsyncDisposableStack();
  const fs = new Settable();
  const wire = stack.use(new Wire(fs, { maxWriteBytes: 1 << 17 }));
  wire.session.start();
  wire.send(init);
  const [reply] = await wire.replies();
  assert.equal(reply?.error, 0);
  return { wire, fs, stack };
}

describe("a session on the wire", options, () => {
  test("agrees with the kernel before all else", async () => {
    const { wire, stack } = await started();
    await using _ = stack;
    assert.equal(wire.session.negotiated?.minor, 45);
    assert.equal(wire.session.negotiated?.maxWriteBytes, 1 << 17);
    assert.deepEqual(wire.log, []);
  });

  test("says so when the kernel is too old", async () => {
    await using wire = new Wire(new Settable());
    wire.session.start();
    wire.send(request(abi.FUSE_INIT, { unique: 2n }, u32(7, 20, 0, 0)));
    assert.deepEqual(
      (await wire.replies()).map(({ error }) => error),
      [-EPROTO],
    );
    assert.match(wire.log.join(), /7\.20/);
  });

  test("replies once to each request, with its number, resend bit included", async () => {
    const { wire, stack } = await started();
    await using _ = stack;
    const uniques = [4n, 6n, (1n << 63n) | 8n, 2n ** 40n];
    for (const unique of uniques) wire.send(lookup(unique));
    assert.deepEqual(
      (await wire.replies()).map(({ unique }) => unique),
      uniques,
    );
  });

  test("answers EIO and logs where a method throws, rejects, or answers what is no errno", async () => {
    const { wire, fs, stack } = await started();
    await using _ = stack;
    const bugs: (() => number | Promise<number>)[] = [
      () => {
        throw new Error("thrown");
      },
      async () => {
        throw new Error("rejected");
      },
      () => -512,
      () => Number.NaN,
      async () => -0.5,
    ];
    for (const [i, bug] of bugs.entries()) {
      fs.answer = bug;
      wire.send(statfs(BigInt(4 + 2 * i)));
      assert.deepEqual(
        (await wire.replies()).map(({ error }) => error),
        [-EIO],
        String(bug),
      );
      assert.equal(wire.log.length, i + 1);
    }
    assert.match(wire.log[1] ?? "", /rejected/);
  });

  test("answers EIO where a method claims to have read more than was asked for", async () => {
    const { wire, fs, stack } = await started();
    await using _ = stack;
    fs.read = () => 101;
    wire.send(request(abi.FUSE_READ, { unique: 4n }, u64(1n, 0n), u32(100, 0), u64(0n), u32(0, 0)));
    assert.deepEqual(
      (await wire.replies()).map(({ error }) => error),
      [-EIO],
    );
  });

  test("keeps the data of a write until its method has answered, whatever comes in between", async () => {
    const { wire, fs, stack } = await started();
    await using _ = stack;
    const seen: string[] = [];
    fs.write = async (_request, _node, _handle, _offset, data) => {
      for (let i = 0; i < 5; i++) await new Promise(setImmediate);
      seen.push(Buffer.from(data).toString());
      return data.byteLength;
    };
    for (let i = 0; i < 20; i++) {
      const data = Buffer.from(`data of ${i}`);
      const unique = BigInt(4 + 2 * i);
      wire.send(request(abi.FUSE_WRITE, { unique }, u64(1n, 0n), u32(data.byteLength, 0), u64(0n), u32(0, 0), data));
    }
    const replies = await wire.replies();
    assert.deepEqual(seen.toSorted(), Array.from({ length: 20 }, (_, i) => `data of ${i}`).toSorted());
    assert.equal(replies.length, 20);
    assert.ok(replies.every(({ body }) => [9, 10].includes(body.readUInt32LE(0))));
  });

  test("aborts the signal of a request that is interrupted, also where the interrupt came first", async () => {
    const { wire, fs, stack } = await started();
    await using _ = stack;
    fs.answer = (asking) => {
      if (asking.signal.aborted) return -EINTR;
      return new Promise((resolve) => asking.signal.addEventListener("abort", () => resolve(-EINTR)));
    };
    wire.send(statfs(4n));
    assert.deepEqual(await wire.replies(), []);
    wire.send(request(abi.FUSE_INTERRUPT, { unique: 5n }, u64(4n)));
    assert.deepEqual(
      (await wire.replies()).map(({ unique, error }) => [unique, error]),
      [[4n, -EINTR]],
    );
    wire.send(request(abi.FUSE_INTERRUPT, { unique: 7n }, u64((1n << 63n) | 6n)));
    wire.send(statfs((1n << 63n) | 6n));
    assert.deepEqual(
      (await wire.replies()).map(({ error }) => error),
      [-EINTR],
    );
  });

  test("stops reading, waits for what is under way, and leaves the descriptor to the next one", async () => {
    const { wire, fs, stack } = await started();
    await using _ = stack;
    const { promise, resolve } = Promise.withResolvers<number>();
    fs.answer = () => promise;
    wire.send(statfs(4n));
    assert.deepEqual(await wire.replies(), []);
    const stopped = wire.session.stop(10_000);
    wire.send(lookup(6n));
    assert.deepEqual(await wire.replies(), []);
    resolve(0);
    assert.equal(await stopped, 0);
    assert.equal(await wire.session.ended, "stopped");
    assert.deepEqual(
      (await wire.replies()).map(({ unique }) => unique),
      [4n],
    );
  });

  test("gives up waiting for what does not end", async () => {
    const { wire, fs, stack } = await started();
    await using _ = stack;
    fs.answer = () => new Promise(() => {});
    wire.send(statfs(4n));
    assert.deepEqual(await wire.replies(), []);
    assert.equal(await wire.session.stop(20), 1);
  });

  test("asks for requests to be sent again when it resumes", async () => {
    await using wire = new Wire(new Settable());
    const flags = abi.FUSE_SETXATTR_EXT;
    assert.equal(wire.session.resume({ minor: 45, flags, maxWriteBytes: 1 << 21 }), "resent");
    const [resend] = await wire.replies();
    assert.deepEqual([resend?.unique, resend?.error], [0n, abi.FUSE_NOTIFY_RESEND]);
    wire.send(lookup((1n << 63n) | 4n));
    assert.equal((await wire.replies())[0]?.unique, (1n << 63n) | 4n);
    assert.equal(wire.session.negotiated?.maxWriteBytes, 1 << 21);
  });

  test("destroys the file system once when it is unmounted", async () => {
    const { wire, fs } = await started();
    wire.send(request(abi.FUSE_DESTROY, { unique: 4n }));
    assert.equal((await wire.replies())[0]?.error, 0);
    wire.hangUp();
    assert.equal(await wire.session.ended, "unmounted");
    assert.equal(fs.destroyed, 1);
  });

  test("survives any bytes: a reply or none to each message, and then it goes on", async () => {
    const { wire, stack } = await started();
    await using _ = stack;
    const body = fc.uint8Array({ maxLength: 120 });
    const head = fc.record({ opcode: fc.integer({ min: 0, max: 60 }), node: fc.bigInt({ min: 0n, max: 3n }) });
    const whole = fc
      .tuple(head, body)
      .map(([{ opcode, node }, bytes]) => request(opcode, { unique: 10n, node }, bytes));
    const any = fc.oneof(whole, fc.uint8Array({ minLength: 1, maxLength: 200 }));
    await fc.assert(
      fc.asyncProperty(fc.array(any, { minLength: 1, maxLength: 20 }), async (messages) => {
        for (const message of messages) wire.send(message);
        const replies = await wire.replies();
        assert.ok(replies.length <= messages.length);
        wire.log.length = 0;
        wire.send(request(abi.FUSE_IOCTL, { unique: 4n }, Buffer.alloc(32)));
        assert.equal((await wire.replies()).at(-1)?.unique, 4n);
      }),
      { numRuns: 200 },
    );
  });

  test("answers ENOSYS to what it does not know and ENOENT to what is not there", async () => {
    const { wire, stack } = await started();
    await using _ = stack;
    wire.send(request(4000, { unique: 4n }, Buffer.alloc(3)));
    wire.send(request(abi.FUSE_UNLINK, { unique: 6n }, cstr("none")));
    assert.deepEqual(
      (await wire.replies()).map(({ error }) => error),
      [-ENOSYS, -ENOENT],
    );
  });
});
