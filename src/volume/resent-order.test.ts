import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { FileSystem, Request } from "../fuse/filesystem.ts";
import { ResentOrder } from "./resent-order.ts";

const again = { resent: true } as Request;
const fresh = { resent: false } as Request;

function started() {
  const order: string[] = [];
  const renaming = Promise.withResolvers<number>();
  const inner = {
    rename: (_request: Request, _parent: number, name: string) => {
      order.push(`rename ${name}`);
      return name === "top" ? renaming.promise : 0;
    },
    unlink: (_request: Request, _parent: number, name: string) => {
      order.push(`unlink ${name}`);
      return 0;
    },
    write: (request: Request, node: number) => {
      order.push(`${request.resent ? "" : "new "}write ${node}`);
      if (node === 13) throw new Error("a bug");
      return 10 + node;
    },
    forget: () => order.push("forget"),
  } as unknown as FileSystem;
  const depths = new Map([
    ["top", 1],
    ["deep", 5],
  ]);
  const resent = new ResentOrder(inner, (_parent, name) => depths.get(name) ?? null);
  return { order, resent, fs: resent.fileSystem, renaming };
}

const write = (fs: FileSystem, request: Request, node: number) =>
  fs.write(request, node, 1, 0, new Uint8Array(1), 0, false, false);

test("what comes again is done in an order in which every name is found, and before what comes for the first time", async () => {
  const { order, resent, fs, renaming } = started();
  resent.hold();
  const first = write(fs, again, 1);
  void fs.unlink(again, 1, "gone");
  void fs.rename(again, 1, "file", 1, "other", 0);
  void fs.rename(again, 1, "deep", 1, "x", 0);
  void fs.rename(again, 1, "top", 1, "y", 0);
  fs.forget(1, 1);
  assert.deepEqual(order, ["forget"]);
  const last = write(fs, fresh, 2);
  const later = write(fs, fresh, 3);
  await turn();
  assert.deepEqual(order, ["forget", "rename top"]);
  renaming.resolve(0);
  assert.deepEqual([await first, await last, await later], [11, 12, 13]);
  assert.deepEqual(order.slice(2), [
    "rename deep",
    "unlink gone",
    "rename file",
    "write 1",
    "new write 2",
    "new write 3",
  ]);
  await turn();
  assert.equal(write(fs, fresh, 4), 14, "it is out of the way");
});

test("with nothing that comes again it is out of the way at once, and a bug is its request's alone", async () => {
  const { resent, fs } = started();
  resent.hold();
  const bug = write(fs, again, 13);
  const next = write(fs, again, 1);
  resent.arrived();
  await assert.rejects(Promise.resolve(bug), /a bug/);
  assert.equal(await next, 11);
  await turn();
  assert.equal(write(fs, again, 2), 12);
  resent.hold();
  resent.arrived();
  await turn();
  assert.equal(write(fs, fresh, 2), 12);
});
