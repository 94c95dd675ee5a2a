/**
 * What the file system tells the kernel unasked. Each answers 0 or a negative errno; ENOENT, that the kernel knows no
 * such thing, is as good as success.
 *
 * Invalidating names or data waits in the kernel for a directory's lock or a page's, which a request may hold that this
 * very thread has yet to answer (`fuse_reverse_inval_entry`, `fuse_reverse_inval_inode`). So these are written on another
 * thread; attributes alone, resending and the epoch never wait and go at once.
 */
import { write } from "../posix/files.ts";
import { writeAsync } from "../posix/write-async.ts";
import type { ByteString } from "../util/byte-string.ts";
import * as abi from "./abi.ts";
import { OUT_HEADER_BYTES, put64, ReplyBuffer, WORD_REPLY } from "./encode.ts";
import type { NodeId } from "./filesystem.ts";

export class Notifier {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The kernel asks for the attributes again; what it holds of the data stays. */
  invalidateAttributes(node: NodeId): number {
    const message = inode(node, -1, 0);
    return done(write(this.#fd, message.bytes, OUT_HEADER_BYTES + 24));
  }

  /** Attributes, and data from `offset` on: `length` bytes, or all that follow where it is 0. Dirty pages are written. */
  async invalidateData(node: NodeId, offset: number, length: number): Promise<number> {
    const message = inode(node, offset, length);
    return done(await writeAsync(this.#fd, message.bytes.subarray(0, OUT_HEADER_BYTES + 24)));
  }

  /**
   * The kernel looks the name up again. `expireOnly`: at its next use, without dropping what lies below or is mounted
   * there (kernels from 6.2 on, else it is dropped).
   */
  invalidateEntry(parent: NodeId, name: ByteString, expireOnly = false): Promise<number> {
    const message = new ReplyBuffer(16 + name.length + 1);
    put64(message.words, WORD_REPLY, parent);
    message.words[WORD_REPLY + 2] = name.length;
    message.words[WORD_REPLY + 3] = expireOnly ? abi.FUSE_EXPIRE_ONLY : 0;
    return this.#named(message, abi.FUSE_NOTIFY_INVAL_ENTRY, 16, name);
  }

  /** As `invalidateEntry`, and watchers (inotify) see a deletion, if the name still means `child`. */
  delete(parent: NodeId, child: NodeId, name: ByteString): Promise<number> {
    const message = new ReplyBuffer(24 + name.length + 1);
    put64(message.words, WORD_REPLY, parent);
    put64(message.words, WORD_REPLY + 2, child);
    message.words[WORD_REPLY + 4] = name.length;
    message.words[WORD_REPLY + 5] = 0;
    return this.#named(message, abi.FUSE_NOTIFY_DELETE, 24, name);
  }

  /** All requests that were read and not answered come again. EINVAL from kernels before 6.9. */
  resend(): number {
    return this.#bare(abi.FUSE_NOTIFY_RESEND);
  }

  /** Every name that the kernel knows is looked up again at its next use. EINVAL from kernels before 6.16. */
  incrementEpoch(): number {
    return this.#bare(abi.FUSE_NOTIFY_INC_EPOCH);
  }

  #bare(code: number): number {
    const message = new ReplyBuffer(0);
    message.header(OUT_HEADER_BYTES, code, 0, 0);
    return done(write(this.#fd, message.bytes, OUT_HEADER_BYTES));
  }

  async #named(message: ReplyBuffer, code: number, fixedBytes: number, name: ByteString): Promise<number> {
    const bytes = OUT_HEADER_BYTES + fixedBytes + name.length + 1;
    message.header(bytes, code, 0, 0);
    message.bytes.write(name, OUT_HEADER_BYTES + fixedBytes, "latin1");
    message.bytes[bytes - 1] = 0;
    return done(await writeAsync(this.#fd, message.bytes.subarray(0, bytes)));
  }
}

function inode(node: NodeId, offset: number, length: number): ReplyBuffer {
  const message = new ReplyBuffer(24);
  message.header(OUT_HEADER_BYTES + 24, abi.FUSE_NOTIFY_INVAL_INODE, 0, 0);
  put64(message.words, WORD_REPLY, node);
  put64(message.words, WORD_REPLY + 2, offset);
  put64(message.words, WORD_REPLY + 4, length);
  return message;
}

function done(written: number): number {
  return Math.min(written, 0);
}
