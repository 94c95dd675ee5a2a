/**
 * A proxy before the API server that meddles with what a client asks: answers errors of its own, breaks watches, tells
 * of each request before and after it took effect. Speaks HTTPS with a certificate that is made for it.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { Agent, createServer, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { loadKubeConfig } from "../../src/kube/config.ts";
import type { ApiServer } from "./api-server.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly isWatch: boolean;
  readonly isWrite: boolean;
}

/** What becomes of a request: `null` lets it through. */
export interface Meddling {
  readonly before?: (asked: Asked) => Promise<number | null> | number | null;
  /** The API server has carried it out, and the client has not been told yet. */
  readonly after?: (asked: Asked) => Promise<void> | void;
  /** After how long a watch ends with an error in its stream. */
  readonly watchMs?: () => number | null;
}

export interface MeddledApi extends AsyncDisposable {
  readonly kubeconfigPath: string;
  meddling: Meddling;
}

const reasons: Readonly<Record<number, string>> = { 409: "Conflict", 429: "TooManyRequests", 500: "InternalError" };

export async function startMeddledApi(api: ApiServer): Promise<MeddledApi> {
  const directory = mkdtempSync(join(tmpdir(), "chiron-api-"));
  const [keyFile, certFile] = [join(directory, "key"), join(directory, "cert")];
  const made = spawnSync("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
    ...["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", keyFile, "-out", certFile],
  ]);
  if (made.status !== 0) throw new Error(`openssl: ${made.stderr.toString()}`);
  const config = await loadKubeConfig(api.kubeconfigPath);
  const { ca, cert, key, token } = config;
  const agent = new Agent({
    keepAlive: true,
    ...(ca ? { ca } : {}),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
  });
  const meddled = { meddling: {} as Meddling };

  const forward = async (inner: IncomingMessage, answer: ServerResponse) => {
    const body = await buffer(inner);
    const { method = "GET", url = "/" } = inner;
    const isWatch = /[?&]watch=true/.test(url);
    const asked = { method, path: url, isWatch, isWrite: method !== "GET" };
    const code = (await meddled.meddling.before?.(asked)) ?? null;
    if (code !== null) {
      const status = { kind: "Status", code, reason: reasons[code] ?? "", message: `meddled with: ${code}` };
      answer.writeHead(code, { "content-type": "application/json", ...(code === 429 ? { "retry-after": "1" } : {}) });
      answer.end(JSON.stringify(status));
      return;
    }
    const headers = { ...inner.headers, ...(token ? { authorization: `Bearer ${token()}` } : {}) };
    delete headers.host;
    const outer = request(new URL(url, api.server), { method, agent, headers }, (response) => {
      tell(response).catch(() => answer.destroy());
    });
    const tell = async (response: IncomingMessage) => {
      if (!isWatch) {
        const text = await buffer(response);
        await meddled.meddling.after?.(asked);
        answer.writeHead(response.statusCode ?? 500, { "content-type": "application/json" });
        answer.end(text);
        return;
      }
      answer.writeHead(response.statusCode ?? 500, response.headers);
      response.pipe(answer);
      const watchMs = meddled.meddling.watchMs?.() ?? null;
      if (watchMs === null) return;
      setTimeout(() => {
        response.unpipe(answer);
        const object = { kind: "Status", code: 500, reason: "InternalError", message: "meddled with" };
        answer.end(`${JSON.stringify({ type: "ERROR", object })}\n`);
        outer.destroy();
      }, watchMs).unref();
    };
    outer.on("error", () => answer.destroy());
    answer.on("close", () => outer.destroy());
    outer.end(body);
  };
  const server = createServer({ key: readFileSync(keyFile), cert: readFileSync(certFile) }, (inner, answer) => {
    forward(inner, answer).catch(() => answer.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const kubeconfigPath = join(directory, "kubeconfig");
  const context = { name: "meddled", context: { cluster: "meddled", user: "meddled" } };
  const cluster = { server: `https://127.0.0.1:${port}`, "certificate-authority": certFile };
  writeFileSync(
    kubeconfigPath,
    JSON.stringify({
      "current-context": "meddled",
      contexts: [context],
      clusters: [{ name: "meddled", cluster }],
      users: [{ name: "meddled", user: {} }],
    }),
  );
  return Object.assign(meddled, {
    kubeconfigPath,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
      agent.destroy();
      rmSync(directory, { recursive: true, force: true });
    },
  });
}
