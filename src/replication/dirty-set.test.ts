import assert from "node:assert/strict";
import { test } from "node:test";
import { seeded } from "../replica/testing/random.ts";
import { TREE } from "./dirty-node.ts";
import { loadDirtySet, saveDirtySet } from "./dirty-saved.ts";
import { DirtySet } from "./dirty-set.ts";

const path = (text: string): string[] => text.split("/").filter((name) => name !== "");

test("what is below a name that is not repaired is dirty, and what is beside it is not", () => {
  const set = new DirtySet();
  set.entry(path("a"), "b");
  assert.ok(set.isDirty(path("a/b")) && set.isDirty(path("a/b/c")) && set.isEntryDirty(path("a"), "b"));
  assert.ok(!set.isDirty(path("a")) && !set.isDirty(path("a/c")) && !set.isEntryDirty(path("a"), "c"));
});

test("data are dirty by their ranges", () => {
  const set = new DirtySet();
  set.data(path("f"), 10, 20);
  assert.ok(set.isDirty(path("f")) && set.isRangeDirty(path("f"), 15, 16));
  assert.ok(!set.isRangeDirty(path("f"), 20, 30));
});

test("a walk leaves clean behind it what it has seen, and new marks stay", () => {
  const set = new DirtySet();
  set.absorbs = false;
  set.tree([]);
  set.setCursor(set.root, "m");
  assert.ok(!set.isDirty(path("a")) && set.isDirty(path("z")) && set.isEntryDirty([], "z/"));
  set.data(path("a"), 0, 1);
  set.clearFlags(set.root, TREE);
  assert.ok(set.isDirty(path("a")) && !set.isDirty(path("z")));
});

test("marks move with a rename, and it is known where the replica has what has moved", () => {
  const set = new DirtySet();
  set.data(path("d/f"), 0, 5);
  set.rename([], "d", [], "e", false);
  assert.ok(set.isRangeDirty(path("e/f"), 0, 1));
  assert.deepEqual(set.placeOf(path("e/f"))?.path(), path("d/f"));
  set.rename([], "e", path("x"), "y", false);
  assert.deepEqual(set.find(path("x/y"))?.origin?.path(), path("d"));
  assert.ok(set.isEntryDirty([], "d") && set.isEntryDirty([], "e"));
});

test("where something is that was moved out of an uncertain directory is not known", () => {
  const set = new DirtySet();
  set.scan(path("d"));
  set.rename(path("d"), "f", [], "f", false);
  assert.equal(set.find(path("f"))?.origin, null);
  assert.notEqual((set.find(path("f"))?.flags ?? 0) & TREE, 0);
});

test("a set that is saved and loaded again says the same", () => {
  const choose = seeded(7);
  const names = ["a", "b", "c"];
  const set = new DirtySet();
  const paths: string[][] = [];
  for (let i = 0; i < 200; i++) {
    const one = Array.from({ length: 1 + choose(3) }, () => names[choose(3)] as string);
    const other = Array.from({ length: 1 + choose(3) }, () => names[choose(3)] as string);
    paths.push(one, other);
    const [directory, name] = [one.slice(0, -1), one.at(-1) as string];
    if (choose(3) === 0) set.entry(directory, name);
    else if (choose(2) === 0) set.data(one, choose(100), 100 + choose(100));
    else if (
      !`${other.join("/")}/`.startsWith(`${one.join("/")}/`) &&
      !`${one.join("/")}/`.startsWith(`${other.join("/")}/`)
    ) {
      set.rename(directory, name, other.slice(0, -1), other.at(-1) as string, choose(2) === 0);
    }
  }
  const loaded = loadDirtySet(saveDirtySet(set));
  assert.ok(loaded !== null);
  assert.equal(saveDirtySet(loaded), saveDirtySet(set));
  for (const one of paths) {
    assert.equal(loaded.isDirty(one), set.isDirty(one));
    assert.deepEqual(loaded.placeOf(one)?.path(), set.placeOf(one)?.path());
  }
  assert.deepEqual(loaded.counts(), set.counts());
});

test("what is not a saved set is not taken for one", () => {
  for (const text of [
    "",
    "{}",
    "[1]",
    '{"version":2,"nodes":[]}',
    '{"version":1,"nodes":[[3,"a",1,[],null,null]],"suspects":[]}',
  ]) {
    assert.equal(loadDirtySet(text), null);
  }
});

test("very many marks become marks of whole directories, and nothing is forgotten", () => {
  const set = new DirtySet({ maxNodes: 1000 });
  for (let i = 0; i < 20_000; i++) set.data([`d${i % 7}`, `e${i % 100}`, `f${i}`], 0, 1);
  assert.ok(set.size <= 1000);
  for (let i = 0; i < 20_000; i += 13) assert.ok(set.isDirty([`d${i % 7}`, `e${i % 100}`, `f${i}`]));
});

test("what is marked in a directory may all move away, also below one that is uncertain: something is left to do, or nothing", () => {
  for (const isUncertain of [false, true]) {
    const set = new DirtySet();
    set.data(["d", "sub", "x"], 0, 10);
    if (isUncertain) set.tree(["d"]);
    set.rename(["d", "sub"], "x", [], "y", false);
    for (let steps = 0; !set.isEmpty; steps++) {
      const node = set.next();
      assert.ok(node !== null && steps < 10, `${steps} steps`);
      // As a walk that comes to every name, and finds nothing.
      if ((node.flags & 8) !== 0 && node.cursor === null) set.setCursor(node, "sub");
      else set.clearAll(node);
    }
  }
});
