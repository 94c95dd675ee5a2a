import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { Place, root } from "../replica/testing/subject.ts";
import { FileAttr } from "../util/file-attr.ts";
import { treeUse } from "./tree-use.ts";

test("counts what the tree occupies: each file once, without .chiron", async () => {
  const replica = new MemoryReplica();
  const { signal } = new AbortController();
  await replica.connect({ signal });
  const top = new Place(null, "");
  const file = (directory: Place, name: string): number => {
    const handle = replica.create(directory, name, 0o600, root, null);
    replica.write(handle, new Uint8Array(100_000), 0);
    replica.close(handle);
    const attr = new FileAttr();
    replica.lookup(directory, name, attr);
    return attr.blocks * 512;
  };
  replica.mkdir(top, ".chiron", 0o700, root, null);
  file(top.child(".chiron"), "hidden");
  const empty = await treeUse(replica, { signal });
  const directory = top.child("d");
  replica.mkdir(top, "d", 0o755, root, null);
  const bytes = file(directory, "one") + file(top, "two");
  replica.link(directory.child("one"), top, "again", null);
  const attr = new FileAttr();
  replica.lookup(top, "d", attr);
  assert.equal(await treeUse(replica, { signal }), empty + bytes + attr.blocks * 512);
});
