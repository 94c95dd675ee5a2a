/**
 * Serves one directory to node plugins that cannot mount it themselves: a volume of another kind than they know, in the
 * pod that mounts it. TLS with certificates on both sides; who has none of our authority's gets no answer at all.
 *
 * - A session has handles of its own, which are closed when it ends.
 * - Of sessions that took a volume over only the last one works: `takeOver` answers when every call of the others has
 *   ended, and whatever else they send is not carried out.
 */
import { createServer, type Server, type TLSSocket, type TlsOptions } from "node:tls";
import {
  encodeFrame,
  FrameReader,
  type Names,
  packAttr,
  REMOTE_VERSION,
  type RemoteCall,
  type RemoteCalls,
  type ReplyHead,
  type RequestHead,
} from "../replica/remote-wire.ts";
import type { Answer, AttrChange, FileSystemStats, Owner, Replica, TreeObject } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";
import { EBADF, EINVAL, ENOSYS, ENOTCONN, EOPNOTSUPP } from "../util/errno.ts";
import { FileAttr } from "../util/file-attr.ts";
import { errorText, type Logger } from "../util/logger.ts";

export interface BackendServerOptions {
  readonly port: number;
  readonly host?: string;
  readonly tls: Pick<TlsOptions, "key" | "cert" | "ca">;
  /** The directory; connected. */
  readonly replica: Replica;
  readonly logger: Logger;
}

type Reply = Omit<ReplyHead, "id"> & { readonly bytes?: Uint8Array };
type Handlers = {
  readonly [C in RemoteCall]: (session: Session, args: RemoteCalls[C], bytes: Uint8Array) => Promise<Reply> | Reply;
};

const readMostBytes = 32 << 20;
const lookTimeoutMs = 10_000;

interface Session {
  readonly socket: TLSSocket;
  readonly handles: Set<number>;
  readonly calls: Set<Promise<void>>;
  client: string | null;
  volume: string | null;
  ended: boolean;
}

export class BackendServer {
  readonly #server: Server;
  readonly #options: BackendServerOptions;
  readonly #sessions = new Set<Session>();
  readonly #handlers: Handlers;

  constructor(options: BackendServerOptions) {
    this.#options = options;
    this.#handlers = handlersOf(options.replica, {
      hello: (session, client) => this.#hello(session, client),
      takeOver: (session, volume) => this.#takeOver(session, volume),
    });
    const { key, cert, ca } = options.tls;
    this.#server = createServer(
      { key, cert, ca, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3" },
      (socket) => this.#serve(socket),
    );
    this.#server.on("tlsClientError", (error) =>
      options.logger.warn("a client is refused", { error: errorText(error) }),
    );
  }

  /** Answers the port. */
  async listen(): Promise<number> {
    const { port, host } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject).listen(port, host, () => resolve());
    });
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : port;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#sessions].map((session) => this.#end(session)));
    await closed;
  }

  #serve(socket: TLSSocket): void {
    const session: Session = {
      socket,
      handles: new Set(),
      calls: new Set(),
      client: null,
      volume: null,
      ended: false,
    };
    this.#sessions.add(session);
    const frames = new FrameReader<RequestHead>();
    socket.setNoDelay(true).setKeepAlive(true, 10_000);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => void this.#end(session));
    socket.on("data", (piece: Buffer) => {
      try {
        for (const { head, bytes } of frames.push(piece)) this.#begin(session, head, bytes);
      } catch (error) {
        this.#options.logger.warn("a client sends what is no call", { error: errorText(error) });
        socket.destroy();
      }
    });
  }

  #begin(session: Session, head: RequestHead, bytes: Uint8Array): void {
    // Its bytes are a part of what the connection delivers next, too.
    const call = this.#answer(session, head, bytes).finally(() => session.calls.delete(call));
    session.calls.add(call);
  }

  async #answer(session: Session, { id, call, args }: RequestHead, bytes: Uint8Array): Promise<void> {
    let reply: Reply;
    try {
      const handler = this.#handlers[call] as ((...given: unknown[]) => Promise<Reply>) | undefined;
      if (handler === undefined) reply = { result: -ENOSYS };
      else if (session.ended || (session.client === null && call !== "hello")) reply = { result: -ENOTCONN };
      else reply = await handler(session, args, bytes);
    } catch (error) {
      this.#options.logger.warn("a call cannot be carried out", { call, error: errorText(error) });
      reply = { result: -EINVAL };
    }
    const { bytes: data, ...head } = reply;
    if (!session.socket.destroyed) session.socket.write(encodeFrame({ id, ...head }, data));
  }

  /** Nothing of it happens from now on; resolves when what was under way has ended. */
  async #end(session: Session): Promise<void> {
    session.ended = true;
    this.#sessions.delete(session);
    await Promise.allSettled(session.calls);
    for (const handle of session.handles) void this.#options.replica.close(handle);
    session.handles.clear();
    session.socket.destroy();
  }

  async #hello(session: Session, client: string): Promise<number> {
    const earlier = [...this.#sessions].filter((other) => other !== session && other.client === client);
    session.client = client;
    await Promise.all(earlier.map((other) => this.#end(other)));
    return await this.#look(session);
  }

  /** The directory may be another one by now, or there again: whoever used the old one begins anew. */
  async #look(session: Session): Promise<number> {
    const { replica, logger } = this.#options;
    const checked = await replica.check();
    if (checked >= 0) return 0;
    await Promise.all([...this.#sessions].filter((other) => other !== session).map((other) => this.#end(other)));
    try {
      await replica.disconnect();
      await replica.connect({ signal: AbortSignal.timeout(lookTimeoutMs) });
      return 0;
    } catch (error) {
      logger.warn("the directory cannot be used", { error: errorText(error) });
      return checked;
    }
  }

  async #takeOver(session: Session, volume: string): Promise<number> {
    const earlier = [...this.#sessions].filter((other) => other !== session && other.volume === volume);
    session.volume = volume;
    await Promise.all(earlier.map((other) => this.#end(other)));
    return session.ended ? -ENOTCONN : 0;
  }
}

function handlersOf(
  replica: Replica,
  sessions: {
    readonly hello: (session: Session, client: string) => Promise<number>;
    readonly takeOver: (session: Session, volume: string) => Promise<number>;
  },
): Handlers {
  const number = async (answer: Answer): Promise<Reply> => ({ result: await answer });
  const withAttr = async (wants: boolean, call: (attr: FileAttr | null) => Answer): Promise<Reply> => {
    const attr = wants ? new FileAttr() : null;
    const result = await call(attr);
    return result < 0 || attr === null ? { result } : { result, attr: packAttr(attr) };
  };
  const filled = async (length: number, call: (into: Uint8Array) => Answer): Promise<Reply> => {
    const into = new Uint8Array(Math.min(length, readMostBytes));
    const result = await call(into);
    return result <= 0 ? { result } : { result, bytes: into.subarray(0, Math.min(result, into.length)) };
  };
  const opened = async (session: Session, reply: Promise<Reply>): Promise<Reply> => {
    const done = await reply;
    if (done.result >= 0) session.handles.add(done.result);
    return done;
  };
  const on = (session: Session, handle: number, call: () => Promise<Reply>): Promise<Reply> =>
    session.handles.has(handle) ? call() : Promise.resolve({ result: -EBADF });
  return {
    hello: (session, [version, client]) =>
      version === REMOTE_VERSION ? number(sessions.hello(session, client)) : { result: -EINVAL },
    takeOver: (session, [volume]) => number(sessions.takeOver(session, volume)),
    check: () => number(replica.check()),
    lookup: (_, [directory, name, wants]) => withAttr(wants, (attr) => replica.lookup(at(directory), own(name), attr)),
    create: (session, [directory, name, mode, owner, wants]) =>
      opened(
        session,
        withAttr(wants, (attr) => replica.create(at(directory), own(name), mode, whom(owner), attr)),
      ),
    mkdir: (_, [directory, name, mode, owner, wants]) =>
      withAttr(wants, (attr) => replica.mkdir(at(directory), own(name), mode, whom(owner), attr)),
    mknod: (_, [directory, name, mode, rdev, owner, wants]) =>
      withAttr(wants, (attr) => replica.mknod(at(directory), own(name), mode, rdev, whom(owner), attr)),
    symlink: (_, [directory, name, target, owner, wants]) =>
      withAttr(wants, (attr) => replica.symlink(at(directory), own(name), target, whom(owner), attr)),
    link: (_, [object, directory, name, wants]) =>
      withAttr(wants, (attr) => replica.link(at(object), at(directory), own(name), attr)),
    unlink: (_, [directory, name]) => number(replica.unlink(at(directory), own(name))),
    rmdir: (_, [directory, name]) => number(replica.rmdir(at(directory), own(name))),
    rename: (_, [from, fromName, to, toName, flags]) =>
      number(replica.rename(at(from), own(fromName), at(to), own(toName), flags)),
    async readdir(_, [directory]) {
      const entries = { names: [] as ByteString[], types: [] as number[], inos: [] as number[] };
      const result = await replica.readdir(at(directory), entries);
      return result < 0 ? { result } : { result, entries };
    },
    getattr: (_, [object]) => withAttr(true, (attr) => replica.getattr(at(object), attr ?? new FileAttr())),
    setattr: (session, [object, handle, change, wants]) => {
      const call = () => withAttr(wants, (attr) => replica.setattr(at(object), handle, change as AttrChange, attr));
      return handle < 0 ? call() : on(session, handle, call);
    },
    readlink: (_, [object, length]) => filled(length, (into) => replica.readlink(at(object), into)),
    getxattr: (_, [object, name, length]) => filled(length, (into) => replica.getxattr(at(object), name, into)),
    setxattr: (_, [object, name, flags], bytes) => number(replica.setxattr(at(object), name, bytes, flags)),
    listxattr: (_, [object, length]) => filled(length, (into) => replica.listxattr(at(object), into)),
    removexattr: (_, [object, name]) => number(replica.removexattr(at(object), name)),
    fsyncdir: (_, [object]) => number(replica.fsyncdir(at(object))),
    open: (session, [object, access]) => opened(session, number(replica.open(at(object), access))),
    close: (session, [handle]) =>
      on(session, handle, () => {
        session.handles.delete(handle);
        return number(replica.close(handle));
      }),
    fgetattr: (session, [handle]) =>
      on(session, handle, () => withAttr(true, (attr) => replica.fgetattr(handle, attr ?? new FileAttr()))),
    read: (session, [handle, length, position]) =>
      on(session, handle, () => filled(length, (into) => replica.read(handle, into, position))),
    write: (session, [handle, position], bytes) =>
      on(session, handle, () => number(replica.write(handle, bytes, position))),
    fsync: (session, [handle, dataOnly]) => on(session, handle, () => number(replica.fsync(handle, dataOnly))),
    fallocate: (session, [handle, mode, position, length]) =>
      on(session, handle, () => number(replica.fallocate(handle, mode, position, length))),
    seek: (session, [handle, position, whence]) =>
      on(session, handle, () => number(replica.seek(handle, position, whence))),
    copyRange: (session, [from, fromAt, to, toAt, length]) =>
      on(session, from, () => on(session, to, () => number(replica.copyRange(from, fromAt, to, toAt, length)))),
    clone: (session, [from, to]) =>
      on(session, from, () => on(session, to, () => number(replica.clone?.(from, to) ?? -EOPNOTSUPP))),
    async statfs() {
      const stats: FileSystemStats = {
        blockSizeBytes: 0,
        blocks: 0,
        freeBlocks: 0,
        availableBlocks: 0,
        files: 0,
        freeFiles: 0,
        maxNameBytes: 0,
      };
      const result = await replica.statfs(stats);
      return result < 0 ? { result } : { result, stats };
    },
    sync: () => number(replica.sync()),
  };
}

const top: TreeObject = { parent: null, name: "" };

function at(names: Names): TreeObject {
  let object = top;
  for (const name of names) object = { parent: object, name: own(name) };
  return object;
}

/** A name as the contract has it: nothing that leads anywhere else. */
function own(name: ByteString): ByteString {
  if (typeof name !== "string" || name === "" || name === "." || name === ".." || /[/\0]/.test(name))
    throw new Error("a name that is none");
  return name;
}

const whom = ({ uid, gid }: Owner): Owner => ({ uid, gid });
