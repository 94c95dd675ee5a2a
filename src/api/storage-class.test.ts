import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseStorageClass, StorageClassError } from "./storage-class.ts";

describe("parseStorageClass()", () => {
  it("makes a replica of each NFS place, called after its host", () => {
    assert.deepEqual(parseStorageClass({ nfs: "mars:/export, venus.example.org:/data/" }, ["vers=4.1"]), {
      replicas: [
        { name: "mars", nfs: { server: "mars", path: "/export", mountOptions: ["vers=4.1"] } },
        { name: "venus", nfs: { server: "venus.example.org", path: "/data", mountOptions: ["vers=4.1"] } },
      ],
    });
  });
  it("tells replicas on one host apart", () => {
    const { replicas } = parseStorageClass({ hostPath: "n1:/srv/a,n1:/srv/b" });
    assert.deepEqual(replicas, [
      { name: "n1", hostPath: { node: "n1", path: "/srv/a" } },
      { name: "n1-2", hostPath: { node: "n1", path: "/srv/b" } },
    ]);
  });
  it("reads addresses of both families", () => {
    const { replicas } = parseStorageClass({ nfs: "10.0.0.1:/e,[fd00::1]:/e" });
    assert.deepEqual(replicas, [
      { name: "10-0-0-1", nfs: { server: "10.0.0.1", path: "/e" } },
      { name: "fd00-1", nfs: { server: "fd00::1", path: "/e" } },
    ]);
  });
  it("takes the settings of the volume, and what csi-provisioner adds", () => {
    const { replicas: _, ...settings } = parseStorageClass({
      nfs: "a:/e,b:/e",
      minInSyncReplicas: "2",
      readPolicy: "Nearest",
      fullPolicy: "DropReplica",
      writeCache: "WriteBack",
      resyncBandwidth: "10M",
      resyncMode: "Manual",
      "csi.storage.k8s.io/pvc/name": "data",
    });
    assert.deepEqual(settings, {
      minInSyncReplicas: 2,
      readPolicy: "Nearest",
      fullPolicy: "DropReplica",
      writeCache: "WriteBack",
      resync: { mode: "Manual", bandwidth: "10M" },
    });
  });

  const refused: readonly (readonly [string, Record<string, string>, RegExp])[] = [
    ["no place", {}, /"nfs": name the places of the replicas, such as "mars:\/export,venus:\/export"/],
    [
      "a place without a path",
      { nfs: "mars" },
      /"nfs": cannot read "mars"; write it like "mars:\/export,venus:\/export"/,
    ],
    ["an empty place", { nfs: "mars:/e,,venus:/e" }, /cannot read ""/],
    ["a relative path", { nfs: "mars:export" }, /cannot read "mars:export"/],
    ["a path with ..", { nfs: "mars:/a/../b" }, /must not contain ".."/],
    ["a place twice", { nfs: "mars:/e,mars:/e/" }, /names mars:\/e twice/],
    [
      "nine places",
      { nfs: Array.from({ length: 9 }, (_, i) => `h${i}:/e`).join(",") },
      /names 9 places; 8 is the most/,
    ],
    [
      "an unknown parameter",
      { nfs: "a:/e", replicaCount: "2" },
      /"replicaCount": is not known; there are nfs, hostPath/,
    ],
    [
      "an unknown word",
      { nfs: "a:/e", readPolicy: "Random" },
      /"readPolicy": is "Random"; it must be one of RoundRobin/,
    ],
    ["too many in-sync replicas", { nfs: "a:/e", minInSyncReplicas: "2" }, /must be a number from 1 to 1/],
    ["a bandwidth that is no quantity", { nfs: "a:/e", resyncBandwidth: "fast" }, /"fast" is not a quantity/],
  ];
  for (const [what, parameters, message] of refused)
    it(`refuses ${what}`, () => {
      assert.throws(
        () => parseStorageClass(parameters),
        (error) => error instanceof StorageClassError && message.test(error.message),
      );
    });
});
