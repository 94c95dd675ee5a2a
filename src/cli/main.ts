/** `chiron`: the command line. Everything is loaded on demand, so that `--help` answers at once. */
import { enableCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

const base =
  process.getuid?.() === 0
    ? "/var/cache/chiron"
    : join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "chiron");
const cache = process.env["NODE_COMPILE_CACHE"] ?? join(base, "compiled");
enableCompileCache(cache);
process.env["NODE_COMPILE_CACHE"] = cache; // for the processes of a mount, which are started by this one

const { fail } = await import("./exit-codes.ts");
const { run } = await import("./program.ts");
await run(process.argv).catch(fail);
