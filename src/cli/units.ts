/** Sizes and durations as people write and read them. */
import { FailureError } from "../volume/failure.ts";

const decimal = ["", "K", "M", "G", "T", "P"];

/** "10GiB" and "10G" are 10 · 2^30, "10GB" is 10 · 10^9, "4096" is bytes. */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?B)?$/i.exec(text.trim());
  if (match === null) throw new FailureError("usage", `${what}: "${text}" is not a size like 500M, 10GiB or 4096`);
  const power = decimal.indexOf((match[2] ?? "").toUpperCase());
  const base = match[3]?.toLowerCase() === "b" ? 1000 : 1024;
  return Math.round(Number(match[1]) * base ** power);
}

/** "10s", "500ms", "2m"; a bare number is seconds. */
export function parseDuration(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/.exec(text.trim());
  if (match === null) throw new FailureError("usage", `${what}: "${text}" is not a duration like 10s, 500ms or 2m`);
  const unitMs = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match[2] ?? "s"] ?? 1000;
  return Math.round(Number(match[1]) * unitMs);
}

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes;
  let unit = 0;
  while (value >= 1023.95 && unit < decimal.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${decimal[unit]}iB`;
}

/** "just now", "5 min", "3 h", "2 days". */
export function formatAge(since: string, nowMs: number): string {
  const seconds = Math.max(0, Math.round((nowMs - Date.parse(since)) / 1000));
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 5) return "just now";
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}
