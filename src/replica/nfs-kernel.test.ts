import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseNfsUrl } from "../nfs/url.ts";
import { KernelNfsReplica, kernelMountOptions } from "./nfs-kernel.ts";
import { ReplicaError } from "./replica.ts";

const common = "proto=tcp,softerr,timeo=33,retrans=1,retry=0,sync,nosharecache,noatime";

test("what the kernel's client is told says the version, the ports, and that no call lasts for ever", () => {
  const options = (url: string) => kernelMountOptions(parseNfsUrl(url), 10_000);
  assert.equal(options("nfs://mars/export?kernel=1"), `vers=4.1,${common}`);
  assert.equal(options("nfs://mars:2050/export?kernel=1&version=4.1"), `vers=4.1,port=2050,${common}`);
  const v3 = options("nfs://mars/export?kernel=1&version=3&mountport=20048");
  assert.equal(v3, `vers=3,nolock,mountproto=tcp,mountport=20048,${common}`);
});

test("a kernel without an NFS client is said to have none, with what to do", async (t) => {
  if (/\snfs4?$/m.test(readFileSync("/proc/filesystems", "latin1"))) {
    t.skip("this one has one");
    return;
  }
  const privateDirectory = mkdtempSync(join(tmpdir(), "chiron-kernel-"));
  try {
    const url = parseNfsUrl("nfs://mars/export?kernel=1");
    const replica = new KernelNfsReplica(url, { name: "mars", privateDirectory, deadlineMs: 1_000 });
    await assert.rejects(replica.connect({ signal: AbortSignal.timeout(60_000) }), (error: unknown) => {
      assert.ok(error instanceof ReplicaError);
      assert.match(error.message, /^Replica "mars": nfs:\/\/mars\/export\?kernel=1: .*has no NFS client.*modprobe nfs/);
      return true;
    });
    assert.deepEqual(readdirSync(privateDirectory), []);
    await replica.disconnect();
  } finally {
    rmSync(privateDirectory, { recursive: true, force: true });
  }
});
