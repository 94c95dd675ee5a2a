/** Container images without a registry and without an engine: folders packed as `docker save` archives. */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { run } from "../kubernetes/api-server.ts";
import { findProgram } from "../kubernetes/programs.ts";

async function must(program: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, "", { timeoutMs: 300_000 });
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} failed: ${stderr}`);
  return stdout;
}

/** Makes `output` unless it is newer than `since`. */
async function pack(
  name: string,
  output: string,
  entrypoint: readonly string[],
  fill: (tree: string) => Promise<void> | void,
): Promise<void> {
  if (existsSync(output)) return;
  const work = mkdtempSync(join(tmpdir(), "chiron-pack-"));
  try {
    const tree = join(work, "tree");
    for (const folder of ["tmp", "etc", "proc", "sys", "dev", "run"])
      mkdirSync(join(tree, folder), { recursive: true });
    await fill(tree);
    const layer = join(work, "layer.tar");
    const plain = ["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--sort=name"];
    await must("tar", "-C", tree, ...plain, "-cf", layer, ".");
    const digest = createHash("sha256").update(readFileSync(layer)).digest("hex");
    const config = {
      architecture: process.arch === "x64" ? "amd64" : process.arch,
      os: "linux",
      config: { Env: ["PATH=/bin"], Entrypoint: entrypoint },
      rootfs: { type: "layers", diff_ids: [`sha256:${digest}`] },
    };
    writeFileSync(join(work, "config.json"), JSON.stringify(config));
    const manifest = [{ Config: "config.json", RepoTags: [`localhost/${name}:1`], Layers: ["layer.tar"] }];
    writeFileSync(join(work, "manifest.json"), JSON.stringify(manifest));
    mkdirSync(dirname(output), { recursive: true });
    await must("tar", "-C", work, "-cf", `${output}.new`, "manifest.json", "config.json", "layer.tar");
    renameSync(`${output}.new`, output);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** `localhost/NAME:1` for pause, busybox, csi-provisioner, csi-resizer, csi-snapshotter, and Chiron's own image under two tags. */
export async function makeImages(folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const busybox = findProgram("busybox") ?? "/bin/busybox";
  const withBusybox = async (tree: string) => {
    mkdirSync(join(tree, "bin"));
    copyFileSync(busybox, join(tree, "bin/busybox"));
    for (const applet of (await must(busybox, "--list")).trim().split("\n"))
      if (applet !== "busybox") symlinkSync("busybox", join(tree, "bin", applet));
    writeFileSync(join(tree, "etc/passwd"), "root:x:0:0:root:/:/bin/sh\n");
    writeFileSync(join(tree, "etc/group"), "root:x:0:\n");
  };
  await pack(
    "pause",
    join(folder, "pause.tar"),
    ["/bin/sh", "-c", "trap exit TERM INT; while :; do sleep 3600 & wait; done"],
    withBusybox,
  );
  await pack("busybox", join(folder, "busybox.tar"), ["/bin/sh"], withBusybox);
  for (const program of ["csi-provisioner", "csi-resizer", "csi-snapshotter"])
    await pack(program, join(folder, `${program}.tar`), [`/${program}`], (tree) => {
      copyFileSync(findProgram(program) ?? program, join(tree, program));
    });
  const script = join(import.meta.dirname, "../../scripts/image.ts");
  for (const tag of ["1", "2"])
    await must(
      process.execPath,
      script,
      `--tag=localhost/chiron:${tag}`,
      `--output=${join(folder, `chiron-${tag}.tar`)}`,
    );
}
