import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { OpenFile } from "../replication/open-file.ts";
import type { TreeNode } from "../replication/tree.ts";
import { FileAttr, S_IFDIR, S_IFREG } from "../util/file-attr.ts";
import { NodeTable } from "./node-table.ts";
import { StateLog, StateLogError } from "./state-log.ts";

const directory = mkdtempSync(join(tmpdir(), "chiron-node-table-"));
after(() => rmSync(directory, { recursive: true }));
let files = 0;

function fresh(): { table: NodeTable; path: string; log: StateLog } {
  const path = join(directory, `log-${files++}`);
  const log = StateLog.create(path);
  return { table: new NodeTable(log, { onDrop: () => {} }), path, log };
}

function restored(path: string): NodeTable {
  const table = new NodeTable(StateLog.open(path), { onDrop: () => {} });
  table.restore((node) => {
    node.open ??= new OpenFile(node, 2);
    node.open.users++;
    return node.open;
  });
  table.sweep();
  return table;
}

function attr(ino: number, mode: number, nlink = 1): FileAttr {
  return Object.assign(new FileAttr(), { ino, mode, nlink });
}

/** Everything that the next process has to know, in an order of its own. */
function picture(table: NodeTable): string[] {
  const lines: string[] = [];
  const seen = new Set<TreeNode>();
  const way = (node: TreeNode): string => (node.parent === null ? "" : `${way(node.parent)}/${node.name}`);
  const visit = (node: TreeNode): void => {
    for (const [name, child] of node.children ?? []) {
      lines.push(`${way(node)}/${name} = ${child.id} ino ${child.ino} orphan ${child.orphanLinks}`);
      if (!seen.has(child)) visit(child);
      seen.add(child);
    }
  };
  visit(table.tree.root);
  visit(table.orphans.directory);
  for (const [id, { file, flags }] of table.files) lines.push(`file ${id} of ${file.node.id} flags ${flags}`);
  for (const [id, { node }] of table.directories) lines.push(`directory ${id} of ${node.id}`);
  return lines.sort();
}

const step = fc.record({
  kind: fc.constantFrom(
    "enter",
    "enter",
    "mkdir",
    "forget",
    "link",
    "unlink",
    "rename",
    "open",
    "close",
    "opendir",
    "closedir",
  ),
  at: fc.nat(30),
  to: fc.nat(30),
  name: fc.constantFrom("a", "b", "c", "d"),
  other: fc.constantFrom("a", "b", "\xff\xfe"),
});

test("a new process finds nodes, places, lookup counts and handles as the old one left them", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const { table, path, log } = fresh();
      const lookups = new Map<number, number>();
      let ino = 100;
      const known = (i: number): TreeNode | undefined =>
        table.get([...lookups.keys()][i % Math.max(1, lookups.size)] ?? 0);
      const directoryAt = (i: number): TreeNode => {
        const node = known(i);
        return node !== undefined && node.type === S_IFDIR && !node.detached ? node : table.tree.root;
      };
      for (const { kind, at, to, name, other } of steps) {
        const parent = directoryAt(at);
        const there = table.tree.get(parent, name);
        if (kind === "enter" || kind === "mkdir") {
          const type = there?.type ?? (kind === "mkdir" ? S_IFDIR : S_IFREG);
          const node = table.enter(parent, name, attr(there?.ino ?? ino++, type | 0o644));
          lookups.set(node.id, (lookups.get(node.id) ?? 0) + 1);
        } else if (kind === "forget") {
          const node = known(at);
          if (node === undefined) continue;
          table.forget(node.id, lookups.get(node.id) as number);
          lookups.delete(node.id);
        } else if (kind === "link") {
          const node = known(to);
          if (node === undefined || node.type !== S_IFREG || node.detached) continue;
          table.tree.link(node, parent, other);
          table.enter(parent, other, attr(node.ino, S_IFREG | 0o644, 2));
          lookups.set(node.id, (lookups.get(node.id) ?? 0) + 1);
        } else if (kind === "unlink" && there?.type === S_IFREG) {
          if (there.open === null) table.tree.remove(parent, name);
          else {
            there.orphanLinks = 1;
            table.tree.rename(parent, name, table.orphans.directory, table.orphans.nameOf(there));
          }
        } else if (kind === "rename") {
          const target = directoryAt(to);
          if (there === undefined || there.type !== S_IFREG) continue;
          if (table.tree.get(target, other)?.type === S_IFDIR) continue;
          table.tree.rename(parent, name, target, other);
        } else if (kind === "open") {
          const node = known(at);
          if (node === undefined || node.type !== S_IFREG || node.detached) continue;
          node.open ??= new OpenFile(node, 2);
          node.open.users++;
          table.openFile(node.open, at);
        } else if (kind === "opendir") table.openDirectory(parent);
        else if (kind === "close") {
          const [id, entry] = [...table.files][at % Math.max(1, table.files.size)] ?? [];
          if (id === undefined || entry === undefined) continue;
          if (--entry.file.users === 0) entry.file.node.open = null;
          table.closeFile(id, entry);
        } else if (kind === "closedir") {
          const id = [...table.directories.keys()][at % Math.max(1, table.directories.size)];
          if (id !== undefined) table.closeDirectory(id);
        }
      }
      const before = picture(table);
      log.close(); // the process is gone; what is in the file stays
      const next = restored(path);
      assert.deepEqual(picture(next), before);
      // The lookup counts are right: forgetting just as much leaves nothing but what is open.
      for (const [id, { file }] of [...next.files]) {
        if (--file.users === 0) file.node.open = null;
        next.closeFile(id, next.files.get(id) as never);
      }
      for (const id of [...next.directories.keys()]) next.closeDirectory(id);
      for (const [id, count] of lookups) next.forget(id, count);
      assert.equal(next.size, 2);
    }),
  );
});

test("a log that has grown wasteful is compacted, and loses nothing", () => {
  const { table, path, log } = fresh();
  const nodes: TreeNode[] = [];
  for (let i = 0; i < 30_000; i++) nodes.push(table.enter(table.tree.root, `file-${i}`, attr(i + 1, S_IFREG)));
  const full = log.usedBytes;
  for (const node of nodes.slice(0, 25_000)) table.forget(node.id, 1);
  assert.ok(log.usedBytes < full / 2, `${log.usedBytes} of ${full} bytes`);
  const before = picture(table);
  log.close();
  assert.deepEqual(picture(restored(path)), before);
});

test("ids are never used twice, by the next process neither", () => {
  const { table, path, log } = fresh();
  const first = table.enter(table.tree.root, "a", attr(1, S_IFREG));
  table.forget(first.id, 1);
  log.close();
  const next = restored(path);
  assert.ok(next.enter(next.tree.root, "a", attr(1, S_IFREG)).id > first.id);
});

test("a damaged log, and one of a newer version, are refused with a clear message", () => {
  const { path, log } = fresh();
  log.close();
  const bytes = Buffer.alloc(1024 * 1024);
  writeFileSync(path, bytes);
  assert.throws(
    () => StateLog.open(path),
    (error) => error instanceof StateLogError && /damaged/.test(error.message),
  );
  bytes.writeUInt32LE(0x4c535643, 0);
  bytes.writeUInt32LE(99, 4);
  writeFileSync(path, bytes);
  assert.throws(() => StateLog.open(path), /has format 99, this program knows 1/);
  writeFileSync(path, "");
  assert.throws(() => StateLog.open(path), /damaged/);
});
