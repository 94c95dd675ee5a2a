/**
 * nfs-ganesha for tests: one server process on free loopback ports, with its exports in directories of its own. It can
 * be stopped (SIGSTOP), killed and started again on the same ports. Needs Debian's nfs-ganesha, nfs-ganesha-vfs and
 * rpcbind, and root; `available` tells whether they are there.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const program = "/usr/bin/ganesha.nfsd";

export const available = process.getuid?.() === 0 && existsSync(program) && existsSync("/usr/sbin/rpcbind");

export interface GaneshaOptions {
  /** Names of exports; each is `<directory>/<name>` and exported as `/<name>`. */
  readonly exports?: readonly string[];
  /** Lines for the EXPORT blocks instead of the usual. */
  readonly squash?: "No_Root_Squash" | "Root_Squash";
  readonly protocols?: string;
  /** The only version that the server has; both by default. */
  readonly version?: "3" | "4";
  readonly access?: string;
  readonly filesystemId?: string;
  /** Of the first export; file handles carry it. */
  readonly exportId?: number;
  readonly graceless?: boolean;
  /** Where the exports are, instead of a directory of its own. */
  readonly directory?: string;
}

export class Ganesha implements AsyncDisposable {
  readonly directory: string;
  readonly port: number;
  readonly mountPort: number;
  readonly #private: string;
  readonly #options: GaneshaOptions;
  #process: ChildProcess | null = null;

  private constructor(options: GaneshaOptions, port: number, mountPort: number) {
    this.#options = options;
    this.port = port;
    this.mountPort = mountPort;
    this.#private = mkdtempSync(join(tmpdir(), "chiron-ganesha-"));
    this.directory = options.directory ?? join(this.#private, "exports");
  }

  static async start(options: GaneshaOptions = {}): Promise<Ganesha> {
    const server = new Ganesha(options, await freePort(), await freePort());
    await server.start();
    return server;
  }

  url(version: "3" | "4.1", path = "/export", parameters = ""): string {
    return `nfs://127.0.0.1:${this.port}${path}?version=${version}&mountport=${this.mountPort}${parameters}`;
  }

  get log(): string {
    const file = join(this.#private, "log");
    return existsSync(file) ? readFileSync(file, "utf8") : "";
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Starts the server (again) and waits until it takes connections. */
  async start(options: GaneshaOptions = this.#options, tries = 3): Promise<void> {
    await startRpcbind(); // that of another test may have ended with it
    mkdirSync("/run/ganesha", { recursive: true });
    mkdirSync("/var/lib/nfs/ganesha", { recursive: true });
    const file = join(this.#private, "ganesha.conf");
    writeFileSync(file, this.#configuration(options));
    const args = ["-F", "-f", file, "-L", join(this.#private, "log"), "-p", join(this.#private, "pid"), "-N", "WARN"];
    const child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], { stdio: "ignore" }); // ends with us
    this.#process = child;
    for (let i = 0; i < 200; i++) {
      // The port of an outgoing connection may be in the way for a moment.
      if (child.exitCode !== null && tries > 1) return await pause(300).then(() => this.start(options, tries - 1));
      if (child.exitCode !== null)
        throw new Error(`ganesha.nfsd exited with ${child.exitCode}: ${this.log.slice(-2000)}`);
      if ((await answers(this.port)) && (options.version === "4" || (await answers(this.mountPort)))) return;
      await pause(50);
    }
    throw new Error(`ganesha.nfsd does not listen: ${this.log.slice(-2000)}`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  /** SIGSTOP, and every thread of it has stopped when this resolves. */
  async freeze(): Promise<void> {
    this.signal("SIGSTOP");
    const tasks = `/proc/${this.pid}/task`;
    const stopped = () => readdirSync(tasks).every((id) => / T /.test(readFileSync(join(tasks, id, "stat"), "latin1")));
    while (!stopped()) await pause(5);
  }

  /** SIGKILL, and gone when this resolves. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#private, { recursive: true, force: true });
  }

  #configuration(options: GaneshaOptions): string {
    const recovery = join(this.#private, "recovery");
    mkdirSync(recovery, { recursive: true });
    for (const name of options.exports ?? ["export"]) mkdirSync(join(this.directory, name), { recursive: true });
    const exports = (options.exports ?? ["export"]).map(
      (name, index) => `EXPORT {
  Export_Id = ${(options.exportId ?? 1) + index}; Path = ${join(this.directory, name)}; Pseudo = /${name};
  Access_Type = ${options.access ?? "RW"}; Squash = ${options.squash ?? "No_Root_Squash"}; SecType = sys;
  Protocols = ${options.protocols ?? "3,4"}; Filesystem_Id = ${options.filesystemId ?? `${100 + index}.${index}`};
  MaxRead = 1048576; MaxWrite = 1048576; PrefRead = 1048576; PrefWrite = 1048576;
  FSAL { Name = VFS; }
}`,
    );
    return `NFS_CORE_PARAM {
  NFS_Port = ${this.port}; MNT_Port = ${this.mountPort}; NLM_Port = ${this.port + 1}; Rquota_Port = ${this.port + 2};
  Bind_addr = 127.0.0.1; mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; Protocols = ${options.version ?? "3, 4"};
  fsid_device = true; NSM_Use_Caller_Name = true;
}
NFSV4 {
  Graceless = ${options.graceless ?? true}; Only_Numeric_Owners = true; Allow_Numeric_Owners = true; Grace_Period = 5;
  Lease_Lifetime = 5; RecoveryBackend = fs; RecoveryRoot = ${recovery}; Minor_Versions = 0, 1, 2;
}
${exports.join("\n")}
`;
  }
}

let rpcbind: ChildProcess | null = null;

/** The portmapper, unless the machine has one already; ours ends with this process. */
async function startRpcbind(): Promise<void> {
  if (await answers(111)) return;
  rpcbind = spawn("/usr/sbin/rpcbind", ["-f", "-w"], { stdio: "ignore" });
  rpcbind.unref();
  process.once("exit", () => rpcbind?.kill());
  for (let i = 0; i < 100 && !(await answers(111)); i++) await pause(50);
}

export function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
