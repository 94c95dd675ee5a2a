/** Trees of exports compared, for what nfs-ganesha does not keep. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { lstatSync } from "node:fs";
import { join } from "node:path";

/** By a program that is none of ours. nfs-ganesha ignores times of symbolic links without an error: these are left out. */
export function differences(first: string, other: string): string[] {
  const program = join(import.meta.dirname, "../trees-equal.py");
  const { status, stdout, stderr } = spawnSync("python3", [program, "--quiet", "--limit", "100000", first, other], {
    maxBuffer: 1 << 26,
  });
  assert.ok(status === 0 || status === 1, stderr.toString());
  const lines = stdout.toString("latin1").split("\n");
  const unescaped = (path: string) =>
    Buffer.from(
      path.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
      "latin1",
    );
  return lines.filter((line) => {
    const path = /^(.*): mtime /.exec(line)?.[1];
    if (path === undefined) return line !== "" && !/ and .*: \d+ differences$/.test(line);
    return !lstatSync(Buffer.concat([Buffer.from(first), unescaped(path)])).isSymbolicLink();
  });
}
