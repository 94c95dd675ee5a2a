import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { SharedBackends } from "./shared-backends.ts";

const never = new AbortController().signal;

class Counted extends MemoryReplica {
  static made: Counted[] = [];
  connects = 0;
  disconnects = 0;
  constructor() {
    super();
    Counted.made.push(this);
  }
  override async connect(options: { readonly signal: AbortSignal }): Promise<void> {
    this.connects += 1;
    await super.connect(options);
  }
  override async disconnect(): Promise<void> {
    this.disconnects += 1;
    await super.disconnect();
  }
}

class Hanging extends MemoryReplica {
  override connect({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    return new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new Error("it does not answer")));
    });
  }
}

test("many at once have one connection, which ends with the last of them", async () => {
  Counted.made = [];
  const backends = new SharedBackends(() => new Counted(), 1_000);
  const used = await Promise.all(
    Array.from({ length: 50 }, (_, index) =>
      backends.use(index % 2 ? "/a" : "/b", never, async (backend) => {
        await delay(10);
        return backend;
      }),
    ),
  );
  assert.equal(new Set(used).size, 2);
  await backends.use("/a", never, async () => {});
  assert.deepEqual(
    Counted.made.map(({ connects, disconnects }) => [connects, disconnects]),
    [
      [1, 1],
      [1, 1],
      [1, 1],
    ],
  );
});

test("who comes after a failure has a connection of its own, and who is at work keeps the old one", async () => {
  Counted.made = [];
  const backends = new SharedBackends(() => new Counted(), 1_000);
  const end = Promise.withResolvers<void>();
  const first = backends.use("/a", never, () => end.promise);
  await assert.rejects(
    backends.use("/a", never, () => Promise.reject(new Error("EIO"))),
    /EIO/,
  );
  await backends.use("/a", never, async () => assert.equal(Counted.made.length, 2));
  assert.equal(Counted.made[0]?.disconnects, 0);
  end.resolve();
  await first;
  assert.deepEqual(
    Counted.made.map(({ disconnects }) => disconnects),
    [1, 1],
  );
});

test("whoever gives up on a connection that hangs hears of it at once, the others in time", async () => {
  const backends = new SharedBackends(() => new Hanging(), 200);
  const impatient = new AbortController();
  const one = backends.use("/a", impatient.signal, async () => {});
  const other = backends.use("/a", never, async () => {});
  impatient.abort(new Error("no time"));
  await assert.rejects(one, /no time/);
  await assert.rejects(other, /does not answer/);
});
