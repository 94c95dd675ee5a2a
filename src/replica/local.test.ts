/** The contract on directories of real file systems: tmpfs, and ext4 on a loop device. */
import { withDeadline } from "./deadline.ts";
import { LocalReplica } from "./local.ts";
import { OffloadedReplica } from "./offload.ts";
import type { Replica } from "./replica.ts";
import { replicaContract } from "./testing/contract.ts";
import { scratchFileSystem } from "./testing/scratch-file-system.ts";

type Make = (options: { readonly name: string; readonly path: string }) => Replica;

const alwaysSlow = { slow: true, took: () => {} };

const kinds: readonly (readonly [kind: string, type: "tmpfs" | "ext4", make: Make])[] = [
  ["local directory", "tmpfs", (options) => new LocalReplica(options)],
  ["local directory", "ext4", (options) => new LocalReplica(options)],
  ["local directory with a slow disk", "ext4", (options) => new LocalReplica({ ...options, pace: alwaysSlow })],
  ["local directory without io_uring", "ext4", (options) => new LocalReplica({ ...options, ioUring: false })],
  ["directory on threads", "ext4", (options) => new OffloadedReplica(options)],
  ["directory on threads, with deadlines", "tmpfs", (options) => withDeadline(new OffloadedReplica(options), 60_000)],
];

for (const [kind, type, make] of kinds) {
  const fileSystem = scratchFileSystem(type);
  if (fileSystem !== null) {
    replicaContract(`${kind} on ${type}`, async () => {
      const path = fileSystem.directory();
      return {
        replica: make({ name: "a", path }),
        another: () => new LocalReplica({ name: "a", path }),
        vanish: () => fileSystem.vanish(path),
        dispose: () => fileSystem.remove(path),
      };
    });
  }
}
