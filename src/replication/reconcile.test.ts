import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { Replica } from "../replica/replica.ts";
import { MemoryReplica } from "../replica/testing/memory.ts";
import { describeDisk, MemoryDisk } from "../replica/testing/memory-disk.ts";
import type { Inode } from "../replica/testing/memory-image.ts";
import { type Choose, everyChoice, first, last, seeded } from "../replica/testing/random.ts";
import { silentLogger } from "../util/logger.ts";
import type { IntentLogOptions } from "./intent-log.ts";
import { holdsMissed, type ReconcileResult, reconcile } from "./reconcile.ts";
import { Resync } from "./resync.ts";
import { randomOperation, swap, twins } from "./testing/history.ts";
import { late } from "./testing/late.ts";
import { type Operation, TestVolume } from "./testing/test-volume.ts";
import { Throttle } from "./throttle.ts";

const runs = Number(process.env["CHIRON_TEST_RUNS"] ?? 400);
const firstSeed = Number(process.env["CHIRON_TEST_SEED"] ?? 1);

interface Powered {
  readonly disks: readonly MemoryDisk[];
  /** What was fsynced, and not changed since: lines of `describeDisk` that must be there afterwards. */
  readonly kept: ReadonlyMap<string, string>;
}

/** Cuts the power of each disk at its own moment, mounts again, and makes the members alike. Answers what is wrong. */
async function afterPowerCut({ disks, kept }: Powered, choose: Choose): Promise<string | null> {
  const crashed = disks.map((disk) => disk.crash(choose));
  await madeAlike(await connected(crashed));
  return wrongIn(crashed, kept);
}

async function connected(disks: readonly MemoryDisk[]): Promise<MemoryReplica[]> {
  const replicas: MemoryReplica[] = [];
  for (const [i, disk] of disks.entries()) {
    const replica = new MemoryReplica(disk, { name: `r${i}` });
    await replica.connect({ signal: new AbortController().signal });
    replicas.push(replica);
  }
  return replicas;
}

async function madeAlike(replicas: readonly Replica[], isDegraded = false): Promise<ReconcileResult> {
  return await reconcile({
    replica: (index) => replicas[index] as Replica,
    members: replicas.map((_, i) => i),
    isDegraded,
    log: silentLogger,
    signal: new AbortController().signal,
  });
}

function wrongIn(disks: readonly MemoryDisk[], kept: ReadonlyMap<string, string>): string | null {
  const trees = disks.map((disk) => describeDisk(disk));
  for (const tree of trees.slice(1)) {
    const different = difference(trees[0] as string[], tree);
    if (different !== null) return different;
  }
  for (const [path, line] of kept) {
    // A directory above it may have been renamed, which an fsync of the file says nothing about.
    const what = line.slice(line.indexOf(" "));
    if (!trees[0]?.some((other) => other.endsWith(what))) return `"${path}" was fsynced and is gone: ${line}`;
  }
  return null;
}

function difference(a: readonly string[], b: readonly string[]): string | null {
  const only = (x: readonly string[], y: readonly string[]) => x.filter((line) => !y.includes(line));
  const [leaders, others] = [only(a, b), only(b, a)];
  return leaders.length + others.length === 0
    ? null
    : `Only on the leader: ${leaders.join(", ")}\nOnly on the other: ${others.join(", ")}`;
}

function touches(operation: Operation, path: string): boolean {
  const paths = [operation.path, "to" in operation ? operation.to : operation.path];
  return paths.some((other) => path === other || path.startsWith(`${other}/`));
}

async function applied(operations: readonly Operation[], options: IntentLogOptions): Promise<Powered> {
  const disks = [new MemoryDisk(), new MemoryDisk()];
  const volume = await TestVolume.open(disks, { intents: options });
  for (const disk of disks) disk.sync();
  return await apply(volume, operations);
}

async function apply(volume: TestVolume, operations: readonly Operation[]): Promise<Powered> {
  const kept = new Map<string, string>();
  for (const operation of operations) await applyOne(volume, operation, kept);
  return { disks: volume.disks, kept };
}

async function applyOne(volume: TestVolume, operation: Operation, kept: Map<string, string>): Promise<void> {
  // It may be under way when the power is cut.
  for (const path of [...kept.keys()]) if (touches(operation, path) && operation.kind !== "fsync") kept.delete(path);
  if ((await volume.run(operation)) < 0 || operation.kind !== "fsync") return;
  const line = describeDisk(volume.disks[0] as MemoryDisk).find((other) => other.startsWith(`/${operation.path} 1`));
  // Under its other names it may change without our noticing here.
  if (line?.includes("links 1 ") === true) kept.set(operation.path, line);
}

function history(choose: Choose, length: number): Operation[] {
  return Array.from({ length }, () => randomOperation(choose));
}

test("after a power cut in any history the members are made alike, and what was fsynced is there", async () => {
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    const choose = seeded(seed);
    const disks = [new MemoryDisk(), new MemoryDisk(), new MemoryDisk()].slice(0, 2 + choose(2));
    const volume = await TestVolume.open(disks);
    for (const disk of disks) disk.sync();
    await apply(volume, history(choose, choose(30)));
    if (choose(2) === 0) await volume.intents.checkpoint();
    let later = volume;
    if (volume.intents.count === 0) {
      await volume.settle();
      await volume.intents.checkpoint();
      later = await TestVolume.open(muchLater(disks));
      for (const disk of later.disks) disk.sync();
    }
    const operations = history(choose, choose(30));
    const powered = await apply(later, operations);
    for (let cut = 0; cut < 4; cut++) {
      const wrong = await afterPowerCut(powered, choose);
      assert.equal(wrong, null, `Seed ${seed}, cut ${cut}:\n${operations.map((o) => JSON.stringify(o)).join("\n")}`);
    }
  }
});

test("power cuts in turn, with replicas that leave and join between them, leave the members alike", async () => {
  for (let seed = firstSeed; seed < firstSeed + runs / 4; seed++) {
    const choose = seeded(seed);
    const log: string[] = [];
    let disks = await smallDisks({});
    if (choose(2) === 0) disks.push((disks[1] as MemoryDisk).copy());
    let out: number | null = null;
    for (let mount = 0; mount < 3; mount++) {
      const inSync = disks.map((_, i) => i).filter((i) => i !== out);
      const volume = await TestVolume.open(disks, { inSync });
      let isKnown = true;
      if (out !== null) {
        const records = volume.intents.uncleared;
        isKnown = holdsMissed(records, `r${out}`);
        volume.missed.begin(out, isKnown ? { kind: "intents", records } : { kind: "everything" });
      }
      if (mount === 0) for (const disk of disks) disk.sync();
      const kept = new Map<string, string>();
      for (let left = choose(20); left > 0; left--) {
        const what = choose(12);
        if (what === 0 && out === null) {
          const [replica = 0] = volume.membership.inSync.slice(-1);
          volume.membership.expel([replica]);
          out = replica;
          isKnown = true;
          await volume.intents.recordOut(`r${replica}`);
          log.push(`${replica} is out`);
        } else if (what < 3 && out !== null) {
          volume.membership.startSync(out);
          const options = { throttle: new Throttle({ sliceMs: 0 }), signal: new AbortController().signal };
          await new Resync(volume.resyncDeps, out, { ...options, contents: !isKnown }).run();
          log.push(`${out} is in${isKnown ? "" : ", after a full resync"}`);
          out = null;
        } else if (what === 3) log.push(`checkpoint ${await volume.intents.checkpoint()}`);
        else {
          const operation = what < 8 ? swap(choose) : randomOperation(choose);
          await applyOne(volume, operation, kept);
          log.push(JSON.stringify(operation));
        }
      }
      const crashed = disks.map((disk) => disk.crash(choose));
      const members = crashed.filter((_, i) => i !== out);
      await madeAlike(await connected(members), out !== null);
      log.push("power cut");
      const wrong = wrongIn(members, kept);
      assert.equal(wrong, null, `Seed ${seed}, mount ${mount}:\n${log.join("\n")}`);
      disks = crashed;
    }
  }
});

/** A replica whose machine stops at some call: that one and all later ones never answer. */
function stopping(replica: Replica, left: { calls: number }, onStop: () => void): Replica {
  return new Proxy(replica, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property);
      if (typeof value !== "function" || property === "forget") return value;
      return (...args: unknown[]): unknown => {
        if (left.calls-- > 0) return Reflect.apply(value, target, args);
        onStop();
        return new Promise(() => {});
      };
    },
  });
}

/** Was it being made like another member? */
function isMarked(disk: MemoryDisk): boolean {
  const control = disk.image.child(disk.image.get(1) as Inode, ".chiron");
  return control !== undefined && disk.image.child(control, "reconciling") !== undefined;
}

test("a power cut while members are made alike loses nothing, whoever comes back", async () => {
  for (let seed = firstSeed; seed < firstSeed + runs / 2; seed++) {
    const choose = seeded(seed);
    const disks = [new MemoryDisk(), new MemoryDisk(), new MemoryDisk()];
    const volume = await TestVolume.open(disks);
    for (const disk of disks) disk.sync();
    const operations = history(choose, choose(40));
    const { kept } = await apply(volume, operations);
    let crashed = disks.map((disk) => disk.crash(choose));
    for (let cut = 1 + choose(2); cut > 0; cut--) {
      const left = { calls: choose(choose(2) === 0 ? 60 : 300) };
      const stopped = Promise.withResolvers<void>();
      const replicas = (await connected(crashed)).map((replica) => stopping(replica, left, stopped.resolve));
      await Promise.race([madeAlike(replicas), stopped.promise]);
      crashed = crashed.map((disk) => disk.crash(choose));
      // Somebody may be missing, if one is left that was not being changed.
      const without = choose(crashed.length);
      const others = crashed.filter((_, i) => i !== without);
      if (choose(2) === 0 && others.length >= 2 && others.some((disk) => !isMarked(disk))) crashed = others;
    }
    await madeAlike(await connected(crashed));
    const wrong = wrongIn(crashed, kept);
    assert.equal(wrong, null, `Seed ${seed}:\n${operations.map((o) => JSON.stringify(o)).join("\n")}`);
  }
});

test("power cuts beside checkpoints and several changes at once, on replicas that answer late", async () => {
  for (let seed = firstSeed; seed < firstSeed + runs / 2; seed++) {
    const choose = seeded(seed);
    const disks = [new MemoryDisk(), new MemoryDisk()];
    const volume = await TestVolume.open(disks, { wrap: (replica) => late(replica, choose) });
    for (const disk of disks) disk.sync();
    const kept = new Map<string, string>();
    const log: string[] = [];
    let left = 4 + choose(40);
    const stream = async (own: string): Promise<void> => {
      await volume.run({ kind: "mkdir", path: own });
      while (left-- > 0) {
        const operation = below(own, randomOperation(choose));
        for (const path of [...kept.keys()]) if (touches(operation, path)) kept.delete(path);
        const result = await volume.run(operation);
        log.push(`${JSON.stringify(operation)} ${result}`);
        if (result < 0 || operation.kind !== "fsync") continue;
        const line = describeDisk(disks[0] as MemoryDisk).find((other) => other.startsWith(`/${operation.path} 1`));
        if (line?.includes("links 1 ") === true) kept.set(operation.path, line);
      }
    };
    const checkpoints = async (): Promise<void> => {
      while (left > 0) {
        for (let i = choose(30); i > 0; i--) await turn();
        log.push(`checkpoint ${await volume.intents.checkpoint()}`);
      }
    };
    const cuts: { crashed: MemoryDisk[]; kept: Map<string, string>; after: number }[] = [];
    const cut = async (): Promise<void> => {
      while (left > 0) {
        for (let i = choose(20); i > 0; i--) await turn();
        cuts.push({ crashed: disks.map((disk) => disk.crash(choose)), kept: new Map(kept), after: log.length });
      }
    };
    await Promise.all([stream("x"), stream("y"), stream("z"), checkpoints(), cut()]);
    for (const { crashed, kept: kept1, after } of cuts) {
      await madeAlike(await connected(crashed));
      const wrong = wrongIn(crashed, kept1);
      assert.equal(wrong, null, `Seed ${seed}, after ${after}:\n${log.join("\n")}`);
    }
  }
});

/** The operation in a directory of its own. */
function below(directory: string, operation: Operation): Operation {
  const path = `${directory}/${operation.path}`;
  return "to" in operation ? { ...operation, path, to: `${directory}/${operation.to}` } : { ...operation, path };
}

const small: readonly (readonly Operation[])[] = [
  [
    { kind: "create", path: "a" },
    { kind: "write", path: "a", at: 0, bytes: 10, fill: 1 },
  ],
  [
    { kind: "write", path: "old", at: 0, bytes: 4096, fill: 2 },
    { kind: "write", path: "old", at: 4096, bytes: 10, fill: 3 },
  ],
  [
    { kind: "mkdir", path: "d/e" },
    { kind: "create", path: "d/e/f" },
    { kind: "rename", path: "d/e", to: "e" },
  ],
  [
    { kind: "rename", path: "d", to: "moved" },
    { kind: "write", path: "moved/inside", at: 0, bytes: 10, fill: 4 },
  ],
  [
    { kind: "exchange", path: "d", to: "twin" },
    { kind: "chmod", path: "d/inside", mode: 0o600 },
  ],
  [
    { kind: "link", path: "old", to: "d/other" },
    { kind: "unlink", path: "old" },
    { kind: "chmod", path: "d/other", mode: 0o640 },
  ],
  [{ kind: "exchange", path: "d", to: "twin" }],
  [
    { kind: "rename", path: "d", to: "t" },
    { kind: "rename", path: "twin", to: "d" },
    { kind: "rename", path: "t", to: "twin" },
  ],
  [
    { kind: "rename", path: "d", to: "t" },
    { kind: "mkdir", path: "d" },
    { kind: "create", path: "d/inside" },
  ],
  [
    { kind: "mkdir", path: "n" },
    { kind: "create", path: "n/f" },
    { kind: "rename", path: "n", to: "twin/n" },
    { kind: "write", path: "twin/n/f", at: 0, bytes: 10, fill: 3 },
  ],
  [
    { kind: "chmod", path: "linked", mode: 0o600 },
    { kind: "unlink", path: "linked" },
  ],
  [
    { kind: "write", path: "linked", at: 0, bytes: 10, fill: 3 },
    { kind: "unlink", path: "linked" },
  ],
  [
    { kind: "truncate", path: "old", size: 0 },
    { kind: "write", path: "old", at: 0, bytes: 5000, fill: 5 },
  ],
];

/** A disk's clock goes on by a second at each restart; what is older than a margin does not count as just changed. */
function muchLater(disks: readonly MemoryDisk[]): MemoryDisk[] {
  return disks.map((disk) => {
    let later = disk;
    for (let i = 0; i < 60; i++) later = later.copy();
    return later;
  });
}

/** Disks with a few objects on stable storage that are older than the margin of clocks. */
async function smallDisks(options: IntentLogOptions): Promise<MemoryDisk[]> {
  const disks = [new MemoryDisk(), new MemoryDisk()];
  const volume = await TestVolume.open(disks, { intents: options });
  await apply(volume, [
    ...twins,
    { kind: "create", path: "old" },
    { kind: "write", path: "old", at: 0, bytes: 4096, fill: 9 },
    { kind: "create", path: "linked" },
    { kind: "write", path: "linked", at: 0, bytes: 4096, fill: 10 },
    { kind: "link", path: "linked", to: "d/linked" },
  ]);
  await volume.settle();
  await volume.intents.checkpoint();
  const later = muchLater(disks);
  for (const disk of later) disk.sync();
  return later;
}

async function smallWorld(operations: readonly Operation[], options: IntentLogOptions): Promise<Powered> {
  const later = await TestVolume.open(await smallDisks(options), { intents: options });
  for (const disk of later.disks) disk.sync();
  return await apply(later, operations);
}

/** Every state that a power cut can leave on each of the two disks, up to a bound. */
async function everyCut(powered: Powered, limit: number): Promise<{ cuts: number; wrong: string | null }> {
  const states: (readonly number[])[] = [];
  const { runs: cuts } = everyChoice((choose) => {
    const drawn: number[] = [];
    const record: Choose = (alternatives) => {
      const choice = choose(alternatives);
      drawn.push(choice);
      return choice;
    };
    for (const disk of powered.disks) disk.crash(record);
    states.push(drawn);
  }, limit);
  for (const drawn of states) {
    let at = 0;
    const wrong = await afterPowerCut(powered, () => drawn[at++] ?? 0);
    if (wrong !== null) return { cuts, wrong };
  }
  return { cuts, wrong: null };
}

test("in small histories every power cut is survived", async (t) => {
  let total = 0;
  for (const operations of small) {
    const { cuts, wrong } = await everyCut(await smallWorld(operations, {}), 1500);
    assert.equal(wrong, null, operations.map((o) => JSON.stringify(o)).join("\n"));
    total += cuts;
  }
  t.diagnostic(`${total} power cuts`);
});

test("in small histories the power is cut at every call of the backends, checkpoints' included", async (t) => {
  let cuts = 0;
  const choose = seeded(firstSeed);
  for (const [history, operations] of small.entries()) {
    for (let calls = 0, ended = false; !ended; calls++) {
      const left = { calls };
      const stopped = Promise.withResolvers<null>();
      const disks = await smallDisks({});
      const volume = await TestVolume.open(disks, {
        wrap: (replica) => stopping(replica, left, () => stopped.resolve(null)),
        prepared: true,
      });
      const kept = new Map<string, string>();
      const work = async (): Promise<"ended"> => {
        await volume.intents.open();
        for (const operation of operations) await applyOne(volume, operation, kept);
        await volume.settle();
        await volume.intents.checkpoint();
        await applyOne(volume, { kind: "write", path: "old", at: 100, bytes: 50, fill: 77 }, kept);
        await applyOne(volume, { kind: "fsync", path: "old" }, kept);
        return "ended";
      };
      ended = (await Promise.race([work(), stopped.promise])) === "ended";
      for (const draw of [first, last, choose]) {
        cuts++;
        const wrong = await afterPowerCut({ disks, kept }, draw);
        assert.equal(wrong, null, `History ${history}, after ${calls} calls`);
      }
    }
  }
  t.diagnostic(`${cuts} power cuts`);
});

test("a member that was being changed into another's likeness is not trusted before one that was not", async () => {
  let stops = 0;
  for (let calls = 0; ; calls++) {
    const disks = [new MemoryDisk(), new MemoryDisk(), new MemoryDisk()];
    const volume = await TestVolume.open(disks);
    await apply(volume, [
      { kind: "create", path: "f" },
      { kind: "write", path: "f", at: 0, bytes: 10_000, fill: 1 },
    ]);
    for (const disk of disks) disk.sync();
    await apply(volume, [{ kind: "rename", path: "f", to: "g" }]);
    // Only the first has kept the rename.
    const crashed = disks.map((disk, i) => disk.crash(i === 0 ? last : first));
    const content = describeDisk(crashed[1] as MemoryDisk).find((line) => line.startsWith("/f "));
    const left = { calls };
    const stopped = Promise.withResolvers<"stopped">();
    const replicas = (await connected(crashed)).map((one) => stopping(one, left, () => stopped.resolve("stopped")));
    const end = await Promise.race([madeAlike(replicas), stopped.promise]);
    // The first does not come back. If the others were both being changed, nobody can help.
    const others = crashed.slice(1).map((disk) => disk.crash(last));
    if (others.some((disk) => !isMarked(disk)) || end !== "stopped") {
      await madeAlike(await connected(others));
      const [path, what] = [/^\/[fg] /, content?.slice(2)];
      for (const disk of others) {
        assert.ok(
          describeDisk(disk).some((line) => path.test(line) && line.slice(2) === what),
          `After ${calls} calls`,
        );
      }
    }
    stops++;
    if (end !== "stopped") break;
  }
  assert.ok(stops > 50);
});

test("without the flush before data are overwritten in place, a power cut leaves members different", async () => {
  const overwrite: Operation[] = [{ kind: "write", path: "old", at: 0, bytes: 4096, fill: 2 }];
  const { wrong } = await everyCut(await smallWorld(overwrite, { flush: false }), 3000);
  assert.match(wrong ?? "", /Only on the leader/);
});

test("without intents a power cut leaves members different", async () => {
  const disks = [new MemoryDisk(), new MemoryDisk()];
  const volume = await TestVolume.open(disks);
  for (const disk of disks) disk.sync();
  for (const name of ["entries", "attributes", "data", "rename"] as const) {
    Object.defineProperty(volume.intents, name, { value: () => 0 });
  }
  const powered = await apply(volume, [{ kind: "create", path: "a" }]);
  const { wrong } = await everyCut(powered, 3000);
  assert.match(wrong ?? "", /Only on the/);
});

test("an intent that is damaged makes everything be compared", async () => {
  const { disks } = await applied([{ kind: "create", path: "a" }], {});
  const replicas = await connected(disks);
  const [one, other] = replicas as [MemoryReplica, MemoryReplica];
  const root = { parent: null, name: "" };
  const generation = { parent: { parent: { parent: root, name: ".chiron" }, name: "intents" }, name: "1" };
  assert.equal(other.unlink(generation, "2"), 0);
  assert.equal(other.symlink(generation, "2", "nonsense", { uid: 0, gid: 0 }, null), 0);
  assert.equal(one.mkdir(root, "only here", 0o700, { uid: 0, gid: 0 }, null), 0);
  const result = await madeAlike(replicas);
  assert.match(result.everything ?? "", /cannot be read/);
  assert.deepEqual(describeDisk(disks[1] as MemoryDisk), describeDisk(disks[0] as MemoryDisk));
});
