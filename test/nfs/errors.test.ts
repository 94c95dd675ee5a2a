/** What people read when an export cannot be used: one clear line that names the replica, the server and what to check. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseNfsUrl } from "../../src/nfs/url.ts";
import { NfsReplica } from "../../src/replica/nfs-replica.ts";
import { ReplicaError } from "../../src/replica/replica.ts";
import { available, freePort, Ganesha } from "./ganesha.ts";

const connect = async (url: string, signal = AbortSignal.timeout(60_000)) => {
  const replica = new NfsReplica("mars", parseNfsUrl(url), {});
  try {
    await replica.connect({ signal });
    return replica;
  } catch (error) {
    await replica.disconnect();
    throw error;
  }
};

async function refusedWith(url: string, ...expected: RegExp[]): Promise<void> {
  await assert.rejects(connect(url), (error: Error) => {
    assert.ok(error instanceof ReplicaError, error.stack);
    assert.match(error.message, /^Replica "mars": nfs:\/\/127\.|^Replica "mars": nfs:\/\/no-such/);
    assert.ok(!error.message.includes("\n"));
    for (const pattern of expected) assert.match(error.message, pattern);
    return true;
  });
}

describe("errors of NFS replicas", { skip: available ? false : "needs root, nfs-ganesha and rpcbind" }, () => {
  let server: Ganesha;
  before(async () => {
    server = await Ganesha.start({ exports: ["export", "other"] });
    mkdirSync(join(server.directory, "export/inside"));
    writeFileSync(join(server.directory, "export/file"), "");
  });
  after(() => server[Symbol.asyncDispose]());

  test("an unknown host", async () => {
    await refusedWith(
      "nfs://no-such-host.invalid/export",
      /no-such-host\.invalid is not known: check the name, and DNS/,
    );
  });

  test("nobody listens", async () => {
    const port = await freePort();
    for (const version of ["3", "4.1"]) {
      const url = `nfs://127.0.0.1:${port}/export?version=${version}&mountport=${port}`;
      await refusedWith(url, new RegExp(`127\\.0\\.0\\.1 port ${port} refuses connections: is the NFS server running`));
    }
  });

  test("a server that accepts and never answers", async () => {
    const silent = net.createServer((socket) => void socket.on("error", () => {}));
    const port = await freePort();
    await new Promise<void>((resolve) => silent.listen(port, "127.0.0.1", resolve));
    try {
      for (const version of ["3", "4.1"]) {
        const url = `nfs://127.0.0.1:${port}/export?version=${version}&mountport=${port}&timeout=300ms`;
        await refusedWith(url, /does not answer in time: check that the server runs, and that no firewall/);
      }
    } finally {
      silent.close();
    }
  });

  for (const version of ["3", "4.1"] as const) {
    test(`v${version}: a path that is not exported or not there`, async () => {
      await refusedWith(server.url(version, "/nowhere"), /nowhere/, /check|exist/);
      await refusedWith(server.url(version, "/export/nowhere"), /directory \/nowhere does not exist in the export/);
    });

    test(`v${version}: a path that is a file`, async () => {
      await refusedWith(server.url(version, "/export/file"), /not a directory/);
    });

    test(`v${version}: a directory below the export`, async () => {
      const replica = await connect(server.url(version, "/export/inside"));
      assert.equal(await replica.check(), 0);
      await replica.disconnect();
    });

    test(`v${version}: told to give up, connecting ends at once with that reason`, async () => {
      const silent = net.createServer((socket) => void socket.on("error", () => {}));
      const port = await freePort();
      await new Promise<void>((resolve) => silent.listen(port, "127.0.0.1", resolve));
      const giveUp = new AbortController();
      setTimeout(() => giveUp.abort(new Error("told to")), 50);
      const url = `nfs://127.0.0.1:${port}/export?version=${version}&mountport=${port}`;
      await assert.rejects(connect(url, giveUp.signal), /told to/);
      silent.close();
    });
  }

  test("a version that the server does not have", async () => {
    await using only3 = await Ganesha.start({ protocols: "3", version: "3" });
    await refusedWith(only3.url("4.1"), /does not serve NFS v4\.1/);
    const chosen = await connect(only3.url("3").replace("version=3&", ""));
    assert.equal(chosen.protocolVersion, "3");
    await chosen.disconnect();
    await using only4 = await Ganesha.start({ protocols: "4", version: "4" });
    await refusedWith(only4.url("3"), /does not serve NFS v3|mount service|refuses connections/);
  });

  test("v4.1 is the default where the server has it", async () => {
    const replica = await connect(server.url("3").replace("version=3&", ""));
    assert.match(replica.protocolVersion ?? "", /^4\.[12]$/);
    assert.equal(replica.fence, "none");
    await replica.takeOver("volume");
    assert.equal(replica.fence, "session");
    await replica.disconnect();
  });

  test("a server that squashes root, and one that is read-only", async () => {
    for (const version of ["3", "4.1"] as const) {
      await using squashing = await Ganesha.start({ squash: "Root_Squash" });
      mkdirSync(join(squashing.directory, "export/.chiron"), { mode: 0o777 });
      const squashed = await connect(squashing.url(version));
      await assert.rejects(squashed.probe(), /no_root_squash|read-only/);
      await squashed.disconnect();
      await using readOnly = await Ganesha.start({ access: "RO" });
      mkdirSync(join(readOnly.directory, "export/.chiron"));
      const replica = await connect(readOnly.url(version));
      await assert.rejects(replica.probe(), /is the export read-only\?/);
      await replica.disconnect();
    }
  });
});
