/** Random histories of operations on a small tree: names collide often, so that every kind of change meets every other. */
import type { Choose } from "../../replica/testing/random.ts";
import type { Operation } from "./test-volume.ts";

const names = ["a", "b", "c"];

export function randomPath(choose: Choose): string {
  const depth = 1 + choose(3);
  return Array.from({ length: depth }, () => names[choose(names.length)]).join("/");
}

/** Two directories that look the same from outside, whichever has which name: only their files' contents differ. */
export const twins: readonly Operation[] = [
  { kind: "mkdir", path: "d" },
  { kind: "create", path: "d/inside" },
  { kind: "write", path: "d/inside", at: 0, bytes: 4096, fill: 7 },
  { kind: "mkdir", path: "twin" },
  { kind: "create", path: "twin/inside" },
  { kind: "write", path: "twin/inside", at: 0, bytes: 4096, fill: 8 },
  { kind: "utimes", path: "d/inside", seconds: 1000 },
  { kind: "utimes", path: "twin/inside", seconds: 1000 },
];

/** What is done to them. Some of it is refused: they are not empty. */
export function swap(choose: Choose): Operation {
  return swaps[choose(swaps.length)] as Operation;
}

const swaps: readonly Operation[] = [
  { kind: "exchange", path: "d", to: "twin" },
  { kind: "rename", path: "d", to: "t" },
  { kind: "rename", path: "twin", to: "d" },
  { kind: "rename", path: "t", to: "twin" },
  { kind: "chmod", path: "d/inside", mode: 0o600 },
  { kind: "mkdir", path: "d" },
  { kind: "rmdir", path: "d" },
  { kind: "rmdir", path: "twin" },
];

/** `maxBytes`: how large files get. */
export function randomOperation(choose: Choose, maxBytes = 3 * 4096): Operation {
  const path = randomPath(choose);
  switch (choose(22)) {
    case 0:
    case 1:
    case 2:
      return { kind: "create", path };
    case 3:
    case 4:
    case 5:
      return { kind: "mkdir", path };
    case 6:
      return { kind: "unlink", path };
    case 7:
      return { kind: "rmdir", path };
    case 8:
    case 9:
    case 10:
      return { kind: "write", path, at: choose(maxBytes), bytes: 1 + choose(maxBytes), fill: 1 + choose(250) };
    case 11:
      return { kind: "truncate", path, size: choose(2) * choose(maxBytes) };
    case 12:
      return { kind: "chmod", path, mode: 0o600 + choose(0o200) };
    case 13:
      return { kind: "xattr", path, value: choose(3) === 0 ? null : String(choose(10)) };
    case 14:
      return { kind: "symlink", path, target: String(choose(10)) };
    case 15:
      return { kind: "link", path, to: randomPath(choose) };
    case 16:
    case 17:
      return { kind: "rename", path, to: randomPath(choose) };
    case 18:
      return { kind: "exchange", path, to: randomPath(choose) };
    case 19:
      return { kind: "fifo", path };
    case 20:
      return { kind: "punch", path, at: choose(maxBytes), bytes: 1 + choose(maxBytes) };
    default:
      return { kind: "fsync", path };
  }
}
