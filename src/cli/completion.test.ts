import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const chiron = fileURLToPath(new URL("../../bin/chiron", import.meta.url));

function complete(line: string): string[] {
  const words = line.split(" ");
  const script = `
    eval "$(${chiron} completion bash)"
    COMP_WORDS=(${words.map((word) => `"${word}"`).join(" ")}); COMP_CWORD=${words.length - 1}
    _chiron; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["-c", script], {
    encoding: "utf8",
    env: { ...process.env, CHIRON_RUN_DIR: "/nonexistent" },
  });
  assert.equal(stderr, "");
  return stdout.split("\n").filter((word) => word !== "");
}

test("bash completes commands, their commands, and their options", () => {
  assert.deepEqual(complete("chiron re"), ["replica", "resync"]);
  assert.deepEqual(complete("chiron replica re"), ["remove", "replace"]);
  assert.deepEqual(complete("chiron status --j"), ["--json"]);
  assert.deepEqual(complete("chiron mount --replica-"), ["--replica-slow"]);
  assert.equal(complete("chiron m").includes("mount-helper"), false);
});

test("an unknown shell is refused", () => {
  const { status, stderr } = spawnSync(chiron, ["completion", "tcsh"], { encoding: "utf8" });
  assert.deepEqual([status, stderr], [64, 'chiron: There is no completion for "tcsh": bash, zsh and fish are known\n']);
});
