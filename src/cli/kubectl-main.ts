/** `kubectl chiron`: volumes of a cluster, for those who look after them. kubectl itself is the way to the cluster. */
import { Command, CommanderError } from "commander";
import { exitCodes, fail } from "./exit-codes.ts";
import { replaceReplica, showStatus, throughItsNode } from "./kubectl-commands.ts";

const program = new Command("kubectl chiron")
  .description("Chiron's replicated volumes: how they are, and what a person may tell them")
  .option("--context <name>", "of the kubeconfig")
  .option("--kubeconfig <path>", "instead of $KUBECONFIG")
  .exitOverride();

program
  .command("status")
  .description("how volumes and their replicas are (exit code: 0 all in sync, 1 degraded or syncing, 2 writes refused)")
  .argument("[volume]", "a ReplicatedVolume; all of them if none is given")
  .action((volume: string | undefined) => showStatus(program.opts(), volume));
program
  .command("resync")
  .description("bring replicas that are behind up to date, and show how it goes")
  .argument("<volume>")
  .argument("[replica]", "all that are behind if none is given")
  .option("--full", "compare everything, not only what is known to differ")
  .action((volume: string, replica: string | undefined, { full }: { full?: boolean }) =>
    throughItsNode(program.opts(), volume, [
      "resync",
      volume,
      ...(replica === undefined ? [] : [replica]),
      ...(full ? ["--full"] : []),
    ]),
  );
program
  .command("verify")
  .description("compare all in-sync replicas with each other and report every difference")
  .argument("<volume>")
  .option("--repair", "make them alike")
  .action((volume: string, { repair }: { repair?: boolean }) =>
    throughItsNode(program.opts(), volume, ["verify", volume, ...(repair ? ["--repair"] : [])]),
  );
program
  .command("replica")
  .description("a volume's replicas")
  .command("replace")
  .description("put another place in for a replica: filled first, then the old one leaves, while pods go on")
  .argument("<volume>")
  .argument("<replica>", "the one that goes; its files stay where they are")
  .requiredOption("--name <name>", "of the new one")
  .requiredOption("--nfs <server:/path>", "where the new one is; an IPv6 address in brackets")
  .option("--no-wait", "only say what is wanted")
  .action((volume: string, replica: string, options: { name: string; nfs: string; wait: boolean }) =>
    replaceReplica(program.opts(), volume, replica, options),
  );

try {
  await program.parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : exitCodes.usage;
  else fail(error);
}
