/**
 * One intent as the target of a symbolic link, `.chiron/intents/<generation>/<seq>`: eight hex digits of a checksum, a
 * letter, "+" where the file had several names (else "-"), and the rest by kind. Paths are names joined by "/".
 *
 * Nothing that is read back is trusted: what does not decode is damage, and damage means to compare everything.
 */
import { crc32 } from "node:zlib";
import type { ByteString } from "../util/byte-string.ts";
import type { Path } from "./node-path.ts";

export type IntentBody =
  /** First of its generation; its ctime says since when changes are covered. */
  | { readonly kind: "begin" }
  /** Entries of this directory, its attributes, and whichever child has changed since the generation began. */
  | { readonly kind: "entries"; readonly path: Path }
  /** Attributes of this file, and data that were added to it. `severalNames`: it may be found under another name. */
  | { readonly kind: "attributes"; readonly path: Path; readonly severalNames: boolean }
  /** Bytes of this file were overwritten in place. */
  | { readonly kind: "data"; readonly path: Path; readonly severalNames: boolean }
  /** Anything at or below this path. */
  | { readonly kind: "tree"; readonly path: Path }
  /** A directory moves. `ino` is its number on this replica (0: not known), `otherIno` that of its partner in an exchange. */
  | {
      readonly kind: "rename";
      readonly from: Path;
      readonly to: Path;
      readonly exchange: boolean;
      readonly ino: number;
      readonly otherIno: number;
    }
  /** The rename with this number was refused by all, and has not happened. */
  | { readonly kind: "failed"; readonly of: number }
  /** This replica is out of sync, and all that it may have missed is named by intents from this generation on. */
  | { readonly kind: "out"; readonly replica: string }
  /** The replica of this name is another one now, or nothing is known of it: what "out" said before is void. */
  | { readonly kind: "unknown"; readonly replica: string };

export type IntentRecord = IntentBody & { readonly generation: number; readonly seq: number };

/** What a symbolic link holds everywhere, less some room. */
export const maxTargetBytes = 3_900;

const letters = {
  begin: "b",
  entries: "e",
  attributes: "a",
  data: "d",
  tree: "t",
  rename: "m",
  failed: "f",
  out: "o",
  unknown: "u",
} as const;

export function encodeIntent(body: IntentBody): ByteString {
  const several = "severalNames" in body && body.severalNames ? "+" : "-";
  const text = `${letters[body.kind]}${several}${content(body)}`;
  return checksum(text) + text;
}

function content(body: IntentBody): ByteString {
  switch (body.kind) {
    case "begin":
      return "1"; // version of the format
    case "out":
    case "unknown":
      return body.replica;
    case "failed":
      return String(body.of);
    case "rename": {
      const from = body.from.join("/");
      const how = body.exchange ? "x" : "r";
      return `${how} ${body.ino} ${body.otherIno} ${from.length} ${from}${body.to.join("/")}`;
    }
    default:
      return body.path.join("/");
  }
}

/** null if it is damaged, or from a version that this one does not know. */
export function decodeIntent(target: ByteString): IntentBody | null {
  const text = target.slice(8);
  if (text.length < 2 || checksum(text) !== target.slice(0, 8)) return null;
  const severalNames = text[1] === "+";
  const rest = text.slice(2);
  if (text[0] === letters.begin) return rest === "1" ? { kind: "begin" } : null;
  if (text[0] === letters.out) return rest === "" ? null : { kind: "out", replica: rest };
  if (text[0] === letters.unknown) return rest === "" ? null : { kind: "unknown", replica: rest };
  if (text[0] === letters.rename) return decodeRename(rest);
  if (text[0] === letters.failed) return /^\d{1,15}$/.test(rest) ? { kind: "failed", of: Number(rest) } : null;
  const path = decodePath(rest);
  if (path === null) return null;
  if (text[0] === letters.entries) return { kind: "entries", path };
  if (text[0] === letters.attributes) return { kind: "attributes", path, severalNames };
  if (text[0] === letters.data) return { kind: "data", path, severalNames };
  if (text[0] === letters.tree) return { kind: "tree", path };
  return null;
}

function decodeRename(rest: ByteString): IntentBody | null {
  const match = /^([xr]) (\d{1,16}) (\d{1,16}) (\d{1,4}) /.exec(rest);
  if (match === null) return null;
  const paths = rest.slice(match[0].length);
  const length = Number(match[4]);
  if (length > paths.length) return null;
  const from = decodePath(paths.slice(0, length));
  const to = decodePath(paths.slice(length));
  if (from === null || to === null || from.length === 0 || to.length === 0) return null;
  return { kind: "rename", from, to, exchange: match[1] === "x", ino: Number(match[2]), otherIno: Number(match[3]) };
}

function decodePath(text: ByteString): Path | null {
  if (text === "") return [];
  const path = text.split("/");
  return path.every((name) => name !== "" && name !== "." && name !== ".." && name.length <= 255) ? path : null;
}

function checksum(text: ByteString): string {
  return crc32(text).toString(16).padStart(8, "0");
}

/** The longest beginning of a path that an intent can hold. */
export function pathThatFits(path: Path): Path {
  let length = 0;
  for (const [i, name] of path.entries()) {
    length += name.length + 1;
    if (length > maxTargetBytes - 64) return path.slice(0, i);
  }
  return path;
}
