/**
 * From a parsed request to the method of the file system that carries it out: which fields it gets, and what kind of
 * reply its result becomes. The kernel's words are in `include/uapi/linux/fuse.h`; places are in 32-bit words behind
 * the header.
 */
import { EINVAL, ENOSYS, ENOTTY, EPROTO } from "../util/errno.ts";
import * as abi from "./abi.ts";
import * as replies from "./call.ts";
import { type Call, decodeLock } from "./call.ts";
import { type Frame, number64, offset64, QUAD_BODY, quad, WORD_BODY, WORD_NODE, word } from "./decode.ts";
import type { ReplyBuffer } from "./encode.ts";
import type { Answer, FileSystem } from "./filesystem.ts";

/** The longest target of a symbolic link, as the kernel asks for it (`fuse_readlink_page`). */
const targetBytes = 4095;

/** `dontMask`: FUSE_DONT_MASK is negotiated. `payload`: where methods put data, listings and attributes' values. */
export function dispatch(fs: FileSystem, call: Call, frame: Frame, payload: ReplyBuffer, dontMask: boolean): Answer {
  const { words } = frame;
  const node = number64(words, WORD_NODE);
  switch (word(words, 1)) {
    case abi.FUSE_LOOKUP:
      call.begin(frame, replies.REPLY_ENTRY);
      return fs.lookup(call, node, frame.name, call.entry);
    case abi.FUSE_GETATTR:
      call.begin(frame, replies.REPLY_ATTR);
      return fs.getattr(call, node, handleOf(words), call.attributes);
    case abi.FUSE_READ: {
      call.begin(frame, replies.REPLY_BYTES);
      const size = word(words, WORD_BODY + 4);
      if (size > payload.capacity) return -EPROTO;
      call.wanted = size;
      const into = payload.payload(size);
      return fs.read(call, node, first64(words), second64(words), into, word(words, WORD_BODY + 8));
    }
    case abi.FUSE_WRITE: {
      call.begin(frame, replies.REPLY_NUMBER);
      const writeFlags = word(words, WORD_BODY + 5);
      return fs.write(
        call,
        node,
        first64(words),
        second64(words),
        frame.data,
        word(words, WORD_BODY + 8),
        (writeFlags & abi.FUSE_WRITE_CACHE) !== 0,
        (writeFlags & abi.FUSE_WRITE_KILL_SUIDGID) !== 0,
      );
    }
    case abi.FUSE_OPEN: {
      call.begin(frame, replies.REPLY_OPEN);
      const kill = (word(words, WORD_BODY + 1) & abi.FUSE_OPEN_KILL_SUIDGID) !== 0;
      call.open.openFlags = 0;
      return fs.open(call, node, word(words, WORD_BODY), call.open, kill);
    }
    case abi.FUSE_RELEASE: {
      call.begin(frame, replies.REPLY_EMPTY);
      const unlock = (word(words, WORD_BODY + 3) & abi.FUSE_RELEASE_FLOCK_UNLOCK) !== 0;
      const owner = unlock ? quad(frame.quads, QUAD_BODY + 2) : null;
      return fs.release(call, node, first64(words), word(words, WORD_BODY + 2), owner);
    }
    case abi.FUSE_FLUSH:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.flush(call, node, first64(words), quad(frame.quads, QUAD_BODY + 2));
    case abi.FUSE_CREATE: {
      call.begin(frame, replies.REPLY_CREATE);
      call.open.openFlags = 0;
      return fs.create(
        call,
        node,
        frame.name,
        word(words, WORD_BODY),
        word(words, WORD_BODY + 1),
        dontMask ? word(words, WORD_BODY + 2) : 0,
        call.entry,
        call.open,
        (word(words, WORD_BODY + 3) & abi.FUSE_OPEN_KILL_SUIDGID) !== 0,
      );
    }
    case abi.FUSE_SETATTR:
      call.begin(frame, replies.REPLY_ATTR);
      return fs.setattr(call, node, call.change.decode(words), call.attributes);
    case abi.FUSE_UNLINK:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.unlink(call, node, frame.name);
    case abi.FUSE_MKDIR: {
      call.begin(frame, replies.REPLY_ENTRY);
      const umask = dontMask ? word(words, WORD_BODY + 1) : 0;
      return fs.mkdir(call, node, frame.name, word(words, WORD_BODY), umask, call.entry);
    }
    case abi.FUSE_RMDIR:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.rmdir(call, node, frame.name);
    case abi.FUSE_RENAME:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.rename(call, node, frame.name, first64(words), frame.secondName, 0);
    case abi.FUSE_RENAME2:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.rename(call, node, frame.name, first64(words), frame.secondName, word(words, WORD_BODY + 2));
    case abi.FUSE_LINK:
      call.begin(frame, replies.REPLY_ENTRY);
      return fs.link(call, first64(words), node, frame.name, call.entry);
    case abi.FUSE_SYMLINK:
      call.begin(frame, replies.REPLY_ENTRY);
      return fs.symlink(call, node, frame.name, frame.secondName, call.entry);
    case abi.FUSE_READLINK:
      call.begin(frame, replies.REPLY_BYTES);
      call.wanted = targetBytes;
      return fs.readlink(call, node, payload.payload(targetBytes));
    case abi.FUSE_MKNOD: {
      call.begin(frame, replies.REPLY_ENTRY);
      const umask = dontMask ? word(words, WORD_BODY + 2) : 0;
      const mode = word(words, WORD_BODY);
      return fs.mknod(call, node, frame.name, mode, word(words, WORD_BODY + 1), umask, call.entry);
    }
    case abi.FUSE_OPENDIR:
      call.begin(frame, replies.REPLY_OPEN);
      call.open.openFlags = 0;
      return fs.opendir(call, node, word(words, WORD_BODY), call.open);
    case abi.FUSE_READDIR:
    case abi.FUSE_READDIRPLUS: {
      call.begin(frame, replies.REPLY_DIRECTORY);
      call.directory.begin(payload, word(words, WORD_BODY + 4));
      const plus = call.opcode === abi.FUSE_READDIRPLUS;
      return fs.readdir(call, node, first64(words), quad(frame.quads, QUAD_BODY + 1), plus, call.directory);
    }
    case abi.FUSE_RELEASEDIR:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.releasedir(call, node, first64(words));
    case abi.FUSE_FSYNC:
    case abi.FUSE_FSYNCDIR: {
      call.begin(frame, replies.REPLY_EMPTY);
      const dataOnly = (word(words, WORD_BODY + 2) & abi.FUSE_FSYNC_FDATASYNC) !== 0;
      if (call.opcode === abi.FUSE_FSYNC) return fs.fsync(call, node, first64(words), dataOnly);
      return fs.fsyncdir(call, node, first64(words), dataOnly);
    }
    case abi.FUSE_STATFS:
      call.begin(frame, replies.REPLY_STATFS);
      return fs.statfs(call, node, call.statfs);
    case abi.FUSE_SYNCFS:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.syncfs(call, node);
    case abi.FUSE_GETXATTR:
    case abi.FUSE_LISTXATTR: {
      call.begin(frame, replies.REPLY_BYTES);
      const size = word(words, WORD_BODY);
      if (size > payload.capacity) return -EPROTO;
      if (size === 0) call.reply = replies.REPLY_NUMBER;
      call.wanted = size;
      const into = payload.payload(size);
      if (call.opcode === abi.FUSE_LISTXATTR) return fs.listxattr(call, node, into);
      return fs.getxattr(call, node, frame.name, into);
    }
    case abi.FUSE_SETXATTR: {
      call.begin(frame, replies.REPLY_EMPTY);
      // with the short form of the request this word is the beginning of the name
      const extended = frame.extendedSetxattr;
      const killSgid = extended && (word(words, WORD_BODY + 2) & abi.FUSE_SETXATTR_ACL_KILL_SGID) !== 0;
      return fs.setxattr(call, node, frame.name, frame.data, word(words, WORD_BODY + 1), killSgid);
    }
    case abi.FUSE_REMOVEXATTR:
      call.begin(frame, replies.REPLY_EMPTY);
      return fs.removexattr(call, node, frame.name);
    case abi.FUSE_FALLOCATE: {
      call.begin(frame, replies.REPLY_EMPTY);
      const length = offset64(words, WORD_BODY + 4);
      return fs.fallocate(call, node, first64(words), second64(words), length, word(words, WORD_BODY + 6));
    }
    case abi.FUSE_LSEEK:
      call.begin(frame, replies.REPLY_NUMBER_64);
      return fs.lseek(call, node, first64(words), second64(words), word(words, WORD_BODY + 4));
    case abi.FUSE_COPY_FILE_RANGE:
    case abi.FUSE_COPY_FILE_RANGE_64: {
      call.begin(frame, word(words, 1) === abi.FUSE_COPY_FILE_RANGE ? replies.REPLY_NUMBER : replies.REPLY_NUMBER_64);
      return fs.copyFileRange(
        call,
        node,
        first64(words),
        second64(words),
        number64(words, WORD_BODY + 4),
        number64(words, WORD_BODY + 6),
        offset64(words, WORD_BODY + 8),
        offset64(words, WORD_BODY + 10),
      );
    }
    case abi.FUSE_TMPFILE: {
      call.begin(frame, replies.REPLY_CREATE);
      call.open.openFlags = 0;
      if (fs.tmpfile === undefined) return -ENOSYS;
      const umask = dontMask ? word(words, WORD_BODY + 2) : 0;
      const mode = word(words, WORD_BODY + 1);
      return fs.tmpfile(call, node, word(words, WORD_BODY), mode, umask, call.entry, call.open);
    }
    case abi.FUSE_STATX:
      call.begin(frame, replies.REPLY_STATX);
      return fs.statx === undefined ? -ENOSYS : fs.statx(call, node, handleOf(words), call.statx);
    case abi.FUSE_GETLK:
    case abi.FUSE_SETLK:
    case abi.FUSE_SETLKW: {
      call.begin(frame, word(words, 1) === abi.FUSE_GETLK ? replies.REPLY_LOCK : replies.REPLY_EMPTY);
      const lock = decodeLock(frame);
      if (lock === null) return -EINVAL;
      if (call.opcode === abi.FUSE_GETLK) {
        return fs.getlk === undefined ? -ENOSYS : fs.getlk(call, node, lock, call.lockOut);
      }
      if (fs.setlk === undefined) return -ENOSYS;
      return fs.setlk(call, node, lock, call.opcode === abi.FUSE_SETLKW);
    }
    case abi.FUSE_IOCTL:
      call.begin(frame, replies.REPLY_EMPTY);
      return -ENOTTY;
    default:
      // ACCESS among them: with default_permissions the kernel checks by itself and never asks
      call.begin(frame, replies.REPLY_EMPTY);
      return -ENOSYS;
  }
}

/** The handle of most requests. */
function first64(words: Uint32Array): number {
  return number64(words, WORD_BODY);
}

/** The offset of most requests. */
function second64(words: Uint32Array): number {
  return offset64(words, WORD_BODY + 2);
}

/** GETATTR and STATX name a handle only if the kernel has one. */
function handleOf(words: Uint32Array): number | null {
  return (word(words, WORD_BODY) & abi.FUSE_GETATTR_FH) !== 0 ? number64(words, WORD_BODY + 2) : null;
}
