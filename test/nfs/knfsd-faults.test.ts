/** What only Linux's own server shows: a power cut that loses what was not committed, its grace period, its fence. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { parseNfsUrl } from "../../src/nfs/url.ts";
import { NfsReplica, type NfsReplicaOptions } from "../../src/replica/nfs-replica.ts";
import { ok, Place, root } from "../../src/replica/testing/subject.ts";
import { ESTALE } from "../../src/util/errno.ts";
import { available, Knfsd } from "./knfsd.ts";

describe("faults of Linux's own server", { skip: available ? false : "needs root and qemu" }, () => {
  let server: Knfsd;
  const top = new Place(null, "");
  before(async () => {
    server = await Knfsd.start();
  });
  after(() => server[Symbol.asyncDispose]());

  const connect = async (version: "3" | "4.1", options: Partial<NfsReplicaOptions> = {}) => {
    const target = parseNfsUrl(server.url(version, `/export/faults-${version}`, "&timeout=120s"));
    const replica = new NfsReplica("mars", target, {
      makeDirectory: { mode: 0o755 },
      ...options,
    });
    await replica.connect({ signal: AbortSignal.timeout(120_000) });
    await replica.takeOver("volume");
    return replica;
  };

  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: what a power cut lost of uncommitted writes is written again, before anybody reads it`, async () => {
      const replica = await connect(version);
      const handle = await ok(replica.create(top, "f", 0o644, root, null));
      const expected = Buffer.alloc(300_000);
      for (let i = 0; i < 30; i++) {
        const block = Buffer.alloc(10_000, 65 + (i % 26));
        block.copy(expected, i * 10_000);
        assert.equal(await ok(replica.write(handle, block, i * 10_000)), 10_000);
      }
      expected.fill("overwritten", 5_000, 25_000);
      await ok(replica.write(handle, expected.subarray(5_000, 25_000), 5_000));
      await server.kill();
      const reading = (async () => {
        const into = Buffer.alloc(400_000);
        const count = await ok(replica.read(handle, into, 0));
        return into.subarray(0, count);
      })();
      const more = replica.write(handle, Buffer.from("the end"), 300_000);
      await server.boot();
      const read = await reading;
      assert.ok(read.subarray(0, 300_000).equals(expected));
      assert.equal(await more, 7);
      await ok(replica.fsync(handle, false));
      await server.kill(); // what was committed survives the next one by itself
      await server.boot();
      const into = Buffer.alloc(400_000);
      assert.equal(await ok(replica.read(handle, into, 0)), 300_007);
      assert.equal(into.toString("latin1", 300_000, 300_007), "the end");
      assert.ok(into.subarray(0, 300_000).equals(expected));
      await ok(replica.close(handle));
      await ok(replica.close(await ok(replica.create(top, "g", 0o644, root, null))));
      await replica.disconnect();
    });
  }

  test("v4.1: who takes over later shuts out who did before", async () => {
    let fenced = 0;
    const old = await connect("4.1", { onFenced: () => fenced++ });
    const handle = await ok(old.create(top, "fenced", 0o644, root, null));
    await ok(old.write(handle, Buffer.from("old"), 0));
    const fresh = await connect("4.1");
    assert.equal(await old.write(handle, Buffer.from("STALE"), 0), -ESTALE);
    assert.equal(await old.unlink(top, "fenced"), -ESTALE);
    assert.equal(fenced, 1);
    const again = await ok(fresh.open(top.child("fenced"), "read-write"));
    await ok(fresh.write(again, Buffer.from("new"), 0));
    assert.equal(await old.write(handle, Buffer.from("STALE"), 0), -ESTALE);
    const into = Buffer.alloc(10);
    assert.equal(into.toString("latin1", 0, await ok(fresh.read(again, into, 0))), "new");
    await old.disconnect();
    await fresh.disconnect();
  });
});
