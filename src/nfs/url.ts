/**
 * `nfs://host[:port]/export[/sub/dir]?version=3|4.1&mountport=…&timeout=…&kernel=1&mkdir=1`. Several addresses of one server are
 * separated by commas; an IPv6 address stands in brackets. The path is bytes, with `%XX` for what a URL cannot hold.
 */
import { type ByteString, byteString } from "../util/byte-string.ts";

export interface NfsUrl {
  /** Names or addresses of one server, without brackets. */
  readonly hosts: readonly string[];
  /** 0: as the protocol has it (2049). */
  readonly port: number;
  readonly path: readonly ByteString[];
  /** "auto": 4.1 where the server offers it, else 3. */
  readonly version: "3" | "4.1" | "auto";
  /** The MOUNT service's port for v3; 0: ask the portmapper. */
  readonly mountPort: number;
  readonly timeoutMs: number;
  /** The kernel's client instead of ours. */
  readonly kernel: boolean;
  /** The directory may be made, when the volume is. */
  readonly makeDirectory: boolean;
}

export const defaultTimeoutMs = 10_000;

/** Throws a `TypeError` that says what is wrong with the URL. */
export function parseNfsUrl(text: string): NfsUrl {
  const match = /^nfs:\/\/([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?$/i.exec(text);
  if (match === null) throw bad(text, "expected nfs://host/export");
  const [, authority = "", path = "", query = ""] = match;
  const { hosts, port } = parseAuthority(text, authority);
  const parameters = parseQuery(text, query);
  const version = parameters.get("version") ?? "auto";
  if (version !== "3" && version !== "4.1" && version !== "auto") {
    throw bad(text, `version is "${version}": 3 or 4.1 are possible`);
  }
  const flag = (name: string): boolean => {
    const value = parameters.get(name) ?? "0";
    if (value !== "0" && value !== "1") throw bad(text, `${name} is "${value}": 0 or 1 are possible`);
    return value === "1";
  };
  return {
    hosts,
    port,
    path: parsePath(text, path),
    version,
    mountPort: parsePort(text, "mountport", parameters.get("mountport")),
    timeoutMs: parseTimeout(text, parameters.get("timeout")),
    kernel: flag("kernel"),
    makeDirectory: flag("mkdir"),
  };
}

/** The URL in its shortest form. */
export function formatNfsUrl(url: NfsUrl): string {
  const hosts = url.hosts.map((host) => (host.includes(":") ? `[${host}]` : host)).join(",");
  const parameters = [
    url.version === "auto" ? "" : `version=${url.version}`,
    url.mountPort === 0 ? "" : `mountport=${url.mountPort}`,
    url.timeoutMs === defaultTimeoutMs ? "" : `timeout=${url.timeoutMs}ms`,
    url.kernel ? "kernel=1" : "",
    url.makeDirectory ? "mkdir=1" : "",
  ].filter((parameter) => parameter !== "");
  const query = parameters.length === 0 ? "" : `?${parameters.join("&")}`;
  const path = url.path.map((name) => name.replace(/[^\w.~+@:,=-]/g, percent)).join("/");
  return `nfs://${hosts}${url.port === 0 ? "" : `:${url.port}`}/${path}${query}`;
}

function percent(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}

function parseAuthority(text: string, authority: string): { readonly hosts: string[]; readonly port: number } {
  const withPort = /^(.*?)(?::(\d*))?$/.exec(authority.replace(/\[[^\]]*\]/g, (ip) => ip.replaceAll(":", ";")));
  const [, names = "", portText] = withPort ?? [];
  const hosts = names.split(",").map((name) => {
    const ip = /^\[([0-9a-fA-F;.%\w]+)\]$/.exec(name)?.[1];
    if (ip !== undefined) return ip.replaceAll(";", ":");
    if (!/^[\w.-]+$/.test(name))
      throw bad(text, name === "" ? "the server is missing" : `"${name}" is no server's name`);
    return name;
  });
  return { hosts, port: parsePort(text, "the port", portText) };
}

function parsePath(text: string, path: string): ByteString[] {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  return names.map((name) => {
    if (/%(?![0-9a-fA-F]{2})/.test(name)) throw bad(text, `"${name}" has a % that is not followed by two hex digits`);
    const bytes = byteString(name).replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
    if (bytes === ".." || bytes.includes("/") || bytes.includes("\0"))
      throw bad(text, `"${name}" may not be in a path`);
    return bytes;
  });
}

function parseQuery(text: string, query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query.split("&").filter((piece) => piece !== "")) {
    const [key = "", value = ""] = part.split("=", 2);
    if (!["version", "mountport", "timeout", "kernel", "mkdir"].includes(key))
      throw bad(text, `it has no parameter "${key}"`);
    parameters.set(key, decodeURIComponent(value));
  }
  return parameters;
}

function parsePort(text: string, what: string, value: string | undefined): number {
  if (value === undefined || value === "") return 0;
  const port = Number(value);
  if (!/^\d+$/.test(value) || port < 1 || port > 65_535) throw bad(text, `${what} is "${value}"`);
  return port;
}

function parseTimeout(text: string, value: string | undefined): number {
  if (value === undefined) return defaultTimeoutMs;
  const match = /^(\d+(?:\.\d+)?)(ms|s)?$/.exec(value);
  const ms = match === null ? 0 : Number(match[1]) * (match[2] === "ms" ? 1 : 1_000);
  if (!(ms >= 100 && ms <= 3_600_000)) throw bad(text, `timeout is "${value}": 100ms to 3600s are possible`);
  return ms;
}

function bad(text: string, reason: string): TypeError {
  return new TypeError(`The NFS URL "${text}" cannot be used: ${reason}`);
}
