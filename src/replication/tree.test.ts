import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Tree, type TreeNode } from "./tree.ts";

function watched(): { tree: Tree; dropped: TreeNode[] } {
  const dropped: TreeNode[] = [];
  return { tree: new Tree({ onDrop: (node) => dropped.push(node), onMove: () => {} }), dropped };
}

test("a node is dropped with its last pin, and with it the directories that only it kept", () => {
  const { tree, dropped } = watched();
  const a = tree.pin(tree.root, "a");
  const b = tree.pin(a, "b");
  tree.unpin(a);
  assert.deepEqual(dropped, []);
  tree.unpin(b);
  assert.deepEqual(dropped, [b, a]);
  assert.equal(tree.root.children, null);
});

test("a rename moves the node and everything below it", () => {
  const { tree } = watched();
  const a = tree.pin(tree.root, "a");
  const file = tree.pin(a, "f");
  const b = tree.pin(tree.root, "b");
  tree.rename(tree.root, "a", b, "c");
  assert.equal(tree.get(b, "c"), a);
  assert.equal(file.parent, a);
  assert.equal(a.parent, b);
  assert.equal(a.name, "c");
});

test("what a rename replaces is detached, and stays while it is pinned", () => {
  const { tree, dropped } = watched();
  const a = tree.pin(tree.root, "a");
  const b = tree.pin(tree.root, "b");
  tree.rename(tree.root, "a", tree.root, "b");
  assert.ok(b.detached);
  assert.equal(tree.get(tree.root, "b"), a);
  tree.unpin(b);
  assert.deepEqual(dropped, [b]);
});

test("a file goes on under its other name when one is removed", () => {
  const { tree } = watched();
  const a = tree.pin(tree.root, "a");
  tree.link(a, tree.root, "b");
  tree.remove(tree.root, "a");
  assert.equal(a.detached, false);
  assert.equal(a.name, "b");
  assert.equal(tree.get(tree.root, "b"), a);
});

test("a rename between two names of one file does nothing", () => {
  const { tree } = watched();
  const a = tree.pin(tree.root, "a");
  tree.link(a, tree.root, "b");
  tree.rename(tree.root, "a", tree.root, "b");
  assert.equal(tree.get(tree.root, "a"), a);
  assert.equal(tree.get(tree.root, "b"), a);
});

test("a detached node that gets a name is in the tree again", () => {
  const { tree } = watched();
  const a = tree.pin(tree.root, "a");
  tree.remove(tree.root, "a");
  tree.link(a, tree.root, "b");
  assert.equal(a.detached, false);
  assert.equal(a.name, "b");
});

test("an exchange swaps two nodes, also with a name that nobody knows", () => {
  const { tree } = watched();
  const a = tree.pin(tree.root, "a");
  const b = tree.pin(tree.root, "b");
  tree.exchange(tree.root, "a", tree.root, "b");
  assert.equal(tree.get(tree.root, "a"), b);
  assert.equal(tree.get(tree.root, "b"), a);
  tree.exchange(tree.root, "a", tree.root, "unknown");
  assert.equal(tree.get(tree.root, "unknown"), b);
  assert.equal(tree.get(tree.root, "a"), undefined);
});

const name = fc.constantFrom("a", "b", "c");
const step = fc.record({
  kind: fc.constantFrom("pin", "unpin", "link", "remove", "rename", "exchange"),
  at: fc.nat(20),
  to: fc.nat(20),
  name,
  other: name,
});

test("after any history pins are what holds a node: users, children, and names beyond the first", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { tree, dropped } = watched();
      const held: TreeNode[] = [];
      const place = (i: number): TreeNode => (held.length === 0 ? tree.root : (held[i % held.length] as TreeNode));
      for (const { kind, at, to, name: first, other } of steps) {
        const directory = place(at);
        const target = place(to);
        if (kind === "pin" && !directory.detached) held.push(tree.pin(directory, first));
        else if (kind === "unpin" && held.length > 0) tree.unpin(held.splice(at % held.length, 1)[0] as TreeNode);
        else if (kind === "remove") tree.remove(directory, first);
        else if (kind === "link" && held.length > 0 && !inside(target, directory) && !target.detached) {
          if (directory !== tree.root && directory.children === null) tree.link(directory, target, first);
        } else if (kind === "rename" || kind === "exchange") {
          const a = tree.get(directory, first);
          const b = tree.get(target, other);
          if ((a !== undefined && inside(target, a)) || (b !== undefined && inside(directory, b))) continue;
          if (target.detached || directory.detached) continue;
          if (kind === "rename") tree.rename(directory, first, target, other);
          else tree.exchange(directory, first, target, other);
        }
      }
      for (const node of held.splice(0)) tree.unpin(node);
      assert.equal(tree.root.pins, 1);
      assert.equal(tree.root.children, null);
      assert.ok(dropped.every((node) => node.pins <= 0));
    }),
  );
});

/** Is `node` the same as `above`, or below it by any of its names? */
function inside(node: TreeNode, above: TreeNode): boolean {
  if (node === above) return true;
  if (node.parent !== null && inside(node.parent, above)) return true;
  return node.aliases?.some((place) => inside(place.parent, above)) ?? false;
}
