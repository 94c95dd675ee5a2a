/** `chiron mount`, and `mount.chiron` for mount(8) */
import type { VolumeStatus } from "../replication/model.ts";
import { FailureError } from "../volume/failure.ts";
import type { HolderConfig } from "../volume/registry.ts";
import { type MountOptions, parseHelperArguments, planMount } from "./mount-arguments.ts";
import { checkMount, gatherFacts, mountWarnings } from "./mount-check.ts";
import { paint } from "./terminal.ts";

export async function mount(places: readonly string[], options: MountOptions): Promise<void> {
  const config = await checkedConfig(options, places);
  if (options.foreground) {
    await mountHere(config);
    return;
  }
  await mountAsDaemon(config);
  const { askStatus } = await import("./status-command.ts");
  console.log(mountedText(await askStatus(config.volume.mountpoint)));
}

export async function mountHelper(argv: readonly string[]): Promise<void> {
  const { options, positionals, fake } = parseHelperArguments(argv);
  if (positionals.length !== 2) throw new FailureError("usage", "mount.chiron SPEC DIRECTORY [-o OPTIONS]");
  const config = await checkedConfig(options, positionals);
  if (!fake) await mountAsDaemon(config);
}

async function checkedConfig(options: MountOptions, places: readonly string[]): Promise<HolderConfig> {
  const config = planMount(options, places, process.cwd());
  const facts = await gatherFacts(config);
  const failure = checkMount(config, facts);
  if (failure !== null) throw FailureError.from(failure);
  for (const warning of mountWarnings(config, facts)) console.error(`chiron: ${warning}`);
  return config;
}

async function mountAsDaemon(config: HolderConfig): Promise<void> {
  const { defaultLogFile, startDaemon } = await import("./daemon.ts");
  const logFile = config.logFile ?? defaultLogFile(config.volume.volume);
  const patience = setTimeout(
    () => console.error("chiron: the replicas are being looked at and made alike; this can take a while"),
    5000,
  );
  try {
    await startDaemon([], logFile, { ...config, logFile });
  } finally {
    clearTimeout(patience);
  }
}

/** Stays, as the holder itself. */
async function mountHere(config: HolderConfig): Promise<void> {
  const { becomeDaemon, holderEnvironment, stopOnSignals } = await import("../volume/holder-daemon.ts");
  const { runHolder } = await import("../volume/holder-run.ts");
  const { openLog } = await import("./daemon.ts");
  const logFd = config.logFile === null ? 2 : openLog(config.logFile);
  becomeDaemon();
  const running = await runHolder(config, holderEnvironment(config, logFd));
  stopOnSignals(running);
  await running.done;
  process.exit(0);
}

export function mountedText(status: VolumeStatus): string {
  const inSync = status.replicas.filter((replica) => replica.state === "InSync").length;
  const all = status.replicas.length;
  const count = `${inSync} of ${all} replicas in sync`;
  return `${status.volume} is mounted on ${status.mountpoint}, ${inSync === all ? count : paint("yellow", count)}`;
}
