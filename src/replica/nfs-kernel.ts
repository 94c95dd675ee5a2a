/**
 * An NFS export through the kernel's client (`kernel=1`), for what ours does not speak (Kerberos, RDMA): mounted in a private
 * place when the replica is connected, and used like a directory, on threads of its own. Invariants:
 *
 * - No call lasts for ever: `softerr`, with the deadline spread over the retransmissions.
 * - Nothing is written late by a cache: the mount is `sync`. Where the server dies, `disconnect` aborts what is under way
 *   (`umount -f`) and takes the mount away.
 * - What an earlier process has left in that place is taken away first. The mount shares nothing with others of the same
 *   export (`nosharecache`).
 */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { formatNfsUrl, type NfsUrl } from "../nfs/url.ts";
import { printable } from "../util/byte-string.ts";
import { EINVAL, EIO, ENODEV } from "../util/errno.ts";
import { OffloadedReplica, type OffloadedReplicaOptions } from "./offload.ts";
import { ReplicaError } from "./replica.ts";

export interface KernelNfsOptions extends Omit<OffloadedReplicaOptions, "path" | "url"> {
  /** Ours alone, mode 0700; the mount is made below it. */
  readonly privateDirectory: string;
  readonly deadlineMs: number;
}

const MNT_PROGRAM_TIMEOUT_MS = 30_000;

export class KernelNfsReplica extends OffloadedReplica {
  readonly #target: NfsUrl;
  readonly #timeoutMs: number;
  readonly #mountpoint: string;

  constructor(target: NfsUrl, { privateDirectory, deadlineMs, ...options }: KernelNfsOptions) {
    const mountpoint = join(privateDirectory, "nfs", options.name);
    super({ ...options, path: mountpoint, url: formatNfsUrl(target) });
    this.#target = target;
    this.#timeoutMs = Math.min(target.timeoutMs, deadlineMs);
    this.#mountpoint = mountpoint;
  }

  override async connect({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    await this.disconnect();
    signal.throwIfAborted();
    const export_ = this.#target.path.map((name) => Buffer.from(name, "latin1").toString("utf8")).join("/");
    if (this.#target.path.some((name) => Buffer.from(name, "latin1").toString("utf8").includes("\ufffd"))) {
      throw this.#error(
        `/${this.#target.path.map(printable).join("/")} is not UTF-8: mount.nfs cannot name it`,
        -EINVAL,
      );
    }
    await this.#mustHaveClient(signal);
    mkdirSync(this.#mountpoint, { recursive: true, mode: 0o700 });
    let said = "";
    for (const host of this.#target.hosts) {
      const source = `${host.includes(":") ? `[${host}]` : host}:/${export_}`;
      const options = kernelMountOptions(this.#target, this.#timeoutMs);
      const mounted = await run("mount.nfs", [source, this.#mountpoint, "-o", options], signal);
      signal.throwIfAborted();
      if (mounted.status === 0) {
        await super.connect({ signal });
        return;
      }
      said = mounted.said;
    }
    throw this.#error(`the kernel's client cannot mount it: ${said}`, -EIO);
  }

  /** Resolves when no call is under way any more, and nothing is mounted. */
  override async disconnect(): Promise<void> {
    const ended = super.disconnect();
    // First by force: what is under way fails then, instead of waiting for the server.
    for (const flags of [["-f"], ["-f", "-l"]]) {
      if (!isMounted(this.#mountpoint)) break;
      await run("umount", [...flags, this.#mountpoint], AbortSignal.timeout(MNT_PROGRAM_TIMEOUT_MS));
    }
    await ended;
  }

  async #mustHaveClient(signal: AbortSignal): Promise<void> {
    if (!hasNfsClient()) await run("modprobe", ["-q", this.#target.version === "3" ? "nfsv3" : "nfsv4"], signal);
    if (hasNfsClient()) return;
    throw this.#error(
      "this machine's kernel has no NFS client, which kernel=1 asks for: load its module (modprobe nfs), or leave kernel=1 " +
        "out of the URL, and Chiron's own client is used",
      -ENODEV,
    );
  }

  #error(message: string, errno: number): ReplicaError {
    return new ReplicaError(this.name, `${this.url}: ${message}`, { errno });
  }
}

/** What mount.nfs is told. A call is sent twice, and given up after three times `timeo` (in tenths of a second). */
export function kernelMountOptions(target: NfsUrl, timeoutMs: number): string {
  const timeo = Math.max(1, Math.floor(timeoutMs / 300));
  return [
    `vers=${target.version === "auto" ? "4.1" : target.version}`,
    ...(target.port === 0 ? [] : [`port=${target.port}`]),
    ...(target.version === "3" ? ["nolock", "mountproto=tcp"] : []),
    ...(target.version === "3" && target.mountPort !== 0 ? [`mountport=${target.mountPort}`] : []),
    ...["proto=tcp", "softerr", `timeo=${timeo}`, "retrans=1", "retry=0", "sync", "nosharecache", "noatime"],
  ].join(",");
}

function hasNfsClient(): boolean {
  return /^(nodev)?\s+nfs4?$/m.test(readFileSync("/proc/filesystems", "latin1"));
}

function isMounted(path: string): boolean {
  const escaped = path.replace(/[\s\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return readFileSync("/proc/self/mountinfo", "latin1")
    .split("\n")
    .some((line) => line.split(" ")[4] === escaped);
}

interface Ended {
  /** null if it did not run, or was ended. */
  readonly status: number | null;
  /** Its last words. */
  readonly said: string;
}

/** Runs a program of the system's, never on the loop and never for ever. */
function run(program: string, args: readonly string[], signal: AbortSignal): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { ...process.env, PATH: [process.env["PATH"], "/sbin", "/usr/sbin"].join(delimiter), LC_ALL: "C" };
    const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"], signal, killSignal: "SIGKILL" });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
    const said = () => output.trim().split("\n").at(-1) ?? "";
    child.once("error", (error) => resolve({ status: null, said: `${program}: ${error.message}` }));
    child.once("exit", (status) => resolve({ status, said: said() }));
  });
}
