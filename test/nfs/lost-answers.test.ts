/**
 * The server dies after it got a change and before it answered: whether it had done it or not, the change is done once when
 * the answer comes from the server's next life.
 */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { parseNfsUrl } from "../../src/nfs/url.ts";
import { NfsReplica } from "../../src/replica/nfs-replica.ts";
import { ok, Place, refused, root } from "../../src/replica/testing/subject.ts";
import { EEXIST, ENOENT } from "../../src/util/errno.ts";
import { FileAttr } from "../../src/util/file-attr.ts";
import { available, Ganesha, pause } from "./ganesha.ts";
import { FaultyProxy } from "./proxy.ts";

describe("answers that are lost with the server", {
  skip: available ? false : "needs root, nfs-ganesha, rpcbind",
}, () => {
  let server: Ganesha;
  let proxy: FaultyProxy;
  let directory: string;
  let trees = 0;
  const top = new Place(null, "");

  before(async () => {
    server = await Ganesha.start();
  });
  after(() => server[Symbol.asyncDispose]());
  beforeEach(async () => {
    proxy = await FaultyProxy.start(server.port);
    directory = join(server.directory, "export", `tree-${trees++}`);
    mkdirSync(directory);
  });
  afterEach(async () => {
    await proxy[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  for (const version of ["3", "4.1"] as const) {
    for (const [what, lose] of [
      ["had done it", () => proxy.swallowAnswers()],
      ["never got it", () => proxy.hold()],
    ] as const) {
      test(`v${version}: a server that dies before it answers and ${what}: each kind of change is done once`, async () => {
        const target = parseNfsUrl(server.url(version, `/export/tree-${trees - 1}`, "&timeout=20s"));
        const replica = new NfsReplica("mars", { ...target, port: proxy.port }, {});
        try {
          await replica.connect({ signal: AbortSignal.timeout(60_000) });
          await replica.takeOver(`volume-${trees}`);
          const make = async (name: string) =>
            ok(replica.close(await ok(replica.create(top, name, 0o644, root, null))));
          for (const name of ["file", "old-file", "old-name", "over", "under"]) await make(name);
          await ok(replica.mkdir(top, "old-dir", 0o755, root, null));
          await ok(replica.mkdir(top, "moving", 0o755, root, null));
          const handle = await ok(replica.open(top.child("file"), "read-write"));
          await ok(replica.write(handle, Buffer.from("content"), 0));
          await ok(replica.fsync(handle, false));
          const changes: readonly (readonly [string, () => number | Promise<number>])[] = [
            ["create", () => replica.create(top, "new-file", 0o600, { uid: 7, gid: 8 }, null)],
            ["mkdir", () => replica.mkdir(top, "new-dir", 0o755, root, null)],
            ["symlink", () => replica.symlink(top, "new-link", "target", root, null)],
            ["mknod", () => replica.mknod(top, "new-fifo", 0o010600, 0, root, null)],
            ["link", () => replica.link(top.child("file"), top, "second", null)],
            ["unlink", () => replica.unlink(top, "old-file")],
            ["rmdir", () => replica.rmdir(top, "old-dir")],
            ["rename", () => replica.rename(top, "old-name", top, "new-name", 0)],
            ["rename over another", () => replica.rename(top, "over", top, "under", 0)],
            ["rename of a directory", () => replica.rename(top, "moving", top, "moved", 0)],
            ["truncate", () => replica.setattr(top.child("file"), handle, { size: 4 }, null)],
            ["chmod", () => replica.setattr(top.child("file"), -1, { mode: 0o4711 }, null)],
            ["write", () => replica.write(handle, Buffer.from("CON"), 0)],
          ];
          for (const [name, change] of changes) {
            await ok(replica.getattr(top, new FileAttr())); // connected
            lose();
            const answer = change();
            await pause(60); // time for the server to do it; the outcome is the same without
            await server.kill();
            proxy.passNew();
            proxy.cut();
            await server.start();
            const result = await answer;
            assert.ok(result >= 0, `${name} answered ${result}`);
          }
          const names = ["file", "moved", "new-dir", "new-fifo", "new-file", "new-link", "new-name", "second", "under"];
          assert.deepEqual(readdirSync(directory).sort(), names);
          assert.equal(readFileSync(join(directory, "file"), "latin1"), "CONt");
          const { mode, nlink } = statSync(join(directory, "file"));
          assert.deepEqual([mode & 0o7777, nlink], [0o4711, 2]);
          assert.equal(statSync(join(directory, "new-file")).uid, 7);
          // What others have made or removed is no repetition.
          await refused(replica.create(top, "new-file", 0o600, root, null), EEXIST);
          await refused(replica.unlink(top, "old-file"), ENOENT);
          await refused(replica.rename(top, "old-name", top, "new-name", 0), ENOENT);
        } finally {
          await replica.disconnect();
        }
      });
    }
  }
});
