/** The replica contract on Linux's own server, v3 and v4.2, in a guest. */
import { after, before, describe } from "node:test";
import { parseNfsUrl } from "../../src/nfs/url.ts";
import { NfsReplica } from "../../src/replica/nfs-replica.ts";
import { replicaContract } from "../../src/replica/testing/contract.ts";
import { available, Knfsd } from "./knfsd.ts";

describe("Linux's own server", { skip: available ? false : "needs root and qemu" }, () => {
  let server: Knfsd;
  let trees = 0;
  before(async () => {
    server = await Knfsd.start();
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
  });
  for (const version of ["3", "4.1"] as const) {
    replicaContract(`NFS v${version} on Linux`, async () => {
      const name = `tree-${trees++}`;
      // The first calls wait for the grace period to end.
      const url = parseNfsUrl(server.url(version, `/export/${name}`, "&timeout=60s"));
      const make = () => new NfsReplica("mars", url, { makeDirectory: { mode: 0o755 } });
      return { replica: make(), another: make, dispose: () => {} };
    });
  }
});
