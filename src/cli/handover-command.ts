/** `chiron handover`: a holder of this version of the program takes a mount over from the one that has it. */
import { packageVersion } from "../volume/holder-daemon.ts";
import { entryOf } from "./connection.ts";
import { defaultLogFile, startDaemon } from "./daemon.ts";

export async function handover(mountpoint: string): Promise<void> {
  const { directory, record } = entryOf(mountpoint);
  const { volume, logFile } = record.config;
  await startDaemon(["takeover", directory], logFile ?? defaultLogFile(volume.volume), null);
  console.log(
    `${volume.mountpoint} is now held by version ${packageVersion()}; before, it was ${record.programVersion}.`,
  );
}
