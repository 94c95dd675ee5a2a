import { replicaContract } from "./contract.ts";
import { MemoryReplica } from "./memory.ts";
import { MemoryDisk } from "./memory-disk.ts";

replicaContract("memory", async () => {
  const disk = new MemoryDisk();
  const replica = new MemoryReplica(disk);
  return {
    replica,
    another: () => new MemoryReplica(disk),
    vanish: () => {
      replica.disk = new MemoryDisk();
    },
    dispose: () => {},
  };
});

replicaContract("memory that can do little", async () => ({
  replica: new MemoryReplica(new MemoryDisk(), {
    capabilities: {
      userXattrs: false,
      rootXattrs: false,
      hardLinks: false,
      symlinks: false,
      specialFiles: false,
      holes: false,
      fallocate: false,
      renameFlags: false,
      timeGranularityNsec: 1000,
    },
  }),
  dispose: () => {},
}));
