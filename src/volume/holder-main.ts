/**
 * The holder as a process of its own.
 *
 *     holder-main                      the configuration comes as a message of the parent, the outcome goes back
 *     holder-main adopt DIRECTORY PID  descriptor 3 is the FUSE device; PID is the volume process that serves it
 *     holder-main takeover DIRECTORY   asks the holder that listens in DIRECTORY for its mount; the outcome goes back
 */
import { failureOf } from "./failure.ts";
import { becomeDaemon, type HolderOutcome, holderEnvironment, stopOnSignals } from "./holder-daemon.ts";
import { FUSE_DESCRIPTOR } from "./holder-link.ts";
import { adoptMount, type RunningMount, runHolder, takeOver } from "./holder-run.ts";
import { type HolderConfig, type MountRecord, readRecord } from "./registry.ts";

becomeDaemon();
const [verb, directory = "", pid = ""] = process.argv.slice(2);

if (verb === undefined) process.once("message", (config) => void run(() => mount(config as HolderConfig)));
else if (verb === "adopt") void run(() => adopt(recordOf(directory)));
else if (verb === "takeover") void run(() => takeOver(directory, holderEnvironment(recordOf(directory).config)));
else process.exit(64);

function mount(config: HolderConfig): Promise<RunningMount> {
  return runHolder(config, holderEnvironment(config));
}

/** The volume process that asked for this holder knows its own program best: in an upgrade it is the older one's. */
function adopt({ config, volumeProgram }: MountRecord): Promise<RunningMount> {
  const environment = { ...holderEnvironment(config), program: { program: volumeProgram } };
  return adoptMount(directory, FUSE_DESCRIPTOR, Number(pid), environment);
}

function recordOf(recordDirectory: string): MountRecord {
  return readRecord(recordDirectory) ?? process.exit(1);
}

async function run(begin: () => Promise<RunningMount>): Promise<void> {
  try {
    const running = await begin();
    stopOnSignals(running);
    tell({ type: "ready" });
    await running.done;
    process.exit(0);
  } catch (error) {
    tell({ type: "failed", failure: failureOf(error) });
    process.exit(1);
  }
}

/** The parent prints it and ends; without one (adopt) the log has it. */
function tell(outcome: HolderOutcome): void {
  if (!process.connected) return;
  process.send?.(outcome);
  process.disconnect();
}
