/** ONC RPC messages (RFC 5531): a call with AUTH_SYS, and what a reply says before the results begin. */
import { EACCES, EIO, EOPNOTSUPP, EPROTO } from "../util/errno.ts";
import type { XdrReader } from "./xdr.ts";
import { XdrWriter } from "./xdr.ts";

/** The server does not offer this program or version. */
export const EPROTONOSUPPORT = 93;

const lastFragment = 0x80000000;

/** An AUTH_SYS credential, encoded once and used for many calls. */
export type Credential = Uint8Array & { readonly __credential: unique symbol };

export interface Identity {
  readonly uid: number;
  readonly gid: number;
  /** The protocol carries 16; further ones are left out. */
  readonly groups?: readonly number[];
  readonly machine: string;
}

export function authSys({ uid, gid, groups = [], machine }: Identity): Credential {
  const body = new XdrWriter().u32(0).string(machine.slice(0, 255)).u32(uid).u32(gid);
  const carried = groups.slice(0, 16);
  body.u32(carried.length);
  for (const group of carried) body.u32(group);
  const writer = new XdrWriter().u32(1).opaque(Buffer.concat(body.finish()));
  return Buffer.concat(writer.finish()) as unknown as Credential;
}

/** AUTH_NONE, as portmappers want it. */
export const authNone = Buffer.alloc(8) as unknown as Credential;

/** A call that is being written: arguments are added to `args`, then `seal` makes it ready to be sent. */
export class RpcCall {
  readonly xid: number;
  readonly args: XdrWriter;
  readonly #mark: Buffer;

  constructor(xid: number, program: number, version: number, procedure: number, credential: Credential) {
    this.xid = xid;
    this.args = new XdrWriter();
    this.#mark = this.args.hole();
    this.args.u32(xid).u32(0).u32(2).u32(program).u32(version).u32(procedure).fixed(credential).u32(0).u32(0);
  }

  seal(): readonly Uint8Array[] {
    const segments = this.args.finish();
    this.#mark.writeUInt32BE((lastFragment + this.args.length - 4) >>> 0);
    return segments;
  }
}

/**
 * Reads a reply's header behind the XID. 0: the results follow. Otherwise a negative errno: EPROTONOSUPPORT (no such
 * program or version), EOPNOTSUPP (no such procedure), EACCES (the server does not accept the credential, a source port
 * above 1023 included), EPROTO (it could not read the arguments), EIO.
 */
export function readReplyHeader(reader: XdrReader): number {
  if (reader.u32() !== 1) return -EPROTO;
  if (reader.u32() === 1) return reader.u32() === 1 ? -EACCES : -EPROTONOSUPPORT;
  reader.u32();
  reader.opaque(400);
  switch (reader.u32()) {
    case 0:
      return 0;
    case 1:
    case 2:
      return -EPROTONOSUPPORT;
    case 3:
      return -EOPNOTSUPP;
    case 4:
      return -EPROTO;
    default:
      return -EIO;
  }
}
