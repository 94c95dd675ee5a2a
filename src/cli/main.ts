/** `chiron`: the command line. What a command needs is loaded when it is run, so that `--help` answers at once. */
import { fail } from "./exit-codes.ts";
import { run } from "./program.ts";

await run(process.argv).catch(fail);
