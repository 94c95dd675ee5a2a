/** The replica contract on nfs-ganesha, v3 and v4.1. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { parseNfsUrl } from "../../src/nfs/url.ts";
import { NfsReplica } from "../../src/replica/nfs-replica.ts";
import { replicaContract } from "../../src/replica/testing/contract.ts";
import { available, Ganesha } from "./ganesha.ts";

/** What the server's VFS back end does not do. */
const cannot = {
  "setattr() works on directories, symbolic links and special files themselves":
    "nfs-ganesha's VFS ignores times of symbolic links, without an error",
};

for (const version of ["3", "4.1"] as const) {
  describe(`nfs-ganesha, v${version}`, { skip: available ? false : "needs root, nfs-ganesha and rpcbind" }, () => {
    let server: Ganesha;
    let trees = 0;
    before(async () => {
      server = await Ganesha.start();
    });
    after(async () => {
      await server[Symbol.asyncDispose]();
    });
    replicaContract(
      `NFS v${version} on nfs-ganesha`,
      async () => {
        const name = `tree-${trees++}`;
        const directory = join(server.directory, "export", name);
        mkdirSync(directory);
        const url = parseNfsUrl(server.url(version, `/export/${name}`));
        const make = () => new NfsReplica("mars", url, {});
        return {
          replica: make(),
          another: make,
          vanish: async () => {
            await server.kill(); // it would answer from its cache for a minute
            rmSync(directory, { recursive: true });
            mkdirSync(directory);
            await server.start();
          },
          dispose: () => rmSync(directory, { recursive: true, force: true }),
        };
      },
      cannot,
    );
  });
}
