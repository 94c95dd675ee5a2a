/** The commands and their options. What a command does is in its own file, loaded when it is run. */
import { readFileSync } from "node:fs";
import { Command, CommanderError, Help, Option } from "commander";
import { FailureError } from "../volume/failure.ts";
import { exitCodes } from "./exit-codes.ts";
import type { MountOptions } from "./mount-arguments.ts";

export async function run(argv: readonly string[]): Promise<void> {
  const program = makeProgram();
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    process.exitCode = error.exitCode === 0 ? 0 : exitCodes.usage; // the message is out already
  }
}

export function makeProgram(): Command {
  const program = new Command("chiron")
    .description(
      "Replicated volumes: one tree on several directories or NFS exports; any of them may die and work goes on.",
    )
    .version(version(), "-V, --version")
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "chiron: ")) })
    .configureHelp({
      subcommandTerm: (command) => Help.prototype.subcommandTerm.call(new Help(), command).replace(" [options]", ""),
    })
    .addHelpText("after", EXAMPLES);
  mountCommand(program);
  const command = (usage: string, description: string, options: (c: Command) => Command, action: Action) =>
    options(program.command(usage).description(description)).action((...given: unknown[]) => perform(action, given));

  command(
    "status",
    "how a volume and its replicas are (exit code: 0 healthy, 1 degraded or syncing, 2 no quorum or not mounted)",
    (c) =>
      c
        .argument("[mountpoint]", "mount point or volume; not needed if there is only one")
        .option("--json", "as JSON, for programs")
        .option("--watch", "again every second, until Ctrl-C"),
    async () => (await import("./status-command.ts")).status,
  );
  command(
    "list",
    "the volumes that are mounted here",
    (c) => c.option("--json", "as JSON, for programs").option("-q, --quiet", "only mount points"),
    async () => (await import("./list-command.ts")).list,
  );
  command(
    "unmount",
    "unmount, with everything settled on the replicas",
    (c) =>
      c
        .argument("<mountpoint>")
        .option("-l, --lazy", "take it out of the tree now, end when the last file is closed")
        .option("-f, --force", "also if it is in use: those who use it get errors"),
    async () => (await import("./unmount-command.ts")).unmount,
  );
  replicaCommands(program);
  command(
    "resync",
    "bring replicas that are behind up to date, and show how it goes",
    (c) =>
      c
        .argument("<mountpoint>")
        .argument("[name]", "one replica; all that are behind if none is given")
        .option("--full", "compare everything, not only what is known to differ")
        .option("--no-wait", "only start it"),
    async () => (await import("./resync-command.ts")).resync,
  );
  command(
    "verify",
    "compare all in-sync replicas with each other and report every difference",
    (c) => c.argument("<mountpoint>").option("--repair", "make them alike").option("--json", "as JSON, for programs"),
    async () => (await import("./verify-command.ts")).verify,
  );
  command(
    "handover",
    "let this version of the program go on with a mount, without its users noticing",
    (c) => c.argument("<mountpoint>"),
    async () => (await import("./handover-command.ts")).handover,
  );
  command(
    "completion",
    'completion for a shell: put `eval "$(chiron completion bash)"` in ~/.bashrc',
    (c) => c.argument("<shell>", "bash, zsh or fish"),
    async () => (shell: string) => import("./completion.ts").then(({ completion }) => completion(program, shell)),
  );
  program
    .command("mount-helper", { hidden: true })
    .helpOption(false)
    .allowUnknownOption()
    .argument("[arguments...]")
    .action(async (_given, _options, self: Command) => (await import("./mount-command.ts")).mountHelper(self.args));
  return program;
}

const EXAMPLES = `
Examples:
  chiron mount --replica /srv/a --replica /srv/b /srv/web
  chiron mount --replica mars=nfs://mars/export/web --replica-slow /backup/web /srv/web
  chiron status /srv/web
  chiron unmount /srv/web
`;

// biome-ignore lint/suspicious/noExplicitAny: commander's actions get what their options say
type Action = () => Promise<(...given: any[]) => unknown>;

/** Commander adds the command itself as the last argument; nobody here wants it. */
async function perform(action: Action, given: unknown[]): Promise<void> {
  await (await action())(...given.slice(0, -1));
}

function mountCommand(program: Command): void {
  const many = (text: string, before: string[] = []) => [...before, text];
  const mount = program
    .command("mount")
    .description("mount a volume; returns when it is ready")
    .argument("[places...]", "[SPEC] MOUNTPOINT; SPEC: the replicas as ChironFS has them, /a=/b=:/slow")
    .usage("[options] [SPEC] MOUNTPOINT")
    .option(
      "--replica <[name=]path>",
      "a directory, or nfs://host/export; 1 to 8 of them. PATH?run=threads|loop chooses where its calls run",
      many,
    )
    .option("--replica-slow <[name=]path>", "one that is read only when the others are out", many)
    .option("--volume <name>", "what people call it (default: the mount point's last part)")
    .option(
      "--source <name>",
      "of directories that hold data already: the one that is right; the others are made like it",
    )
    .option("--min-in-sync <n>", "with fewer replicas in sync the volume is read-only (default: 1)")
    .option("--read-policy <how>", "round-robin, nearest or lowest-latency (default: round-robin)")
    .option("--full-policy <how>", "when one replica is full: fail-writes, or drop-replica (default: fail-writes)")
    .option("--write-cache <how>", "none, or write-back: the kernel collects small writes (default: none)")
    .option("--resync <how>", "automatic, or manual: replicas come back by `chiron resync` only (default: automatic)")
    .option("--resync-bandwidth <size>", "bytes per second that a resync may move, like 50M (default: no limit)")
    .option("--deadline <time>", "a replica that takes longer to answer is left behind (default: 10s)")
    .option(
      "--witness <path>",
      "a directory that votes with the replicas, on other hardware: two replicas and a witness can lose any one",
    )
    .option("--force-degraded", "mount with the replicas that are here, though the others may know better")
    .option("--capacity <size>", "how large the volume says that it is, like 10GiB (default: as its smallest replica)")
    .option(
      "--on-event <command>",
      "run for each event (replica lost, back, resynced, quorum lost), with JSON on its input",
    )
    .option("--metrics <address>", "serve Prometheus metrics on this address, like 9100 or 0.0.0.0:9100")
    .option("--log <file>", "JSON lines (default: /var/log/chiron/VOLUME.log; standard error with --foreground)")
    .option("--foreground", "stay, until the volume is unmounted or SIGTERM comes; for containers and service managers")
    .option(
      "--binding <how>",
      "kernel (over /dev/fuse), or fuse-native, for hosts where that cannot be opened (default: kernel)",
    )
    .option("--accept-wrong-results", "with fuse-native: what docs/fuse-native.md calls wrong is known and taken")
    .option("-o <options>", "mount options: ro, noatime, nosuid, nodev, noexec, …", many)
    .addOption(new Option("--log-level <level>", "debug, info, warn or error").hideHelp());
  mount.action(async (places: string[], options: MountOptions) => {
    await (await import("./mount-command.ts")).mount(places, options);
  });
}

function replicaCommands(program: Command): void {
  const replica = program
    .command("replica")
    .description("take replicas out, let them in again, add, remove and replace them");
  const verbs = [
    ["disable", "leave a replica behind, on purpose: for maintenance", false],
    ["enable", "bring a disabled replica back: it is resynced", false],
    ["add", "add a replica: it is filled, then in sync", true],
    ["remove", "remove a replica for good; its data stay where they are", false],
    ["replace", "another directory in place of a replica's: it is filled, then in sync", true],
  ] as const;
  for (const [verb, description, withPath] of verbs) {
    const command = replica.command(verb).description(description).argument("<mountpoint>").argument("<name>");
    if (withPath) command.argument("<path>", "a directory, or nfs://host/export");
    if (verb === "add") command.option("--slow", "read only when the others are out");
    command.action(async (...given: unknown[]) => {
      const { changeReplica } = await import("./replica-command.ts");
      const [mountpoint, name, path] = given as string[];
      const options = given.at(-2) as { readonly slow?: boolean };
      await changeReplica(verb, mountpoint ?? "", name ?? "", withPath ? (path ?? "") : null, options);
    });
  }
}

function version(): string {
  try {
    const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
    return (JSON.parse(text) as { readonly version: string }).version;
  } catch (cause) {
    throw new FailureError("internal", "The installation is damaged: package.json is missing", { cause });
  }
}
