/** Requests as the kernel writes them, for tests of the decoder. */
import { IN_HEADER_BYTES } from "../decode.ts";

export interface Header {
  readonly unique?: bigint;
  readonly node?: bigint;
  readonly uid?: number;
  readonly gid?: number;
  readonly pid?: number;
  /** In units of 8 bytes. */
  readonly extensions?: number;
}

/** `struct fuse_in_header` and the given parts behind it. */
export function request(opcode: number, header: Header, ...parts: Uint8Array[]): Buffer {
  const head = Buffer.alloc(IN_HEADER_BYTES);
  const body = Buffer.concat(parts);
  head.writeUInt32LE(IN_HEADER_BYTES + body.byteLength, 0); // len
  head.writeUInt32LE(opcode, 4);
  head.writeBigUInt64LE(header.unique ?? 2n, 8);
  head.writeBigUInt64LE(header.node ?? 1n, 16);
  head.writeUInt32LE(header.uid ?? 0, 24);
  head.writeUInt32LE(header.gid ?? 0, 28);
  head.writeUInt32LE(header.pid ?? 0, 32);
  head.writeUInt16LE(header.extensions ?? 0, 36); // total_extlen; 2 bytes of padding follow
  return Buffer.concat([head, body]);
}

export function u32(...values: number[]): Buffer {
  return Buffer.from(new Uint32Array(values).buffer);
}

export function u64(...values: bigint[]): Buffer {
  return Buffer.from(new BigUint64Array(values).buffer);
}

export function cstr(...texts: string[]): Buffer {
  return Buffer.from(texts.map((text) => `${text}\0`).join(""), "latin1");
}
