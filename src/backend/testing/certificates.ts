/** Certificates for tests, by openssl: an authority, and a server's and a client's certificate by it. */
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { backendServerName } from "../../replica/remote-open.ts";

/** Makes `server` and `client` below this directory, each with `tls.crt`, `tls.key` and `ca.crt`. */
export function makeCertificates(directory: string): void {
  const openssl = (...args: readonly string[]): void => {
    const { status, stderr, error } = spawnSync("openssl", args, { cwd: directory });
    if (status !== 0) throw new Error(`openssl ${args[0]}: ${error?.message ?? String(stderr)}`);
  };
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  mkdirSync(directory, { recursive: true });
  openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority");
  for (const name of ["server", "client"]) {
    mkdirSync(join(directory, name));
    const request = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${backendServerName}`];
    openssl("req", ...key, "-keyout", `${name}/tls.key`, "-out", `${name}.csr`, ...request);
    const signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-copy_extensions", "copy", "-out", `${name}/tls.crt`];
    openssl("x509", "-req", "-in", `${name}.csr`, ...signed);
    copyFileSync(join(directory, "ca.crt"), join(directory, name, "ca.crt"));
  }
}
