import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Place, ReplicatedVolume } from "../api/replicated-volume.ts";
import { parseNfsUrl } from "../nfs/url.ts";
import { mountAt, parseMountTable } from "./mount-table.ts";
import { holderConfig, VolumeRefusal } from "./volume-config.ts";

const volume = (places: Record<string, Place | null>, spec: object = {}): ReplicatedVolume =>
  ({
    metadata: { name: "v" },
    spec: {
      capacity: "1Gi",
      accessModes: ["ReadWriteOnce"],
      replicas: Object.keys(places).map((name) => ({ name, readPriority: "Normal" })),
      readPolicy: "RoundRobin",
      fullPolicy: "FailWrites",
      writeCache: "None",
      reclaimPolicy: "Retain",
      ...spec,
    },
    status: {
      replicas: Object.entries(places).map(([name, place]) => ({
        name,
        state: "Unknown",
        ...(place ? { place } : {}),
      })),
    },
  }) as ReplicatedVolume;
const mount = {
  mountpoint: "/m",
  stateDirectory: "/s",
  readOnly: false,
  logFile: null,
  logLevel: "info",
  deadlineMs: 1,
} as const;
const configure = (of: ReplicatedVolume, hostRoot = "") => holderConfig(of, { node: "n1", hostRoot }, mount).volume;
const urls = (of: ReplicatedVolume, hostRoot = "") => configure(of, hostRoot).replicas.map(({ url }) => url);
const hostPath = (path: string, node = "n1"): Place => ({ hostPath: { path, node } });

describe("holderConfig()", () => {
  it("finds directories under the node's root, and the volume's own below each place", () => {
    const of = volume({ a: hostPath("/srv/a"), b: hostPath("/") }, { subdirectory: "pvc-1" });
    assert.deepEqual(urls(of), ["/srv/a/pvc-1", "/pvc-1"]);
    assert.deepEqual(urls(of, "/host"), ["/host/srv/a/pvc-1", "/host/pvc-1"]);
  });
  it("writes exports as URLs that our client reads", () => {
    const nfs = (server: string, path: string, mountOptions: string[] = []): Place => ({
      nfs: { server, path, mountOptions },
    });
    const of = volume({
      a: nfs("mars", "/a b"),
      b: nfs("fd00::1", "/e", ["vers=3,port=2050", "hard", "mountport=2051"]),
    });
    const found = urls(of);
    assert.deepEqual(found, ["nfs://mars/a%20b", "nfs://[fd00::1]:2050/e?version=3&mountport=2051"]);
    assert.deepEqual(parseNfsUrl(found[0] ?? "").path, ["a b"]);
    assert.partialDeepStrictEqual(parseNfsUrl(found[1] ?? ""), {
      hosts: ["fd00::1"],
      port: 2050,
      path: ["e"],
      version: "3",
      mountPort: 2051,
      timeoutMs: 10_000,
      kernel: false,
    });
  });
  it("hands the volume's settings on", () => {
    const config = configure(
      volume(
        { a: hostPath("/a"), b: hostPath("/b"), c: hostPath("/c") },
        { resync: { bandwidth: "10M", mode: "Manual" }, adoptFrom: "a" },
      ),
    );
    assert.equal(config.minInSyncReplicas, 2);
    assert.equal(config.capacityBytes, 1 << 30);
    assert.equal(config.resyncBytesPerSecond, 10_000_000);
    assert.equal(config.source, "a");
  });
  const refused: readonly (readonly [string, Place | null, RegExp, boolean])[] = [
    [
      "another node's directory",
      hostPath("/srv", "n2"),
      /replica "a" of volume "v" is a directory of node n2, which node n1 cannot reach; run the pod there, or use NFS exports/,
      false,
    ],
    [
      "an unknown mount option",
      { nfs: { server: "mars", path: "/e", mountOptions: ["sec=krb5"] } },
      /mount option "sec=krb5" is not known/,
      false,
    ],
    [
      "an NFS version that we do not speak",
      { nfs: { server: "mars", path: "/e", mountOptions: ["vers=2"] } },
      /version 3 or 4.1 is possible/,
      false,
    ],
    ["a replica whose place is not known yet", null, /the controller has not said where it is yet/, true],
  ];
  for (const [what, place, message, retry] of refused)
    it(`refuses ${what}`, () => {
      assert.throws(
        () => configure(volume({ a: place })),
        (error) => error instanceof VolumeRefusal && error.retry === retry && message.test(error.message),
      );
    });
});

describe("parseMountTable()", () => {
  const table = parseMountTable(
    [
      "36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/root rw,errors=continue",
      "40 36 0:50 / /pods/with\\040blank rw,relatime shared:2 master:1 - fuse.chiron my\\040volume rw,user_id=0",
      "41 36 0:50 / /bound ro,relatime - fuse.chiron v rw",
      "42 36 0:51 / /bound rw - tmpfs tmpfs rw",
      "",
      "broken",
    ].join("\n"),
  );
  it("reads names with blanks, and both sides of the dash", () => {
    assert.deepEqual(table[1], {
      mountpoint: "/pods/with blank",
      root: "/",
      device: "0:50",
      type: "fuse.chiron",
      source: "my volume",
      readOnly: false,
    });
  });
  it("finds the uppermost mount of a place", () => {
    assert.equal(mountAt(table, "/bound")?.type, "tmpfs");
    assert.equal(mountAt(table, "/nowhere"), null);
    assert.equal(table.length, 4);
  });
});
