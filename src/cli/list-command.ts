/** `chiron list` */
import type { VolumeStatus } from "../replication/model.ts";
import { listMounts, type MountRecord } from "../volume/registry.ts";
import { isAlive } from "./mount-check.ts";
import { readMountTable } from "./mount-table.ts";
import { askStatus } from "./status-command.ts";
import { paint, table } from "./terminal.ts";

export async function list(options: { json?: boolean; quiet?: boolean }): Promise<void> {
  const points = readMountTable().map((mount) => mount.point);
  // What a holder that was killed has left is of interest as long as its dead mount is there.
  const mounts = listMounts().filter(({ record: { holderPid, config } }) => {
    return isAlive(holderPid) || points.includes(config.volume.mountpoint);
  });
  if (options.quiet) {
    for (const { record } of mounts) console.log(record.config.volume.mountpoint);
    return;
  }
  const lines = await Promise.all(
    mounts.map(async ({ record }) => {
      const { volume, mountpoint, replicas } = record.config.volume;
      const status: VolumeStatus | null = await askStatus(mountpoint).catch(() => null);
      const inSync = status?.replicas.filter((replica) => replica.state === "InSync").length ?? null;
      return {
        volume,
        mountpoint,
        state: status?.state ?? stateWithoutAnswer(record),
        inSync,
        replicas: replicas.length,
        holderPid: record.holderPid,
        version: record.programVersion,
        since: record.startedAt,
      };
    }),
  );
  if (options.json) console.log(JSON.stringify(lines, null, 2));
  else if (lines.length === 0) console.log("Chiron has mounted nothing here.");
  else {
    const head = ["VOLUME", "MOUNT POINT", "STATE", "IN SYNC", "HOLDER"].map((title) => paint("dim", title));
    const rows = lines.map((line) => [
      line.volume,
      line.mountpoint,
      line.state,
      `${line.inSync ?? "?"}/${line.replicas}`,
      String(line.holderPid),
    ]);
    console.log(table([head, ...rows]));
  }
}

function stateWithoutAnswer({ holderPid, state }: MountRecord): string {
  if (!isAlive(holderPid)) return "Dead";
  return state === "starting" ? "Starting" : "NoAnswer";
}
