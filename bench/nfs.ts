/**
 * The NFS client against nfs-ganesha on loopback, beside libnfs (Debian's libnfs-utils): sequential data in 1 MiB
 * requests, small calls, and how much pipelining gains over a link of 2 ms.
 *
 *     node bench/nfs.ts
 */
import { execFileSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseNfsUrl } from "../src/nfs/url.ts";
import { NfsReplica } from "../src/replica/nfs-replica.ts";
import type { TreeObject } from "../src/replica/replica.ts";
import { FileAttr } from "../src/util/file-attr.ts";
import { available, Ganesha } from "../test/nfs/ganesha.ts";
import { FaultyProxy } from "../test/nfs/proxy.ts";

const mebibyte = 1 << 20;
const fileMebibytes = 128;
const top: TreeObject = { parent: null, name: "" };
const root = { uid: 0, gid: 0 };

if (!available) throw new Error("This benchmark needs root, nfs-ganesha and rpcbind");

async function ok(answer: number | Promise<number>): Promise<number> {
  const result = await answer;
  if (result < 0) throw new Error(`answered ${result}`);
  return result;
}

/** Runs `count` calls with at most `inFlight` of them at once; answers how many a second. */
async function rate(count: number, inFlight: number, call: (index: number) => Promise<number> | number) {
  let next = 0;
  const began = performance.now();
  const worker = async () => {
    while (next < count) await ok(call(next++));
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  return count / ((performance.now() - began) / 1_000);
}

async function connect(server: Ganesha, version: "3" | "4.1", port = server.port): Promise<NfsReplica> {
  const target = { ...parseNfsUrl(server.url(version)), port };
  const replica = new NfsReplica("bench", target, {});
  await replica.connect({ signal: AbortSignal.timeout(20_000) });
  return replica;
}

async function data(server: Ganesha, version: "3" | "4.1", inFlight: number, round: number): Promise<[number, number]> {
  const replica = await connect(server, version);
  const block = Buffer.alloc(mebibyte, 7);
  const handle = await ok(replica.create(top, `data-${version}-${inFlight}-${round}`, 0o644, root, null));
  const began = performance.now();
  await rate(fileMebibytes, inFlight, (index) => replica.write(handle, block, index * mebibyte));
  await ok(replica.fsync(handle, false));
  const written = fileMebibytes / ((performance.now() - began) / 1_000);
  const buffers = Array.from({ length: inFlight }, () => Buffer.alloc(mebibyte));
  const read = await rate(fileMebibytes, inFlight, async (index) => {
    const into = buffers.pop() ?? Buffer.alloc(mebibyte);
    const count = await replica.read(handle, into, index * mebibyte);
    buffers.push(into);
    return count;
  });
  replica.close(handle);
  await replica.disconnect();
  return [written, read];
}

function libnfs(server: Ganesha, scratch: string, round: number): [number, number] | null {
  if (!existsSync("/usr/bin/nfs-cp")) return null;
  const source = join(scratch, "source");
  const block = Buffer.alloc(mebibyte, 7);
  const fd = openSync(source, "w");
  for (let i = 0; i < fileMebibytes; i++) writeSync(fd, block);
  closeSync(fd);
  const url = `nfs://127.0.0.1/export/libnfs-${round}?version=3&nfsport=${server.port}&mountport=${server.mountPort}`;
  const timed = (run: () => void) => {
    const began = performance.now();
    run();
    return fileMebibytes / ((performance.now() - began) / 1_000);
  };
  const written = timed(() => execFileSync("nfs-cp", [source, url], { stdio: "ignore" }));
  const read = timed(() => execFileSync("sh", ["-c", `nfs-cat '${url}' > /dev/null`], { stdio: "ignore" }));
  return [written, read];
}

async function small(server: Ganesha, version: "3" | "4.1", inFlight: number): Promise<string> {
  const replica = await connect(server, version);
  const names = Array.from({ length: 2_000 }, (_, index) => `small-${version}-${inFlight}-${index}`);
  const block = Buffer.alloc(4096, 1);
  const name = (index: number) => names[index] as string;
  const created = await rate(names.length, inFlight, async (index) => {
    const handle = await ok(replica.create(top, name(index), 0o644, root, null));
    await ok(replica.write(handle, block, 0));
    return replica.close(handle);
  });
  const attr = new FileAttr();
  const looked = await rate(names.length, inFlight, (index) => replica.lookup(top, name(index), attr));
  const handle = await ok(replica.open({ parent: top, name: name(0) }, "read-write"));
  const wrote = await rate(5_000, inFlight, (index) => replica.write(handle, block, (index % 256) * 4096));
  replica.close(handle);
  const removed = await rate(names.length, inFlight, (index) => replica.unlink(top, name(index)));
  await replica.disconnect();
  const columns = [created, looked, wrote, removed].map((figure) => figure.toFixed(0).padStart(12));
  return `v${version}, ${String(inFlight).padStart(2)} in flight`.padEnd(20) + columns.join("");
}

async function pipelining(server: Ganesha, version: "3" | "4.1"): Promise<string> {
  const proxy = await FaultyProxy.start(server.port);
  proxy.delayMs = 1;
  const replica = await connect(server, version, proxy.port);
  const attr = new FileAttr();
  const one = await rate(200, 1, () => replica.getattr(top, attr));
  const many = await rate(6_400, 32, () => replica.getattr(top, attr));
  await replica.disconnect();
  await proxy[Symbol.asyncDispose]();
  const gain = (many / one).toFixed(1);
  return `v${version}: 1 in flight ${one.toFixed(0)}/s, 32 in flight ${many.toFixed(0)}/s: ${gain} times as fast`;
}

// In memory, where that is possible: the disk is not what is measured.
const scratch = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "chiron-bench-nfs-"));
try {
  await using server = await Ganesha.start({ directory: join(scratch, "exports") });
  writeFileSync(join(server.directory, "export/warm"), "");
  const line = (what: string, [written, read]: [number, number]) =>
    console.log(what.padEnd(24) + `${written.toFixed(0)} MiB/s`.padStart(14) + `${read.toFixed(0)} MiB/s`.padStart(14));
  console.log(`${fileMebibytes} MiB in 1 MiB requests:          write + commit          read`);
  for (let round = 0; round < 2; round++) {
    const theirs = libnfs(server, scratch, round);
    if (theirs !== null) line("libnfs (nfs-cp, nfs-cat)", theirs);
    for (const version of ["3", "4.1"] as const) {
      for (const inFlight of [1, 4])
        line(`v${version}, ${inFlight} in flight`, await data(server, version, inFlight, round));
    }
  }
  console.log("\nA second:             create + 4K      lookup    write 4K      unlink");
  for (const version of ["3", "4.1"] as const) {
    for (const inFlight of [1, 32]) console.log(await small(server, version, inFlight));
  }
  console.log("\nA link of 2 ms:");
  for (const version of ["3", "4.1"] as const) console.log(await pipelining(server, version));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
