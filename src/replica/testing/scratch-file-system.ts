/** File systems of their own for the tests of local replicas: mounted when first needed, gone when the tests are over. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

export interface ScratchFileSystem {
  /** An empty directory of its own. */
  directory(): string;
  /** Puts another, empty directory in its place. */
  vanish(path: string): void;
  remove(path: string): void;
  readonly path: string;
}

/** Where file systems can't be mounted, tmpfs is any directory, and ext4 is null (its tests are left out). */
export function scratchFileSystem(type: "tmpfs" | "ext4"): ScratchFileSystem | null {
  const base = mkdtempSync(join(tmpdir(), `chiron-${type}-`));
  const path = join(base, "mnt");
  mkdirSync(path);
  const mounted = mountOn(type, base, path);
  after(() => {
    if (mounted) execFileSync("umount", ["-l", path]);
    rmSync(base, { recursive: true, force: true });
  });
  if (!mounted && type === "ext4") return null;
  let count = 0;
  return {
    path,
    directory: () => {
      const made = join(path, `tree-${count++}`);
      mkdirSync(made);
      return made;
    },
    vanish: (tree) => {
      renameSync(tree, `${tree}-elsewhere`);
      mkdirSync(tree);
    },
    remove: (tree) => {
      rmSync(tree, { recursive: true, force: true });
      rmSync(`${tree}-elsewhere`, { recursive: true, force: true });
    },
  };
}

function mountOn(type: "tmpfs" | "ext4", base: string, path: string): boolean {
  try {
    if (type === "tmpfs") {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=256m", "chiron-test", path], { stdio: "pipe" });
      return true;
    }
    const image = join(base, "image");
    execFileSync("truncate", ["-s", "512M", image]);
    execFileSync("mkfs.ext4", ["-q", "-F", image], { stdio: "pipe" });
    execFileSync("mount", ["-o", "loop", image, path], { stdio: "pipe" });
    return true;
  } catch {
    return false;
  }
}
