import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { MemoryDisk } from "../replica/testing/memory-disk.ts";
import { silentLogger } from "../util/logger.ts";
import { start } from "../util/op.ts";
import { ReplicaControlFiles } from "./control-files.ts";
import { HostBusyError, HostClaim, parseHostRecord } from "./host-claim.ts";

const leaseMs = 10_000;

/** A clock that tests move, and two replicas that hosts share. */
async function setup() {
  const disks = [new MemoryDisk(), new MemoryDisk()];
  let now = 0;
  const onPause: (() => Promise<unknown>)[] = [];
  const host = async (name: string) => {
    const voters = await Promise.all(
      disks.map(async (disk, i) => {
        const replica = new MemoryReplica(disk, { name: `r${i}` });
        await replica.connect({ signal: new AbortController().signal });
        const files = new ReplicaControlFiles(replica);
        await start(files.create());
        return { name: `r${i}`, files, replica };
      }),
    );
    const pause = async (ms: number) => {
      now += ms;
      for (const act of onPause) await act();
    };
    const claim = new HostClaim(
      { pause, nowMs: () => now, log: silentLogger },
      { host: name, mountpoint: "/srv/web", mount: `${name}:web`, leaseMs },
    );
    claim.voters = () => voters;
    return { claim, voters };
  };
  return { host, onPause, time: () => now };
}

test("a host is refused with the name of the one that has the volume, as long as that shows signs of life", async () => {
  const { host, onPause } = await setup();
  const alpha = await host("alpha");
  const beta = await host("beta");
  await beta.claim.wait(); // nobody has it
  await alpha.claim.beat(true);
  onPause.push(() => alpha.claim.beat());
  await assert.rejects(beta.claim.wait(), (error: unknown) => {
    assert.ok(error instanceof HostBusyError);
    assert.match(error.message, /mounted on host "alpha" \(at \/srv\/web\)/);
    return true;
  });
  onPause.length = 0;
  await alpha.claim.release();
  await beta.claim.wait();
});

test("a host that shows no sign of life for its lease is taken over, and finds that out at its next beat", async () => {
  const { host, time } = await setup();
  const alpha = await host("alpha");
  const beta = await host("beta");
  await alpha.claim.beat(true);
  await beta.claim.wait();
  assert.ok(time() >= leaseMs);
  await beta.claim.beat(true);
  assert.equal(await alpha.claim.beat(), false);
  assert.equal(await beta.claim.beat(), true);
  await alpha.claim.release(); // not its own any more
  assert.equal(await beta.claim.beat(), true);
});

test("a mount that goes on for an earlier process of its own is not kept waiting", async () => {
  const { host, time } = await setup();
  await (await host("alpha")).claim.beat(true);
  await (await host("alpha")).claim.wait();
  assert.equal(time(), 0);
});

test("a beat counts if one voter takes it, and fails if none does", async () => {
  const { host } = await setup();
  const { claim, voters } = await host("alpha");
  await claim.beat(true);
  await voters[0]?.replica.disconnect();
  assert.equal(await claim.beat(), true);
  await voters[1]?.replica.disconnect();
  await assert.rejects(claim.beat());
});

test("what is no record of a host is nobody's", () => {
  for (const text of ["", "{", "[]", '{"host":"a"}', '{"host":1,"mountpoint":"","mount":"","beat":1,"leaseMs":1}']) {
    assert.equal(parseHostRecord(Buffer.from(text)), null, text);
  }
});
