/** Runs in the guest: the replica contract through the kernel's own client, against the server beside it. */
import { mkdirSync, rmSync } from "node:fs";
import { parseNfsUrl } from "../../../src/nfs/url.ts";
import { KernelNfsReplica } from "../../../src/replica/nfs-kernel.ts";
import { replicaContract } from "../../../src/replica/testing/contract.ts";

const versions = { "4.1": (tree: string) => `/${tree}`, "3": (tree: string) => `/export/${tree}` };
let trees = 0;

for (const [version, pathOf] of Object.entries(versions)) {
  replicaContract(`NFS v${version} by the kernel's client`, async () => {
    const tree = `tree-${trees++}`;
    mkdirSync(`/export/${tree}`);
    const mountPort = version === "3" ? "&mountport=20048" : "";
    const url = parseNfsUrl(`nfs://127.0.0.1:2049${pathOf(tree)}?kernel=1&version=${version}${mountPort}&timeout=60s`);
    let places = 0;
    const make = () =>
      new KernelNfsReplica(url, { name: "mars", privateDirectory: `/run/${tree}-${places++}`, deadlineMs: 60_000 });
    return {
      replica: make(),
      another: make,
      dispose: () => rmSync(`/export/${tree}`, { recursive: true, force: true }),
    };
  });
}
