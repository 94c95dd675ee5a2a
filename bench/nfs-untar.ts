/**
 * What a second NFS replica costs: an untar of 5,000 files of 4 KiB, and `sync`, on a volume of one export and on one of
 * two, against nfs-ganesha on loopback. In turns, medians. As root:
 *
 *     node bench/nfs-untar.ts [rounds]
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bench, startProgram } from "../test/faults/harness.ts";
import { available, Ganesha } from "../test/nfs/ganesha.ts";

const rounds = Number(process.argv[2] ?? 3);
const files = 5_000;

if (!available) throw new Error("needs root, nfs-ganesha and rpcbind");
const scratch = mkdtempSync(join(tmpdir(), "chiron-untar-"));
try {
  for (let i = 0; i < files; i++) {
    const directory = join(scratch, "tree", `d${i % 50}`);
    if (i < 50) mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, `f${i}`), Buffer.alloc(4096, i));
  }
  execFileSync("tar", ["-C", scratch, "-cf", join(scratch, "tree.tar"), "tree"]);
  await using mars = await Ganesha.start({ exports: Array.from({ length: rounds * 4 }, (_, i) => `e${i}`) });
  await using venus = await Ganesha.start({ exports: Array.from({ length: rounds * 4 }, (_, i) => `e${i}`) });
  let next = 0;
  for (const version of ["3", "4.1"] as const) {
    const seconds: Record<"one" | "two", number[]> = { one: [], two: [] };
    for (let round = 0; round < rounds; round++) {
      for (const kind of round % 2 === 0 ? (["one", "two"] as const) : (["two", "one"] as const)) {
        const name = `/e${next++}`;
        await using bench = new Bench();
        const replicas = [`mars=${mars.url(version, name)}`];
        if (kind === "two") replicas.push(`venus=${venus.url(version, name)}`);
        bench.mount(...replicas.flatMap((replica) => ["--replica", replica]));
        const began = performance.now();
        await startProgram("tar", "-C", bench.mountpoint, "-xf", join(scratch, "tree.tar")).done;
        await startProgram("sync", "-f", bench.mountpoint).done;
        seconds[kind].push((performance.now() - began) / 1_000);
        bench.unmount();
      }
    }
    const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
    const [one, two] = [median(seconds.one), median(seconds.two)];
    const all = (values: number[]) => values.map((value) => value.toFixed(2)).join(" ");
    console.log(`v${version}: one ${one.toFixed(2)} s, two ${two.toFixed(2)} s: ${(two / one).toFixed(2)} times`);
    console.log(`      one: ${all(seconds.one)}; two: ${all(seconds.two)}`);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
