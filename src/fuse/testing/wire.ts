/** A session whose kernel is the test: requests go in and replies come out of a socket that keeps message boundaries. */

import { close, read, setNonBlocking, write } from "../../posix/files.ts";
import { declare, sys } from "../../posix/libc.ts";
import { jsonLogger } from "../../util/logger.ts";
import type { FileSystem } from "../filesystem.ts";
import type { SessionOptions } from "../negotiate.ts";
import { FuseSession } from "../session.ts";

const callSocketpair = declare("int socketpair(int domain, int type, int protocol, void *fds)");
const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;

export interface Reply {
  readonly unique: bigint;
  /** 0 or a negative errno, or the code of a notification. */
  readonly error: number;
  readonly body: Buffer;
}

export class Wire {
  readonly session: FuseSession;
  readonly log: string[] = [];
  readonly #kernel: number;
  readonly #ours: number;
  readonly #buffer = Buffer.alloc(1 << 21);

  constructor(fileSystem: FileSystem, options: Partial<SessionOptions> = {}) {
    const fds = new Int32Array(2);
    if (sys(callSocketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds)) < 0) throw new Error("Cannot make a pair of sockets");
    [this.#kernel, this.#ours] = fds as unknown as [number, number];
    setNonBlocking(this.#kernel, true);
    const logger = jsonLogger((line) => this.log.push(line));
    this.session = new FuseSession({ fd: this.#ours, fileSystem, logger }, options);
  }

  send(request: Uint8Array): void {
    const written = write(this.#kernel, request);
    if (written !== request.byteLength) throw new Error(`Cannot send a request: ${written}`);
  }

  /** The replies so far. Gives the session time to take what was sent first. */
  async replies(): Promise<Reply[]> {
    const replies: Reply[] = [];
    for (let quiet = 0; quiet < 10; ) {
      await new Promise(setImmediate);
      const bytes = read(this.#kernel, this.#buffer);
      if (bytes <= 0) {
        quiet++;
        continue;
      }
      quiet = 0;
      if (this.#buffer.readUInt32LE(0) !== bytes) throw new Error("The length of a reply is wrong");
      replies.push({
        error: this.#buffer.readInt32LE(4),
        unique: this.#buffer.readBigUInt64LE(8),
        body: Buffer.from(this.#buffer.subarray(16, bytes)),
      });
    }
    return replies;
  }

  /** As an unmount. */
  hangUp(): void {
    close(this.#kernel);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session.stop(0);
    close(this.#kernel);
    close(this.#ours);
  }
}
