/** Colours, tables and bars for people. Plain where output is no terminal or NO_COLOR is set (util.styleText sees to it). */
import { stripVTControlCharacters, styleText } from "node:util";

export type Style = Parameters<typeof styleText>[0];

export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

/** Columns as wide as their widest cell; the last one is not filled up. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, width(cell));
  }
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell + " ".repeat((widths[i] ?? 0) - width(cell)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function width(text: string): number {
  return [...stripVTControlCharacters(text)].length;
}

const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

export function bar(percent: number, cells: number): string {
  const filled = (Math.min(100, Math.max(0, percent)) / 100) * cells;
  const whole = Math.floor(filled);
  const part = eighths[Math.floor((filled - whole) * 8)] ?? "";
  return `${"█".repeat(whole)}${part}`.padEnd(cells, "░");
}

/** Lines that are drawn over each other on a terminal; elsewhere only those that `final` has. */
export class LiveLine {
  readonly #live = process.stdout.isTTY === true;
  #drawn = false;

  show(text: string): void {
    if (!this.#live) return;
    process.stdout.write(`\r\x1b[2K${text}`);
    this.#drawn = true;
  }

  final(text: string): void {
    if (this.#drawn) process.stdout.write("\r\x1b[2K");
    this.#drawn = false;
    process.stdout.write(`${text}\n`);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
