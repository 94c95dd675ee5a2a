/** The tables against the kernel's own headers: a C compiler checks each number, for either machine, on either machine. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { describe, test } from "node:test";
import { type Architecture, arm64, x64 } from "./architecture.ts";

const compiler = spawnSync("cc", ["--version"]).status === 0 ? null : "there is no C compiler";

/** Debian's linux-libc-dev of each machine, and of another one (linux-libc-dev-arm64-cross). */
const headers = {
  x64: ["/usr/include/x86_64-linux-gnu", "/usr/x86_64-linux-gnu/include"],
  arm64: ["/usr/include/aarch64-linux-gnu", "/usr/aarch64-linux-gnu/include"],
} as const;

function statAssertions({ stat }: Architecture): [string, number][] {
  const { bytes, ...fields } = stat;
  const offsets = Object.entries(fields).map(([name, at]): [string, number] => [
    `__builtin_offsetof(struct stat, st_${name})`,
    at,
  ]);
  const nanoseconds = (["atime", "mtime", "ctime"] as const).map((name): [string, number] => [
    `__builtin_offsetof(struct stat, st_${name}_nsec)`,
    stat[name] + 8,
  ]);
  const widths = (["mode", "uid", "gid"] as const).map((name): [string, number] => [
    `sizeof(((struct stat *)0)->st_${name})`,
    4,
  ]);
  return [["sizeof(struct stat)", bytes], ...offsets, ...nanoseconds, ...widths];
}

/** Calls that are newer than the installed headers are left out: `#ifdef` says so. */
function program(table: Architecture, statHeader: string, callsHeader: string): string {
  const { O_DIRECTORY, O_NOFOLLOW, O_DIRECT, O_LARGEFILE } = table;
  const check = (what: string, is: number): string => `_Static_assert((${what}) == ${is}, "${what}");`;
  return [
    `#include <${statHeader}>`,
    `#include <${callsHeader}>`,
    "#include <asm/fcntl.h>",
    "#include <asm/statfs.h>",
    "#include <linux/stat.h>",
    ...statAssertions(table).map(([what, is]) => check(what, is)),
    ...Object.entries(table.call).map(([name, is]) => `#ifdef __NR_${name}\n${check(`__NR_${name}`, is)}\n#endif`),
    ...["newfstatat", "statx", "openat2"].map((name) => `#ifndef __NR_${name}\n#error ${name}\n#endif`),
    ...Object.entries({ O_DIRECTORY, O_NOFOLLOW, O_DIRECT, O_LARGEFILE }).map(([name, is]) => check(name, is)),
    // The same on all machines: statx.ts and statfs.ts read 4-byte and 8-byte fields at these places.
    check("sizeof(struct statx)", 256),
    check("__builtin_offsetof(struct statx, stx_ino)", 8 * 4),
    check("__builtin_offsetof(struct statx, stx_mtime.tv_nsec)", 30 * 4),
    check("__builtin_offsetof(struct statx, stx_dev_major)", 34 * 4),
    check("sizeof(struct statfs)", 30 * 4),
    check("__builtin_offsetof(struct statfs, f_namelen)", 8 * 8),
    check("__builtin_offsetof(struct statfs, f_flags)", 10 * 8),
    "",
  ].join("\n");
}

describe("layouts and call numbers are those of the kernel's headers", { skip: compiler ?? false }, () => {
  for (const [name, table, stat, calls] of [
    ["x64", x64, "asm/stat.h", "asm/unistd_64.h"],
    ["arm64", arm64, "asm/stat.h", "asm/unistd.h"],
  ] as const) {
    const own = headers[name].find((directory) => existsSync(`${directory}/asm/stat.h`));
    test(name, { skip: own === undefined ? "LEFT OUT: its kernel headers are not installed" : false }, () => {
      const include = ["-nostdinc", "-isystem", own as string, "-isystem", "/usr/include"];
      compile(program(table, stat, calls), include);
      const wrong = { ...table, stat: { ...table.stat, mtime: table.stat.mtime + 8 } };
      assert.throws(() => compile(program(wrong, stat, calls), include), /st_mtime/, "a wrong table is found");
    });
  }
});

function compile(source: string, include: readonly string[]): void {
  execFileSync("cc", ["-fsyntax-only", "-x", "c", ...include, "-"], { input: source, stdio: ["pipe", "pipe", "pipe"] });
}
