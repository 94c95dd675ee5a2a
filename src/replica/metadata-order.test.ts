import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { keepsMetadataOrder } from "./metadata-order.ts";

const skip = process.getuid?.() === 0 ? false : "must be root";

/** On a file system made so, seen through a symbolic link as well. */
function isOrderedOn(make: readonly string[]): boolean {
  const base = mkdtempSync(join(tmpdir(), "chiron-order-"));
  const [image, point] = [join(base, "image"), join(base, "mnt")];
  try {
    mkdirSync(point);
    execFileSync("truncate", ["-s", "320M", image]);
    execFileSync(make[0] as string, [...make.slice(1), image], { stdio: "ignore" });
    execFileSync("mount", ["-o", "loop", image, point]);
    try {
      mkdirSync(join(point, "below"));
      symlinkSync(join(point, "below"), join(base, "link"));
      const ordered = keepsMetadataOrder(point);
      assert.equal(keepsMetadataOrder(join(base, "link")), ordered);
      return ordered;
    } finally {
      execFileSync("umount", [point]);
    }
  } finally {
    rmSync(base, { recursive: true });
  }
}

test("ext4 keeps the order of metadata with a journal, and not with fast commits", { skip }, () => {
  assert.equal(isOrderedOn(["mkfs.ext4", "-qF"]), true);
  assert.equal(isOrderedOn(["mkfs.ext4", "-qF", "-O", "^has_journal"]), false);
  assert.equal(isOrderedOn(["mkfs.ext4", "-qF", "-O", "fast_commit"]), false);
});

test("xfs keeps the order of metadata", { skip }, () => {
  assert.equal(isOrderedOn(["mkfs.xfs", "-qf"]), true);
});

test("what is not there, or not known, counts as keeping no order", () => {
  assert.equal(keepsMetadataOrder("/nowhere/at/all"), false);
  assert.equal(keepsMetadataOrder("/proc"), false);
});
