/**
 * A replica that fails as it is told to, around one that works. What it does follows from its plan and its seed.
 *
 * - Faults are data (`Fault`): which calls, from which on, how often, and what happens to them.
 * - A hung call answers when it is released, or when the replica is disconnected and its effect can be ruled out.
 *   `late: "applied"` takes effect only when it is released: however late, also on a replica that was left behind long
 *   ago. `disconnect` waits for such a call, as the contract asks; connecting before that is a bug, and throws.
 * - With `async` every answer comes later, after a random number of turns of the event loop before and after the effect,
 *   so calls in flight overtake each other.
 * - Fed with no fault it passes the contract.
 */
import type { ByteString } from "../../util/byte-string.ts";
import { EIO, ENOSPC, ENOTCONN, EROFS } from "../../util/errno.ts";
import type { FileAttr } from "../../util/file-attr.ts";
import type {
  Answer,
  AttrChange,
  Capabilities,
  DirectoryEntries,
  FileSystemStats,
  Owner,
  Replica,
  ReplicaHandle,
  TreeObject,
} from "../replica.ts";
import { type Choose, seeded } from "./random.ts";

/** The calls that can be made to fail. */
export type Call = Exclude<keyof Replica, "name" | "url" | "connect" | "disconnect" | "probe" | "forget">;

const changes: readonly Call[] = [
  "create",
  "mkdir",
  "mknod",
  "symlink",
  "link",
  "unlink",
  "rmdir",
  "rename",
  "setattr",
  "setxattr",
  "removexattr",
  "write",
  "fallocate",
  "copyRange",
];

export type Effect =
  /** The errno, and nothing happens; or it happens all the same (a lost answer). */
  | { readonly kind: "errno"; readonly errno: number; readonly applied?: boolean }
  /** Of a write a part reaches the disk, then the errno (EIO by default). Other calls: as `errno`. */
  | { readonly kind: "short"; readonly errno?: number }
  | { readonly kind: "delay"; readonly delayMs: number }
  /** No answer until `release`; then the effect takes place or does not, by a draw if it is not said. */
  | { readonly kind: "hang"; readonly late?: "applied" | "never" };

export interface Fault {
  /** Any call if left out; "change" is every call that changes the tree. */
  readonly on?: Call | "change" | readonly Call[];
  /** Leaves out this many matching calls first. */
  readonly after?: number;
  /** How many calls it befalls; no end by default. */
  readonly times?: number;
  /** Befalls one in so many matching calls, by a draw. */
  readonly oneIn?: number;
  readonly effect: Effect;
}

export interface FaultyOptions {
  readonly seed?: number;
  readonly async?: boolean;
  /** With `async`: at most so many turns of the event loop before the effect, and after it. */
  readonly maxTurns?: number;
}

interface Armed {
  readonly fault: Fault;
  seen: number;
  struck: number;
}

interface Hung {
  readonly call: Call;
  readonly release: () => void;
}

export class FaultyReplica implements Replica {
  readonly name: string;
  readonly url: string;
  readonly inner: Replica;
  /** Every call that came in, with what it answered, for tests that look. */
  readonly counts = new Map<Call, number>();
  #armed: Armed[] = [];
  readonly #choose: Choose;
  readonly #options: FaultyOptions;
  #spaceBytes = Number.POSITIVE_INFINITY;
  #connected = false;
  readonly #hung = new Set<Hung>();
  readonly #inFlight = new Set<Promise<unknown>>();

  constructor(inner: Replica, plan: readonly Fault[] = [], options: FaultyOptions = {}) {
    this.inner = inner;
    this.name = inner.name;
    this.url = inner.url;
    this.#options = options;
    this.#choose = seeded(options.seed ?? 1);
    this.inject(...plan);
  }

  // What a test does with it.

  /** More faults, after those that are there. */
  inject(...faults: readonly Fault[]): void {
    for (const fault of faults) this.#armed.push({ fault, seen: 0, struck: 0 });
  }

  /** No faults from here on; what hangs goes on hanging. */
  heal(): void {
    this.#armed = [];
    this.#spaceBytes = Number.POSITIVE_INFINITY;
  }

  /** From here on changes answer EROFS. */
  makeReadOnly(): void {
    this.inject({ on: "change", effect: { kind: "errno", errno: EROFS } });
  }

  /** Writes answer ENOSPC once so many more bytes were written. */
  limitSpace(bytes: number): void {
    this.#spaceBytes = bytes;
  }

  get hanging(): readonly Call[] {
    return [...this.#hung].map((hung) => hung.call);
  }

  /** Lets every hung call end. */
  release(): void {
    for (const hung of [...this.#hung]) hung.release();
  }

  // Replica.

  async connect(options: { readonly signal: AbortSignal }): Promise<void> {
    if (this.#hung.size > 0) throw new Error(`Replica "${this.name}" is connected while a call may still take effect`);
    await this.inner.connect(options);
    this.#connected = true;
  }

  async disconnect(): Promise<void> {
    this.#connected = false;
    while (this.#inFlight.size > 0) await Promise.allSettled(this.#inFlight);
    if (!this.#connected) await this.inner.disconnect();
  }

  probe(): Promise<Capabilities> {
    return this.inner.probe();
  }

  forget(object: TreeObject): void {
    this.inner.forget(object);
  }

  check(): Answer {
    return this.#call("check", () => this.inner.check());
  }

  lookup(directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#call("lookup", () => this.inner.lookup(directory, name, attr));
  }

  create(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#call("create", () => this.inner.create(directory, name, mode, owner, attr));
  }

  mkdir(directory: TreeObject, name: ByteString, mode: number, owner: Owner, attr: FileAttr | null): Answer {
    return this.#call("mkdir", () => this.inner.mkdir(directory, name, mode, owner, attr));
  }

  mknod(
    directory: TreeObject,
    name: ByteString,
    mode: number,
    rdev: number,
    owner: Owner,
    attr: FileAttr | null,
  ): Answer {
    return this.#call("mknod", () => this.inner.mknod(directory, name, mode, rdev, owner, attr));
  }

  symlink(directory: TreeObject, name: ByteString, target: ByteString, owner: Owner, attr: FileAttr | null): Answer {
    return this.#call("symlink", () => this.inner.symlink(directory, name, target, owner, attr));
  }

  link(object: TreeObject, directory: TreeObject, name: ByteString, attr: FileAttr | null): Answer {
    return this.#call("link", () => this.inner.link(object, directory, name, attr));
  }

  unlink(directory: TreeObject, name: ByteString): Answer {
    return this.#call("unlink", () => this.inner.unlink(directory, name));
  }

  rmdir(directory: TreeObject, name: ByteString): Answer {
    return this.#call("rmdir", () => this.inner.rmdir(directory, name));
  }

  rename(from: TreeObject, fromName: ByteString, to: TreeObject, toName: ByteString, flags: number): Answer {
    return this.#call("rename", () => this.inner.rename(from, fromName, to, toName, flags));
  }

  readdir(directory: TreeObject, into: DirectoryEntries): Answer {
    return this.#call("readdir", () => this.inner.readdir(directory, into));
  }

  getattr(object: TreeObject, attr: FileAttr): Answer {
    return this.#call("getattr", () => this.inner.getattr(object, attr));
  }

  setattr(object: TreeObject, handle: ReplicaHandle, change: AttrChange, attr: FileAttr | null): Answer {
    return this.#call("setattr", () => this.inner.setattr(object, handle, change, attr));
  }

  readlink(object: TreeObject, into: Uint8Array): Answer {
    return this.#call("readlink", () => this.inner.readlink(object, into));
  }

  getxattr(object: TreeObject, name: ByteString, into: Uint8Array): Answer {
    return this.#call("getxattr", () => this.inner.getxattr(object, name, into));
  }

  setxattr(object: TreeObject, name: ByteString, value: Uint8Array, flags: number): Answer {
    return this.#call("setxattr", () => this.inner.setxattr(object, name, value, flags));
  }

  listxattr(object: TreeObject, into: Uint8Array): Answer {
    return this.#call("listxattr", () => this.inner.listxattr(object, into));
  }

  removexattr(object: TreeObject, name: ByteString): Answer {
    return this.#call("removexattr", () => this.inner.removexattr(object, name));
  }

  fsyncdir(object: TreeObject): Answer {
    return this.#call("fsyncdir", () => this.inner.fsyncdir(object));
  }

  open(object: TreeObject, access: "read" | "read-write"): Answer {
    return this.#call("open", () => this.inner.open(object, access));
  }

  close(handle: ReplicaHandle): Answer {
    return this.#call("close", () => this.inner.close(handle));
  }

  fgetattr(handle: ReplicaHandle, attr: FileAttr): Answer {
    return this.#call("fgetattr", () => this.inner.fgetattr(handle, attr));
  }

  read(handle: ReplicaHandle, into: Uint8Array, position: number): Answer {
    return this.#call("read", () => this.inner.read(handle, into, position));
  }

  write(handle: ReplicaHandle, data: Uint8Array, position: number): Answer {
    const part = (length: number) => this.inner.write(handle, data.subarray(0, length), position);
    return this.#call(
      "write",
      () => {
        if (data.length <= this.#spaceBytes) {
          this.#spaceBytes -= data.length;
          return this.inner.write(handle, data, position);
        }
        const room = this.#spaceBytes;
        this.#spaceBytes = 0;
        return room === 0 ? -ENOSPC : then(part(room), () => -ENOSPC);
      },
      () => part(this.#choose(data.length)),
    );
  }

  fsync(handle: ReplicaHandle, dataOnly: boolean): Answer {
    return this.#call("fsync", () => this.inner.fsync(handle, dataOnly));
  }

  fallocate(handle: ReplicaHandle, mode: number, position: number, length: number): Answer {
    return this.#call("fallocate", () => this.inner.fallocate(handle, mode, position, length));
  }

  seek(handle: ReplicaHandle, position: number, whence: number): Answer {
    return this.#call("seek", () => this.inner.seek(handle, position, whence));
  }

  copyRange(from: ReplicaHandle, fromPosition: number, to: ReplicaHandle, toPosition: number, length: number): Answer {
    return this.#call("copyRange", () => this.inner.copyRange(from, fromPosition, to, toPosition, length));
  }

  statfs(into: FileSystemStats): Answer {
    return this.#call("statfs", () => this.inner.statfs(into));
  }

  sync(): Answer {
    return this.#call("sync", () => this.inner.sync());
  }

  // How a call fails.

  #call(call: Call, effect: () => Answer, part: () => Answer = () => 0): Answer {
    if (!this.#connected) return -ENOTCONN;
    this.counts.set(call, (this.counts.get(call) ?? 0) + 1);
    const answer = this.#befall(call, this.#strike(call), effect, part);
    if (typeof answer === "number") return answer;
    this.#inFlight.add(answer);
    void answer.finally(() => this.#inFlight.delete(answer));
    return answer;
  }

  #strike(call: Call): Effect | null {
    for (const armed of this.#armed) {
      const { on, after = 0, times = Number.POSITIVE_INFINITY, oneIn = 1 } = armed.fault;
      const matches = on === undefined || on === call || (on === "change" ? changes : on).includes(call);
      if (!matches || armed.seen++ < after || armed.struck >= times) continue;
      if (oneIn > 1 && this.#choose(oneIn) !== 0) continue;
      armed.struck++;
      return armed.fault.effect;
    }
    return null;
  }

  #befall(call: Call, fault: Effect | null, effect: () => Answer, part: () => Answer): Answer {
    switch (fault?.kind) {
      case "errno":
        return fault.applied === true
          ? then(this.#answer(effect), () => -fault.errno)
          : this.#answer(() => -fault.errno);
      case "short":
        return then(this.#answer(part), () => -(fault.errno ?? EIO));
      case "delay":
        return sleep(fault.delayMs).then(() => this.#answer(effect));
      case "hang": {
        const late = fault.late ?? (this.#choose(2) === 0 ? "applied" : "never");
        return this.#hang(call).then(() => (late === "applied" ? effect() : -ENOTCONN));
      }
      case undefined:
        return this.#answer(effect);
    }
  }

  #hang(call: Call): Promise<void> {
    return new Promise((resolve) => {
      const hung: Hung = {
        call,
        release: () => {
          this.#hung.delete(hung);
          resolve();
        },
      };
      this.#hung.add(hung);
    });
  }

  #answer(effect: () => Answer): Answer {
    if (this.#options.async !== true) return effect();
    const max = this.#options.maxTurns ?? 4;
    const [before, after] = [this.#choose(max + 1), this.#choose(max + 1)];
    return (async () => {
      for (let i = 0; i < before; i++) await turn();
      const result = await effect();
      for (let i = 0; i < after; i++) await turn();
      return result;
    })();
  }
}

function then(answer: Answer, map: (result: number) => number): Answer {
  return typeof answer === "number" ? map(answer) : answer.then(map);
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
