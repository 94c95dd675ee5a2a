/**
 * Names are bytes. A `ByteString` holds one byte per character (latin1), so that any name survives, compares and keys
 * a `Map` cheaply, and costs one byte per byte of memory in V8. Only people read UTF-8: decode at the edge.
 */
export type ByteString = string;

/** From a path or name that a person or JSON gave, in UTF-8. */
export function byteString(text: string): ByteString {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** For messages and JSON. Bytes that are not UTF-8 appear as `\xNN`, so that two names never look alike. */
export function printable(name: ByteString): string {
  const bytes = Buffer.from(name, "latin1");
  const text = bytes.toString("utf8");
  if (Buffer.from(text, "utf8").equals(bytes)) return text.replace(/[\u0000-\u001f\u007f]/g, hexEscape);
  return name.replace(/[^\x20-\x7e]/g, hexEscape);
}

function hexEscape(char: string): string {
  return `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`;
}
