#!/usr/bin/env node
/**
 * Builds the real Kubernetes programs that the tests start, from Go modules, into a cache outside the checkout:
 *
 *   node scripts/build-kube.ts [PROGRAM…]     # all of them unless told; those that are there already are left alone
 *
 * Each set of modules is built in a folder of its own, so that their dependencies do not meet. A program's file name
 * carries no version; the versions are in `stamp.json` beside it, and a program of another version is built anew.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cacheDirectory } from "../test/kubernetes/programs.ts";

const kubernetes = "1.34.4";

interface ModuleSet {
  readonly name: string;
  /** `path@version`; the first one is the one whose programs are built. */
  readonly modules: readonly string[];
  /** Package paths; a program is named after the last element. */
  readonly packages: readonly string[];
  readonly ldflags?: string;
  /** Kubernetes replaces its staging modules by folders; outside they are modules of the same release. */
  readonly staging?: string;
}

const versionFlags = [
  `k8s.io/component-base/version.gitVersion=v${kubernetes}`,
  `k8s.io/component-base/version.gitMajor=${kubernetes.split(".")[0]}`,
  `k8s.io/component-base/version.gitMinor=${kubernetes.split(".")[1]}`,
  `k8s.io/client-go/pkg/version.gitVersion=v${kubernetes}`,
]
  .map((assignment) => `-X ${assignment}`)
  .join(" ");

/** Without the version flags everything says v0.0.0, and csi-provisioner refuses to work. */
const kubernetesSet = (packages: readonly string[]): ModuleSet => ({
  name: "kubernetes",
  modules: [`k8s.io/kubernetes@v${kubernetes}`],
  packages: packages.map((program) => `k8s.io/kubernetes/cmd/${program}`),
  ldflags: versionFlags,
  staging: `v0.${kubernetes.slice(2)}`,
});

const sets: readonly ModuleSet[] = [
  kubernetesSet(["kube-apiserver", "kubectl"]),
  {
    name: "sanity",
    modules: ["github.com/kubernetes-csi/csi-test/v5@v5.6.0"],
    packages: ["github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"],
  },
  { name: "helm", modules: ["helm.sh/helm/v3@v3.20.2"], packages: ["helm.sh/helm/v3/cmd/helm"] },
  {
    // 6.4.0 needs a release of a library that the module proxy does not have.
    name: "provisioner",
    modules: ["github.com/kubernetes-csi/external-provisioner/v6@v6.3.0"],
    packages: ["github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"],
  },
  {
    name: "resizer",
    modules: ["github.com/kubernetes-csi/external-resizer/v2@v2.3.0"],
    packages: ["github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"],
  },
  kubernetesSet(["kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"]),
  {
    name: "snapshotter",
    modules: ["github.com/kubernetes-csi/external-snapshotter/v8@v8.7.0"],
    packages: [
      "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
      "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
    ],
  },
  { name: "coredns", modules: ["github.com/coredns/coredns@v1.12.4"], packages: ["github.com/coredns/coredns"] },
];

const programName = (packagePath: string): string => packagePath.slice(packagePath.lastIndexOf("/") + 1);

const directory = join(cacheDirectory(), "bin");
const stampFile = join(directory, "stamp.json");
mkdirSync(directory, { recursive: true });

const readStamp = (): Record<string, string> =>
  existsSync(stampFile) ? (JSON.parse(readFileSync(stampFile, "utf8")) as Record<string, string>) : {};

function go(cwd: string, args: readonly string[]): string {
  const env = { ...process.env, GOFLAGS: "-mod=mod", CGO_ENABLED: "0", GOTOOLCHAIN: "local" };
  const ran = spawnSync("go", args, { cwd, env, encoding: "utf8", maxBuffer: 1 << 28 });
  if (ran.error) throw new Error("Cannot run go; install Go 1.26 or later", { cause: ran.error });
  if (ran.status !== 0) throw new Error(`go ${args.slice(0, 2).join(" ")} failed:\n${ran.stderr}`);
  return ran.stdout;
}

function build(set: ModuleSet, packages: readonly string[]): void {
  const work = mkdtempSync(join(tmpdir(), "chiron-build-"));
  try {
    const lines = [`module example.test/${set.name}`, "go 1.26"];
    for (const module of set.modules) lines.push(`require ${module.replace("@", " ")}`);
    if (set.staging !== undefined) {
      const downloaded = JSON.parse(go(work, ["mod", "download", "-json", String(set.modules[0])])) as { Dir: string };
      for (const [, path] of readFileSync(join(downloaded.Dir, "go.mod"), "utf8").matchAll(
        /^\s*(\S+) => \.\/staging/gm,
      ))
        lines.push(`replace ${path} => ${path} ${set.staging}`);
    }
    writeFileSync(join(work, "go.mod"), `${lines.join("\n")}\n`);
    const imports = packages.map((path) => `import _ "${path}"`).join("\n");
    writeFileSync(join(work, "tools.go"), `//go:build tools\n\npackage tools\n\n${imports}\n`);
    go(work, ["mod", "tidy"]);
    const out = join(work, "out");
    mkdirSync(out);
    go(work, ["build", "-ldflags", `-s -w ${set.ldflags ?? ""}`, "-o", `${out}/`, ...packages]);
    for (const path of packages) {
      // A rename within one file system, so that nobody ever starts half a program.
      const name = programName(path);
      const copy = spawnSync("cp", [join(out, name), join(directory, `.${name}.new`)]);
      if (copy.status !== 0) throw new Error(`Cannot copy ${name} into ${directory}: ${copy.stderr}`);
      renameSync(join(directory, `.${name}.new`), join(directory, name));
      writeFileSync(stampFile, `${JSON.stringify({ ...readStamp(), [name]: set.modules[0] }, null, 1)}\n`);
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const wanted = process.argv.slice(2);
const known = sets.flatMap((set) => set.packages.map(programName));
for (const name of wanted)
  if (!known.includes(name)) throw new Error(`Unknown program "${name}"; there are ${known.join(", ")}`);
for (const set of sets) {
  const packages = set.packages.filter((path) => {
    const name = programName(path);
    if (wanted.length > 0 && !wanted.includes(name)) return false;
    return !existsSync(join(directory, name)) || readStamp()[name] !== set.modules[0];
  });
  if (packages.length === 0) continue;
  const names = packages.map(programName).join(", ");
  const started = Date.now();
  console.log(`building ${names}`);
  build(set, packages);
  console.log(`built ${names} in ${Math.round((Date.now() - started) / 1000)} s`);
}
