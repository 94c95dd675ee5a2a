#!/usr/bin/env node
/**
 * Makes the container image without a container engine: an archive that `ctr images import` and `docker load` read.
 *
 *   node scripts/image.ts [--output FILE] [--tag NAME]
 *
 * It holds Node, the libraries that Node is linked with, the compiled package and the packages that it needs at run
 * time; no shell and no package manager. `Dockerfile` makes the same tree on the official Node image.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const root = join(import.meta.dirname, "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as PackageJson & { version: string };
const { values } = parseArgs({
  options: {
    output: { type: "string", default: "chiron-image.tar" },
    tag: { type: "string", default: `localhost/chiron:${manifest.version}` },
  },
});

interface PackageJson {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

function run(program: string, args: readonly string[]): string {
  const ran = spawnSync(program, args, { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 });
  if (ran.status !== 0)
    throw new Error(`${program} ${args.join(" ")} failed: ${ran.stdout}${ran.stderr}`, { cause: ran.error });
  return ran.stdout;
}

/** Folders of the packages that are needed at run time, found as Node finds them. */
function runtimePackages(from: string, json: PackageJson, found = new Set<string>()): Set<string> {
  for (const name of Object.keys({ ...json.dependencies, ...json.optionalDependencies })) {
    if (name.startsWith("@types/")) continue;
    const folder = findPackage(name, from);
    if (folder === null || found.has(folder)) continue; // an optional one for another platform
    found.add(folder);
    runtimePackages(folder, JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as PackageJson, found);
  }
  return found;
}

function findPackage(name: string, from: string): string | null {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, "node_modules", name);
    if (existsSync(join(candidate, "package.json"))) return candidate;
    if (folder === root || folder === dirname(folder)) return null;
  }
}

/** What only people and compilers read stays out. */
const isNeeded = (path: string): boolean =>
  !/\.(md|map|d\.ts|d\.cts|d\.mts|ts|cc|c|h|gyp)$/i.test(path) &&
  !/\/(doc|docs|test|tests|example|examples|\.github)$/.test(path);

const work = mkdtempSync(join(tmpdir(), "chiron-image-"));
try {
  const tree = join(work, "tree");
  const app = join(tree, "app");
  mkdirSync(app, { recursive: true });
  run(join(root, "node_modules/.bin/tsc"), ["-p", "tsconfig.build.json", "--outDir", join(app, "dist")]);
  for (const file of ["package.json", "bin", "crds", "LICENSE"])
    if (existsSync(join(root, file))) cpSync(join(root, file), join(app, file), { recursive: true });
  // Only `dependencies`: what is optional is for people who install the package by hand.
  for (const folder of runtimePackages(root, {
    ...(manifest.dependencies ? { dependencies: manifest.dependencies } : {}),
  }))
    cpSync(folder, join(app, folder.slice(root.length + 1)), {
      recursive: true,
      filter: (source) => isNeeded(source) && !source.slice(folder.length).includes("/node_modules"),
    });

  const node = realpathSync(process.execPath);
  mkdirSync(join(tree, "usr/local/bin"), { recursive: true });
  copyFileSync(node, join(tree, "usr/local/bin/node"));
  for (const [, library] of run("ldd", [node]).matchAll(/(\/\S+)/g)) {
    if (library === undefined) continue;
    mkdirSync(join(tree, dirname(library)), { recursive: true });
    copyFileSync(realpathSync(library), join(tree, library));
  }
  for (const folder of ["etc", "run", "proc", "sys", "dev", "var/lib", "csi"])
    mkdirSync(join(tree, folder), { recursive: true });
  mkdirSync(join(tree, "tmp"), { mode: 0o777 });
  symlinkSync("/run", join(tree, "var/run"));
  writeFileSync(
    join(tree, "etc/passwd"),
    "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
  );
  writeFileSync(join(tree, "etc/group"), "root:x:0:\nnonroot:x:65532:\n");
  writeFileSync(join(tree, "etc/nsswitch.conf"), "hosts: files dns\n");

  // The same files in the same order with the same times: the same image.
  const layer = join(work, "layer.tar");
  const plain = ["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--sort=name"];
  run("tar", ["-C", tree, ...plain, "-cf", layer, "."]);
  const digest = createHash("sha256").update(readFileSync(layer)).digest("hex");
  const architecture = process.arch === "x64" ? "amd64" : process.arch;
  const config = {
    architecture,
    os: "linux",
    config: {
      Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "NODE_ENV=production"],
      Entrypoint: ["/usr/local/bin/node"],
      WorkingDir: "/app",
      Labels: { "org.opencontainers.image.version": manifest.version },
    },
    rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] },
  };
  writeFileSync(join(work, "config.json"), JSON.stringify(config));
  writeFileSync(
    join(work, "manifest.json"),
    JSON.stringify([{ Config: "config.json", RepoTags: [values.tag], Layers: ["layer.tar"] }]),
  );
  const output = resolve(values.output);
  mkdirSync(dirname(output), { recursive: true });
  run("tar", ["-C", work, ...plain, "-cf", output, "manifest.json", "config.json", "layer.tar"]);
  const [bytes = "0"] = run("du", ["-sb", tree]).split("\t");
  console.log(`${values.tag} in ${output}, ${Math.round(Number(bytes) / 1e6)} MB unpacked`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
