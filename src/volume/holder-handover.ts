/**
 * How a mount changes hands between two holders, over the control socket of the old one:
 *
 * 1. `offer`: the successor gets the record of the mount and copies of two descriptors, the FUSE device and the lock of
 *    the mount's directory (SCM_RIGHTS). Nothing has changed yet; if it dies, the kernel closes its copies.
 * 2. `commit`: the old holder ends its volume process and answers; nobody serves for a moment, requests wait.
 * 3. The successor's process serves; `done` lets the old holder end. If the connection ends before that, the old holder
 *    takes the mount back.
 */
import { connect, type Socket } from "node:net";
import { receiveDescriptors, sendDescriptors } from "../posix/sockets.ts";
import { EAGAIN, errnoName } from "../util/errno.ts";
import { LineReader } from "./control-lines.ts";
import { FailureError } from "./failure.ts";
import type { Call, Reply } from "./protocol.ts";
import type { MountRecord } from "./registry.ts";

const ANSWER_TIMEOUT_MS = 20_000;

/** Node does not show a socket's descriptor; libuv's handle has it. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd?: number } | null };
  const fd = handle?.fd ?? -1;
  if (fd < 0) throw new FailureError("internal", "The control connection is closed");
  return fd;
}

/** Sends the descriptors, and answers what the reply then says. A zero byte carries them: JSON never has one. */
export function offerMount(_id: number, socket: Socket, record: MountRecord, fds: readonly number[]): MountRecord {
  const sent = sendDescriptors(descriptorOf(socket), Buffer.alloc(1), fds);
  if (sent !== 1) throw new FailureError("internal", `Cannot pass the descriptors on: ${errnoName(-sent)}`);
  return record;
}

export interface ReceivedMount {
  readonly record: MountRecord;
  readonly fuseFd: number;
  readonly lockFd: number;
  /** Returns when the old volume process can run no more. */
  commit(): Promise<void>;
  /** The old holder may end. */
  done(): void;
  /** Nothing is to change hands after all: the descriptors stay with us as copies, and are ours to close. */
  abandon(): void;
}

export async function receiveMount(controlSocketPath: string): Promise<ReceivedMount> {
  const socket = connect(controlSocketPath);
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", () => {
      socket.pause(); // libuv would read the bytes and drop the descriptors
      resolve();
    });
    socket.once("error", (cause) => {
      reject(new FailureError("not-mounted", `Nobody answers on ${controlSocketPath}`, { cause }));
    });
  });
  socket.on("error", () => {});
  const fds: number[] = [];
  const lines = new LineReader(1024 * 1024);
  const ask = async (id: number, step: "offer" | "commit" | "done"): Promise<unknown> => {
    const call: Call = { id, method: "handover", params: { step } };
    socket.write(`${JSON.stringify(call)}\n`);
    const reply = JSON.parse(await nextLine(socket, lines, fds)) as Reply;
    if ("failure" in reply) throw FailureError.from(reply.failure);
    return "value" in reply ? reply.value : null;
  };
  try {
    const record = (await ask(1, "offer")) as MountRecord;
    const [fuseFd, lockFd] = fds;
    if (fuseFd === undefined || lockFd === undefined) throw new FailureError("internal", "No descriptors came");
    return {
      record,
      fuseFd,
      lockFd,
      commit: async () => {
        await ask(2, "commit");
      },
      done: () => {
        const call: Call = { id: 3, method: "handover", params: { step: "done" } };
        socket.end(`${JSON.stringify(call)}\n`, () => socket.destroySoon());
      },
      abandon: () => {
        socket.destroy();
      },
    };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function nextLine(socket: Socket, lines: LineReader, fds: number[]): Promise<string> {
  const buffer = Buffer.alloc(64 * 1024);
  for (const end = performance.now() + ANSWER_TIMEOUT_MS; performance.now() < end; ) {
    const length = receiveDescriptors(descriptorOf(socket), buffer, fds);
    if (length === 0) break;
    if (length < 0 && length !== -EAGAIN) throw new FailureError("internal", `Handover failed: ${errnoName(-length)}`);
    if (length > 0) {
      const bytes = buffer.subarray(0, length).filter((byte) => byte !== 0);
      const [line] = lines.push(Buffer.from(bytes));
      if (line !== undefined) return line;
    } else await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new FailureError("busy", "The holder of the mount did not hand it over: it goes on as before");
}
