/**
 * Where the real programs are that the Kubernetes tests start: built by `scripts/build-kube.ts` into a cache outside
 * the checkout, or Debian's. A test whose program is missing is left out, and says loudly which and why.
 */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

export function cacheDirectory(): string {
  return process.env["CHIRON_CACHE"] ?? "/var/cache/chiron";
}

/** The path of a program, or null where this machine does not have it. */
export function findProgram(name: string): string | null {
  const directories = [join(cacheDirectory(), "bin"), ...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin"];
  for (const directory of directories) {
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this one.
    }
  }
  return null;
}

/** The option `skip` of a test that needs these programs: false, or the reason. In CI nothing may be left out. */
export function skipWithout(...names: readonly string[]): string | false {
  const missing = names.filter((name) => findProgram(name) === null);
  if (missing.length === 0) return false;
  const reason = `LEFT OUT: ${missing.join(", ")} not found; run scripts/build-kube.ts (needs Go), apt-get install etcd-server`;
  if (process.env["CI"]) throw new Error(reason);
  process.stderr.write(`\n*** ${reason} ***\n`);
  return reason;
}
