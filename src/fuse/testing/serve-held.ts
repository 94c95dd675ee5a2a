/**
 * Serves one file, "data", whose bytes are in an ordinary file, over a /dev/fuse that somebody else holds:
 * `serve-held.ts FD BACKING first|again`. Node ids and handles are fixed, so it can be killed and started at any time.
 * It answers requests some turns late, so that it is killed with requests under way.
 */
import { closeSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { pread, pwrite } from "../../posix/files.ts";
import { fstat } from "../../posix/stat.ts";
import type { ByteString } from "../../util/byte-string.ts";
import { ENOENT } from "../../util/errno.ts";
import { S_IFDIR } from "../../util/file-attr.ts";
import { jsonLogger } from "../../util/logger.ts";
import type * as fuse from "../filesystem.ts";
import { type NodeId, ROOT_NODE } from "../filesystem.ts";
import { FuseSession } from "../session.ts";
import { MemoryFileSystem } from "./memory-file-system.ts";

const fileNode = 2;

class OneFile extends MemoryFileSystem {
  readonly #fd: number;
  resent = 0;

  constructor(backing: string) {
    super();
    this.#fd = openSync(backing, "r+");
  }

  override lookup(_: fuse.Request, __: NodeId, name: ByteString, out: fuse.EntryOut): fuse.Answer {
    if (name !== "data") return -ENOENT;
    out.nodeId = fileNode;
    out.entryValidSeconds = 3600;
    return this.getattr(_, fileNode, null, out);
  }

  override forget(): void {}

  override getattr(_: fuse.Request, id: NodeId, __: number | null, out: fuse.AttrOut): fuse.Answer {
    const result = fstat(this.#fd, out.attr);
    out.attr.ino = id;
    if (id === ROOT_NODE) out.attr.mode = S_IFDIR | 0o755;
    out.attrValidSeconds = 0;
    return result;
  }

  override open(_: fuse.Request, __: NodeId, ___: number, out: fuse.OpenOut): fuse.Answer {
    out.handle = 1;
    out.openFlags = 0;
    return 0;
  }

  override release(): fuse.Answer {
    return 0;
  }

  override async read(request: fuse.Request, _: NodeId, __: number, offset: number, into: Uint8Array): Promise<number> {
    await this.#linger(request);
    return pread(this.#fd, into, offset);
  }

  override async write(
    request: fuse.Request,
    _: NodeId,
    __: number,
    offset: number,
    data: Uint8Array,
  ): Promise<number> {
    await this.#linger(request);
    return pwrite(this.#fd, data, offset);
  }

  override getxattr(): fuse.Answer {
    return -61;
  }

  async #linger(request: fuse.Request): Promise<void> {
    if (request.resent) process.stdout.write(`resent ${++this.resent}\n`);
    await sleep(2);
  }
}

const [fd, backing, turn] = process.argv.slice(2);
if (fd === undefined || backing === undefined) throw new Error("usage: serve-held.ts FD BACKING first|again");
const logger = jsonLogger((line) => process.stderr.write(line));
const session = new FuseSession({ fd: Number(fd), fileSystem: new OneFile(backing), logger });
if (turn === "first") session.start();
else process.stdout.write(`${session.resume(null)}\n`);
process.stdout.write("ready\n");
await session.ended;
closeSync(Number(fd));
process.exit(0);
