/** The contract on directories of real file systems: tmpfs, and ext4 on a loop device. */
import { LocalReplica } from "./local.ts";
import { scratchFileSystem } from "./local-scratch.ts";
import { OffloadedReplica } from "./offload.ts";
import { replicaContract } from "./testing/contract.ts";

for (const [kind, type, Kind] of [
  ["local directory", "tmpfs", LocalReplica],
  ["local directory", "ext4", LocalReplica],
  ["directory on threads", "ext4", OffloadedReplica],
] as const) {
  const fileSystem = scratchFileSystem(type);
  if (fileSystem !== null) {
    replicaContract(`${kind} on ${type}`, async () => {
      const path = fileSystem.directory();
      return {
        replica: new Kind({ name: "a", path }),
        another: () => new LocalReplica({ name: "a", path }),
        vanish: () => fileSystem.vanish(path),
        dispose: () => fileSystem.remove(path),
      };
    });
  }
}
