/**
 * The application of the demo: keeps a set of files on the volume and knows what is in each. It creates, appends,
 * overwrites, renames, removes, and reads back, and compares what it reads with what it wrote. Tells its parent what it
 * has done every 100 ms. Ends, after reading everything once more, when it is told to.
 *
 *     demo-workload.ts DIRECTORY
 */
import { createHash, randomBytes } from "node:crypto";
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

export interface WorkloadReport {
  readonly operations: number;
  readonly bytesWritten: number;
  readonly files: number;
  readonly errors: readonly string[];
  /** The longest that one operation has taken since the last `reset`. */
  readonly longestMs: number;
  readonly finished: boolean;
}

const MAX_FILES = 1500;
const MAX_FILE_BYTES = 256 * 1024;
const MAX_TOTAL_BYTES = 96 * 1024 * 1024;

const directory = process.argv[2] ?? ".";
/** Name → what it must hold. */
const expected = new Map<string, Buffer>();
const errors: string[] = [];
const blocks = Array.from({ length: 16 }, () => randomBytes(MAX_FILE_BYTES));
let operations = 0;
let bytesWritten = 0;
let totalBytes = 0;
let serial = 0;
let longestMs = 0;
let stopping = false;

function random(below: number): number {
  return Math.floor(Math.random() * below);
}

function someData(bytes: number): Buffer {
  const block = blocks[random(blocks.length)] ?? Buffer.alloc(0);
  const start = random(block.length - bytes + 1);
  return block.subarray(start, start + bytes);
}

function someFile(): string | null {
  const names = [...expected.keys()];
  return names[random(names.length)] ?? null;
}

function hold(name: string, content: Buffer | null): void {
  totalBytes += (content?.length ?? 0) - (expected.get(name)?.length ?? 0);
  if (content === null) expected.delete(name);
  else expected.set(name, content);
}

function create(): void {
  const folder = join(directory, `folder-${serial % 20}`);
  mkdirSync(folder, { recursive: true });
  const name = join(folder, `file-${serial++}`);
  const data = Buffer.from(someData(1 + random(random(4) === 0 ? MAX_FILE_BYTES : 8192)));
  writeFileSync(name, data);
  bytesWritten += data.length;
  hold(name, data);
}

function change(): void {
  const name = someFile();
  const before = name === null ? undefined : expected.get(name);
  if (name === null || before === undefined) {
    create();
    return;
  }
  const kind = random(5);
  if (kind === 0) {
    const data = Buffer.from(someData(1 + random(4096)));
    appendFileSync(name, data);
    bytesWritten += data.length;
    hold(name, Buffer.concat([before, data]));
  } else if (kind === 1) {
    const position = random(before.length);
    const data = someData(1 + random(Math.min(4096, before.length - position)));
    const fd = openSync(name, "r+");
    writeSync(fd, data, 0, data.length, position);
    if (random(10) === 0) fsyncSync(fd);
    closeSync(fd);
    bytesWritten += data.length;
    const after = Buffer.from(before);
    data.copy(after, position);
    hold(name, after);
  } else if (kind === 2) {
    const other = join(directory, `folder-${random(20)}`, `moved-${serial++}`);
    mkdirSync(join(other, ".."), { recursive: true });
    renameSync(name, other);
    hold(name, null);
    hold(other, before);
  } else if (kind === 3 && (expected.size > MAX_FILES || totalBytes > MAX_TOTAL_BYTES || random(4) === 0)) {
    unlinkSync(name);
    hold(name, null);
  } else check(name);
}

function check(name: string): void {
  const digest = (data: Buffer) => createHash("sha1").update(data).digest("hex");
  if (digest(readFileSync(name)) !== digest(expected.get(name) ?? Buffer.alloc(0)))
    errors.push(`${name}: wrong contents`);
}

function attempt(operation: () => void): void {
  const begin = performance.now();
  try {
    operation();
  } catch (error) {
    errors.push((error as Error).message);
  }
  operations++;
  longestMs = Math.max(longestMs, performance.now() - begin);
}

function report(finished: boolean): void {
  const message: WorkloadReport = { operations, bytesWritten, files: expected.size, errors, longestMs, finished };
  process.send?.(message);
}

function turn(): void {
  // Not as fast as it goes: the demo is to be watched while something else works, too.
  for (const end = performance.now() + 20; performance.now() < end; ) {
    const full = expected.size > MAX_FILES || totalBytes > MAX_TOTAL_BYTES;
    attempt(!full && random(3) === 0 ? create : change);
  }
  if (!stopping) {
    setTimeout(turn, 20);
    return;
  }
  for (const name of expected.keys()) attempt(() => check(name));
  report(true);
  process.disconnect();
}

process.on("message", (message) => {
  if (message === "stop") stopping = true;
  if (message === "reset") longestMs = 0;
});
process.on("disconnect", () => process.exit());
setInterval(() => report(false), 100).unref();
turn();
