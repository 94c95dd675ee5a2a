/** Where the API server is, and who we are to it: inside a pod its service account, elsewhere a kubeconfig. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";

export interface KubeConfig {
  /** `https://host:port`, perhaps with a path. */
  readonly server: string;
  readonly ca?: string | Buffer;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** Read for each request: a service account's token is renewed in its file. */
  readonly token?: () => string;
  /** The pod's own namespace, or the kubeconfig context's. */
  readonly namespace: string;
}

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount";

/** A kubeconfig if one is named (or in $KUBECONFIG), else the pod's service account. */
export async function loadKubeConfig(kubeconfig?: string, env: NodeJS.ProcessEnv = process.env): Promise<KubeConfig> {
  const path = kubeconfig ?? env["KUBECONFIG"];
  if (path !== undefined && path !== "") return fromKubeconfig(path);
  const host = env["KUBERNETES_SERVICE_HOST"];
  if (host === undefined || !existsSync(`${serviceAccount}/token`))
    throw new Error(
      "Cannot find a Kubernetes API server: not in a pod; name a kubeconfig with --kubeconfig or KUBECONFIG",
    );
  const port = env["KUBERNETES_SERVICE_PORT"] ?? "443";
  return {
    server: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    ca: readFileSync(`${serviceAccount}/ca.crt`),
    token: cachedFile(`${serviceAccount}/token`),
    namespace: readFileSync(`${serviceAccount}/namespace`, "utf8").trim(),
  };
}

interface Kubeconfig {
  readonly "current-context"?: string;
  readonly contexts?: readonly { name: string; context: { cluster: string; user: string; namespace?: string } }[];
  readonly clusters?: readonly { name: string; cluster: Readonly<Record<string, string>> }[];
  readonly users?: readonly { name: string; user: Readonly<Record<string, string>> }[];
}

async function fromKubeconfig(path: string): Promise<KubeConfig> {
  const text = readFileSync(path, "utf8");
  // Only people's machines have kubeconfigs in YAML: others do without the parser.
  const isJson = text.trimStart().startsWith("{");
  const config = (isJson ? JSON.parse(text) : (await import("yaml")).parse(text)) as Kubeconfig;
  const context = config.contexts?.find(({ name }) => name === config["current-context"])?.context;
  const cluster = config.clusters?.find(({ name }) => name === context?.cluster)?.cluster;
  const user = config.users?.find(({ name }) => name === context?.user)?.user ?? {};
  const server = cluster?.["server"];
  if (!context || !cluster || server === undefined)
    throw new Error(`Cannot use ${path}: its current context names no cluster with a server`);
  const read = (fields: Readonly<Record<string, string>>, field: string): Buffer | undefined => {
    const data = fields[`${field}-data`];
    if (data !== undefined) return Buffer.from(data, "base64");
    const file = fields[field];
    return file === undefined ? undefined : readFileSync(resolve(dirname(path), file));
  };
  const ca = read(cluster, "certificate-authority");
  const cert = read(user, "client-certificate");
  const key = read(user, "client-key");
  const token = user["token"];
  return {
    server,
    namespace: context.namespace ?? "default",
    ...(ca ? { ca } : {}),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
    ...(token === undefined ? {} : { token: () => token }),
  };
}

function cachedFile(path: string): () => string {
  let text = "";
  let readAtMs = Number.NEGATIVE_INFINITY;
  return () => {
    if (performance.now() - readAtMs > 60_000) {
      text = readFileSync(path, "utf8").trim();
      readAtMs = performance.now();
    }
    return text;
  };
}
