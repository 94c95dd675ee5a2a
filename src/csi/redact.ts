/** A request as it may be logged: fields that csi.proto marks secret keep their keys and lose their values. */
import { secretFields } from "./generated/secret-fields.ts";

export function redact(message: unknown): unknown {
  if (Array.isArray(message)) return message.map(redact);
  if (message === null || typeof message !== "object" || message instanceof Uint8Array) return message;
  const shown: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(message)) {
    if (value === undefined || (Array.isArray(value) && value.length === 0) || value === "") continue;
    shown[field] = secretFields.has(field) ? hide(value) : redact(value);
  }
  return shown;
}

function hide(value: unknown): unknown {
  if (value === null || typeof value !== "object") return "***";
  return Object.fromEntries(Object.keys(value).map((key) => [key, "***"]));
}
