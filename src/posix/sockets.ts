/** Descriptors sent to another process over a unix socket (SCM_RIGHTS). */
import koffi from "koffi";
import { declare, sys } from "./libc.ts";

const callSendmsg = declare("int64_t sendmsg(int socket, void *message, int flags)");
const callRecvmsg = declare("int64_t recvmsg(int socket, void *message, int flags)");
const callSocketpair = declare("int socketpair(int domain, int type, int protocol, void *pair)");
const callGetsockopt = declare("int getsockopt(int socket, int level, int option, void *value, void *length)");

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const maxDescriptors = 64;
/** `struct cmsghdr`: length 8, level 4, type 4. */
const controlHeaderBytes = 16;

/** Sends at least one byte of `data`, the descriptors with the first; answers how many bytes. Never blocks: EAGAIN. */
export function sendDescriptors(socket: number, data: Uint8Array, fds: readonly number[]): number {
  const control = Buffer.alloc(Math.ceil((controlHeaderBytes + fds.length * 4) / 8) * 8);
  control.writeBigUInt64LE(BigInt(controlHeaderBytes + fds.length * 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  for (const [i, fd] of fds.entries()) control.writeInt32LE(fd, controlHeaderBytes + i * 4);
  const message = new Message(Buffer.from(data), control, fds.length === 0 ? 0 : control.byteLength);
  return sys(callSendmsg(socket, message.raw, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/**
 * Receives into `data` and appends descriptors (close-on-exec) to `fds`; answers the number of bytes, 0 at the end of
 * the stream. Never blocks: EAGAIN.
 */
export function receiveDescriptors(socket: number, data: Uint8Array, fds: number[]): number {
  const bytes = Buffer.alloc(data.byteLength);
  const control = Buffer.alloc(controlHeaderBytes + maxDescriptors * 4);
  const message = new Message(bytes, control, control.byteLength);
  const result = sys(callRecvmsg(socket, message.raw, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
  if (result < 0) return result;
  data.set(bytes.subarray(0, result));
  const controlBytes = Number(message.raw.readBigUInt64LE(40));
  if (controlBytes < controlHeaderBytes) return result;
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) return result;
  const end = Math.min(Number(control.readBigUInt64LE(0)), controlBytes);
  for (let at = controlHeaderBytes; at + 4 <= end; at += 4) fds.push(control.readInt32LE(at));
  return result;
}

/** `struct msghdr` over one buffer and one of control data; keeps what it points to. */
class Message {
  readonly raw = Buffer.alloc(56);
  readonly vector = Buffer.alloc(16);
  readonly data: Buffer;
  readonly control: Buffer;

  constructor(data: Buffer, control: Buffer, controlBytes: number) {
    this.data = data;
    this.control = control;
    this.vector.writeBigUInt64LE(koffi.address(data), 0);
    this.vector.writeBigUInt64LE(BigInt(data.byteLength), 8);
    this.raw.writeBigUInt64LE(koffi.address(this.vector), 16);
    this.raw.writeBigUInt64LE(1n, 24);
    this.raw.writeBigUInt64LE(controlBytes === 0 ? 0n : koffi.address(control), 32);
    this.raw.writeBigUInt64LE(BigInt(controlBytes), 40);
  }
}

/** Two connected unix stream sockets, close-on-exec; or a negative errno. */
export function socketPair(): readonly [number, number] | number {
  const pair = new Int32Array(2);
  const result = sys(callSocketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  return result < 0 ? result : [pair[0] as number, pair[1] as number];
}

/** Who is at the other end of a unix socket; or a negative errno. */
export function peerCredentials(socket: number): { pid: number; uid: number; gid: number } | number {
  const value = new Int32Array(3);
  const result = sys(callGetsockopt(socket, SOL_SOCKET, SO_PEERCRED, value, new Uint32Array([12])));
  if (result < 0) return result;
  return { pid: value[0] as number, uid: (value[1] as number) >>> 0, gid: (value[2] as number) >>> 0 };
}
