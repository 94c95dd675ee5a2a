/** From what a person typed to the holder of a mount. */
import { ControlClient } from "../volume/control-client.ts";
import { FailureError } from "../volume/failure.ts";
import {
  canonicalMountpoint,
  controlSocket,
  findMount,
  mountDirectory,
  type RegistryEntry,
  recordProblem,
} from "../volume/registry.ts";

export interface Connection extends AsyncDisposable {
  readonly entry: RegistryEntry;
  readonly client: ControlClient;
}

/** Throws `not-mounted`, and says what there is instead. */
export function entryOf(mountpoint: string): RegistryEntry {
  const entry = findMount(mountpoint);
  if (entry !== null) return entry;
  if (process.getuid?.() !== 0) throw new FailureError("not-root", "Only root can look at mounts: use sudo");
  const problem = recordProblem(mountDirectory(canonicalMountpoint(mountpoint)));
  if (problem !== null) throw new FailureError("state", problem);
  throw new FailureError("not-mounted", `${mountpoint} is not mounted by Chiron: \`chiron list\` shows what is`);
}

export async function connectTo(mountpoint: string): Promise<Connection> {
  const entry = entryOf(mountpoint);
  try {
    const client = await ControlClient.connect(controlSocket(entry.directory));
    return { entry, client, [Symbol.asyncDispose]: async () => client.close() };
  } catch (cause) {
    const { volume } = entry.record.config;
    if (entry.record.state === "starting") {
      throw new FailureError(
        "not-mounted",
        `${volume.mountpoint} is being mounted: its log is ${entry.record.config.logFile}`,
        { cause },
      );
    }
    throw new FailureError(
      "not-mounted",
      `The process that held ${volume.mountpoint} is gone: \`chiron unmount ${volume.mountpoint}\`, then mount it again`,
      { cause },
    );
  }
}
