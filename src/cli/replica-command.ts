/** `chiron replica disable|enable|add|remove|replace` */
import type { CallParams } from "../volume/protocol.ts";
import { connectTo } from "./connection.ts";
import { checkName, parseReplica } from "./replica-arguments.ts";

export type ReplicaVerb = "disable" | "enable" | "add" | "remove" | "replace";

const done: Readonly<Record<ReplicaVerb, string>> = {
  disable: "is left behind until it is enabled",
  enable: "is coming back: `chiron resync` shows how it goes",
  add: "is added, and being filled: `chiron resync` shows how it goes",
  remove: "is no longer part of the volume; its data stay where they are",
  replace: "has a new place, and is being filled: `chiron resync` shows how it goes",
};

export async function changeReplica(
  verb: ReplicaVerb,
  mountpoint: string,
  name: string,
  path: string | null,
  options: { readonly slow?: boolean },
): Promise<void> {
  let params: CallParams = { replica: name };
  if (path !== null) {
    checkName(name, path);
    const { url, run } = parseReplica(path, false, process.cwd());
    params = { replica: name, path: url, run, slow: options.slow ?? false };
  }
  await using connection = await connectTo(mountpoint);
  await connection.client.call(`replica.${verb}`, { params });
  const { volume } = connection.entry.record.config;
  console.log(`Replica "${name}" of ${volume.volume} ${done[verb]}.`);
  if (verb === "add" || verb === "remove" || verb === "replace") {
    console.log(`Where ${volume.mountpoint} is mounted at boot (/etc/fstab, a unit), change it there, too.`);
  }
}
