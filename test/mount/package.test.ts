/** As a user gets it: the packed tarball, installed by npm; a checkout by npx; and how quickly the command line answers. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { checkout, run as ran } from "./command.ts";
import { chironProgram, run, Sandbox, sh } from "./sandbox.ts";

/** What `npm pack` takes, from a copy of the checkout: it makes `dist`, which the checkout must not get. */
async function pack(box: Sandbox, context: TestContext): Promise<string | null> {
  const copy = box.makeDirectory("checkout");
  const manifest = JSON.parse(readFileSync(join(checkout, "package.json"), "utf8")) as { readonly files: string[] };
  for (const name of [...manifest.files, "src"].filter((name) => name !== "dist"))
    await sh(`cp -a ${checkout}/${name} ${copy}/`);
  for (const name of readdirSync(checkout).filter((name) => /^(package|tsconfig).*\.json$/.test(name))) {
    copyFileSync(join(checkout, name), join(copy, name));
  }
  symlinkSync(join(checkout, "node_modules"), join(copy, "node_modules"));
  const packed = await ran("npm", ["pack", "--silent"], { cwd: copy, timeoutMs: 120_000 });
  assert.equal(packed.status, 0, packed.err);
  const tarball = join(copy, packed.out.trim().split("\n").at(-1) ?? "");
  const prefix = box.makeDirectory("prefix");
  const install = ["install", "--global", "--prefix", prefix, "--prefer-offline", "--no-audit", "--no-fund", tarball];
  const installed = await ran("npm", install, { timeoutMs: 300_000 });
  if (installed.status !== 0 && /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENOTCACHED/.test(installed.err)) {
    context.skip("LEFT OUT: npm's registry cannot be reached");
    return null;
  }
  assert.equal(installed.status, 0, installed.err);
  return join(prefix, "bin");
}

test("the packed tarball, installed globally, mounts, survives a kill, and unmounts", {
  timeout: 600_000,
}, async (context) => {
  const box = new Sandbox(context);
  const bin = await pack(box, context);
  if (bin === null) return;
  const env = { ...box.env, CHIRON_NODE: process.execPath };
  const chiron = (...argv: string[]) => run(join(bin, "chiron"), argv, env);
  const { version } = JSON.parse(readFileSync(join(checkout, "package.json"), "utf8")) as { readonly version: string };
  assert.equal((await chiron("--version")).stdout, `${version}\n`);
  const spec = `${box.makeDirectory("a")}=${box.makeDirectory("b")}`;
  const mounted = await run(join(bin, "mount.chiron"), [spec, box.mountpoint, "-o", `rw,log=${box.log}`], env);
  assert.equal(mounted.code, 0, mounted.stderr);
  const { pid } = JSON.parse((await chiron("status", "--json", box.mountpoint)).stdout) as { readonly pid: number };
  process.kill(pid, "SIGKILL");
  assert.equal((await sh(`echo hello > ${box.mountpoint}/f && cat ${box.mountpoint}/f`)).stdout, "hello\n");
  assert.deepEqual(await chiron("unmount", box.mountpoint), { code: 0, stdout: "", stderr: "" });
  assert.equal(readFileSync(box.path("b/f"), "utf8"), "hello\n");
});

test("in a checkout it is there as npx chiron", async () => {
  const { status, out } = await ran("npx", ["--no-install", "chiron", "--version"], { cwd: checkout });
  assert.deepEqual([status, out.trim().split("\n").length], [0, 1]);
});

test("a machine whose Node.js is too old is told so", async (context) => {
  const box = new Sandbox(context);
  mkdirSync(box.path("bin"));
  await sh(`cp ${chironProgram} ${box.path("bin/chiron")} && printf '#!/bin/sh\necho v20.1.0\n' > ${box.path("node")}`);
  await sh(`chmod 755 ${box.path("node")}`);
  const { code, stderr } = await run(box.path("bin/chiron"), ["--help"], { ...box.env, CHIRON_NODE: box.path("node") });
  assert.equal(code, 70);
  assert.match(stderr, /^chiron: needs Node\.js 24 or later.*\n$/);
});

test("help is there in 150 ms, or as soon as this machine can start Node at all", () => {
  const best = (argv: string[]) =>
    Math.min(
      ...Array.from({ length: 10 }, () => {
        const begin = performance.now();
        assert.equal(spawnSync(argv[0] as string, argv.slice(1), { stdio: "ignore" }).status, 0);
        return performance.now() - begin;
      }),
    );
  const helpMs = best([chironProgram, "--help"]);
  const nodeMs = best([process.execPath, "-e", "0"]);
  assert.ok(helpMs < Math.max(150, 3 * nodeMs), `${helpMs} ms, and ${nodeMs} ms for Node alone`);
});
