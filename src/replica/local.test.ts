/** The contract on directories of real file systems: tmpfs, and ext4 on a loop device. */
import { LocalReplica } from "./local.ts";
import { scratchFileSystem } from "./local-scratch.ts";
import { replicaContract } from "./testing/contract.ts";

for (const type of ["tmpfs", "ext4"] as const) {
  const fileSystem = scratchFileSystem(type);
  if (fileSystem !== null) {
    replicaContract(`local directory on ${type}`, async () => {
      const path = fileSystem.directory();
      return {
        replica: new LocalReplica({ name: "a", path }),
        another: () => new LocalReplica({ name: "a", path }),
        vanish: () => fileSystem.vanish(path),
        dispose: () => fileSystem.remove(path),
      };
    });
  }
}
