/** The contract of replicas through a server of ours; who has no certificate, and who was shut out. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { withDeadline } from "../replica/deadline.ts";
import { LocalReplica } from "../replica/local.ts";
import { OffloadedReplica } from "../replica/offload.ts";
import { RemoteReplica } from "../replica/remote.ts";
import { backendServerName } from "../replica/remote-open.ts";
import type { Replica } from "../replica/replica.ts";
import { replicaContract } from "../replica/testing/contract.ts";
import { ENODEV } from "../util/errno.ts";
import { silentLogger } from "../util/logger.ts";
import { BackendServer } from "./server.ts";
import { makeCertificates } from "./testing/certificates.ts";

const directory = mkdtempSync(join(tmpdir(), "chiron-backend-"));
after(() => rmSync(directory, { recursive: true, force: true }));

makeCertificates(join(directory, "ours"));
makeCertificates(join(directory, "others"));
const read = (...names: string[]) => readFileSync(join(directory, ...names));
const tlsOf = (authority: string, name: string, ca = authority) => ({
  key: read(authority, name, "tls.key"),
  cert: read(authority, name, "tls.crt"),
  ca: read(ca, "ca.crt"),
});

let trees = 0;
async function serve() {
  const path = join(directory, `tree-${trees++}`);
  mkdirSync(path);
  const inner = new OffloadedReplica({ name: "served", path });
  await inner.connect({ signal: AbortSignal.timeout(10_000) });
  const tls = tlsOf("ours", "server");
  const server = new BackendServer({ port: 0, host: "127.0.0.1", tls, replica: inner, logger: silentLogger });
  const port = await server.listen();
  const client = (authority = "ours", path: readonly string[] = []): Replica =>
    new RemoteReplica({
      name: "a",
      host: "127.0.0.1",
      port,
      tls: () => ({ ...tlsOf(authority, "client", "ours"), servername: backendServerName }),
      path,
    });
  return {
    path,
    client,
    async stop() {
      await server.close();
      await inner.disconnect();
    },
  };
}
const connected = async (replica: Replica) => {
  await replica.connect({ signal: AbortSignal.timeout(10_000) });
  return replica;
};

for (const [kind, wrap] of [
  ["a remote directory", (replica: Replica) => replica],
  ["a remote directory, with deadlines", (replica: Replica) => withDeadline(replica, 60_000)],
] as const)
  replicaContract(kind, async () => {
    const served = await serve();
    return {
      replica: wrap(served.client()),
      another: () => new LocalReplica({ name: "a", path: served.path }),
      vanish: () => {
        renameSync(served.path, `${served.path}-away`);
        mkdirSync(served.path);
      },
      dispose: () => served.stop(),
    };
  });

describe("a server of a directory", () => {
  const top = { parent: null, name: "" };
  const owner = { uid: 0, gid: 0 };

  it("answers nobody without a certificate by its authority", async () => {
    const served = await serve();
    await assert.rejects(connected(served.client("others")), /cannot be used/);
    const replica = await connected(served.client());
    assert.equal(await replica.check(), 0);
    await replica.disconnect();
    await served.stop();
  });

  it("shuts out whoever had the volume before, with its handles, and lets the others be", async () => {
    const served = await serve();
    const [first, second, bystander] = await Promise.all([1, 2, 3].map(() => connected(served.client())));
    assert.ok(first && second && bystander);
    await first.takeOver?.("volume");
    const handle = await first.create(top, "file", 0o644, owner, null);
    assert.ok(handle >= 0);
    // Calls that are under way have ended when the next one has the volume.
    const writes = Array.from({ length: 50 }, (_, i) =>
      Promise.resolve(first.write(handle, Buffer.from(`${i % 10}`), i)),
    );
    await second.takeOver?.("volume");
    const before = readFileSync(join(served.path, "file"), "utf8");
    assert.ok((await first.write(handle, Buffer.from("late"), 0)) < 0);
    assert.ok((await first.mkdir(top, "late", 0o755, owner, null)) < 0);
    await Promise.all(writes);
    assert.equal(readFileSync(join(served.path, "file"), "utf8"), before);
    assert.equal(await second.mkdir(top, "d", 0o755, owner, null), 0);
    assert.equal(await bystander.check(), 0);
    await Promise.all([first, second, bystander].map((replica) => replica.disconnect()));
    await served.stop();
  });

  it("serves a directory below its own, and tells when that is gone", async () => {
    const served = await serve();
    await assert.rejects(connected(served.client("ours", ["sub", "dir"])), /ENOENT/);
    mkdirSync(join(served.path, "sub/dir"), { recursive: true });
    const replica = await connected(served.client("ours", ["sub", "dir"]));
    assert.equal(await replica.mkdir(top, "made", 0o755, owner, null), 0);
    assert.deepEqual(readdirSync(join(served.path, "sub/dir")), ["made"]);
    assert.equal(await replica.check(), 0);
    rmSync(join(served.path, "sub"), { recursive: true });
    assert.equal(await replica.check(), -ENODEV);
    await replica.disconnect();
    await served.stop();
  });

  it("lets no name lead out of its directory", async () => {
    const served = await serve();
    writeFileSync(join(directory, "outside"), "x");
    const replica = await connected(served.client());
    for (const name of ["..", "../outside", "a/b", ".", ""]) {
      assert.ok((await replica.lookup(top, name, null)) < 0, name);
      assert.ok((await replica.unlink({ parent: top, name }, "outside")) < 0, name);
    }
    assert.equal(readFileSync(join(directory, "outside"), "utf8"), "x");
    await replica.disconnect();
    await served.stop();
  });

  it("is used again when it has been started anew, and what was under way answers at once", async () => {
    const served = await serve();
    const replica = await connected(served.client());
    await served.stop();
    assert.ok((await replica.check()) < 0);
    await replica.disconnect();
    await assert.rejects(connected(replica), /check that its pod runs/);
  });
});
