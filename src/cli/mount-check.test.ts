import assert from "node:assert/strict";
import { test } from "node:test";
import { planMount } from "./mount-arguments.ts";
import { checkMount, type MountFacts, mountWarnings, type Place } from "./mount-check.ts";
import { locate, parseMountTable } from "./mount-table.ts";

const place = (path: string, change: Partial<Place> = {}): Place => ({
  path,
  kind: "directory",
  readOnly: false,
  full: false,
  marked: false,
  device: "8:1",
  inside: path,
  ...change,
});
const config = planMount({ replica: ["/a", "/b"] }, ["/mnt/web"], "/");
const well: MountFacts = {
  uid: 0,
  mayMount: true,
  fuse: true,
  mountpoint: place("/mnt/web"),
  mountedThere: "nothing",
  replicas: [place("/a"), place("/b")],
  witness: null,
  others: [],
};
const withWitness = planMount({ replica: ["/a", "/b"], witness: "/w" }, ["/mnt/web"], "/");
const check = (change: Partial<MountFacts>) => checkMount(withWitness, { ...well, ...change });

test("nothing is said where nothing is wrong", () => {
  assert.equal(check({}), null);
  assert.equal(check({ replicas: [null, place("/b")] }), null, "an NFS export is not looked at");
});

const cases: [string, Partial<MountFacts>, string, RegExp][] = [
  ["not root", { uid: 1000 }, "not-root", /sudo/],
  ["a root that may not mount", { mayMount: false }, "not-root", /CAP_SYS_ADMIN/],
  ["no FUSE", { fuse: false }, "no-fuse", /modprobe fuse/],
  ["a dead mount", { mountedThere: "dead" }, "mountpoint", /chiron unmount \/mnt\/web/],
  ["a mount in use", { mountedThere: "something" }, "mountpoint", /mounted on \/mnt\/web already/],
  ["no mount point", { mountpoint: place("/mnt/web", { kind: "missing" }) }, "mountpoint", /mkdir -p \/mnt\/web/],
  ["a file as mount point", { mountpoint: place("/mnt/web", { kind: "other" }) }, "mountpoint", /not a directory/],
  ["no such replica", { replicas: [place("/a"), place("/b", { kind: "missing" })] }, "replica", /"b".*does not exist/],
  ["a file as replica", { replicas: [place("/a"), place("/b", { kind: "other" })] }, "replica", /"b".*not a directory/],
  ["a read-only replica", { replicas: [place("/a", { readOnly: true }), place("/b")] }, "replica", /"a".*read-only/],
  ["a hung replica", { replicas: [place("/a", { kind: "no-answer" }), place("/b")] }, "replica", /does not answer/],
  ["a full replica", { replicas: [place("/a"), place("/b", { full: true })] }, "replica", /"b".*no space left/],
  ["a witness that is not there", { witness: place("/w", { kind: "missing" }) }, "replica", /witness.*does not exist/],
  ["a witness on a replica", { witness: place("/b/w") }, "replica", /witness.*replica "b".*within each other/],
  ["a witness that is a replica", { witness: place("/w", { inside: "/a" }) }, "replica", /replica "a"/],
  ["a witness that is a file", { witness: place("/w", { kind: "other" }) }, "replica", /not a directory/],
  ["a witness under the mount point", { witness: place("/mnt/web/w") }, "replica", /under the mount point/],
  ["one directory twice", { replicas: [place("/a"), place("/b", { inside: "/a" })] }, "replica", /one directory/],
  ["one within the other", { replicas: [place("/a"), place("/a/b")] }, "replica", /within each other/],
  [
    "within the other by a bind mount",
    { replicas: [place("/a"), place("/b", { inside: "/a/x" })] },
    "replica",
    /within each other/,
  ],
  ["a replica under the mount point", { replicas: [place("/mnt/web/a"), place("/b")] }, "replica", /would be hidden/],
  ["the mount point in a replica", { mountpoint: place("/a/mnt") }, "mountpoint", /lies in replica "a"/],
  [
    "a mount point of ours",
    { others: [{ volume: "x", mountpoint: "/mnt/web", urls: [] }], mountedThere: "something" },
    "busy",
    /already mounted by Chiron/,
  ],
  ["a volume of that name", { others: [{ volume: "web", mountpoint: "/x", urls: [] }] }, "busy", /--volume/],
  [
    "a replica of another volume",
    { others: [{ volume: "x", mountpoint: "/x", urls: ["/b"] }] },
    "busy",
    /mounted on \/x/,
  ],
];

for (const [what, change, code, message] of cases) {
  test(`refused: ${what}`, () => {
    const failure = check(change);
    assert.deepEqual([failure?.code, failure?.message.includes("\n")], [code, false]);
    assert.match(failure?.message ?? "", message);
  });
}

test("a volume that exists may lack a replica: its record decides", () => {
  const marked = place("/a", { marked: true });
  assert.equal(check({ replicas: [marked, place("/b", { kind: "missing" })] }), null);
  assert.equal(check({ replicas: [marked, place("/b", { readOnly: true })] }), null);
  assert.equal(check({ replicas: [marked, place("/b", { kind: "other" })] })?.code, "replica");
});

test("a volume that exists is mounted without its witness, and that is said", () => {
  const facts: MountFacts = {
    ...well,
    replicas: [place("/a", { marked: true, full: true }), place("/b", { marked: true })],
    witness: place("/w", { kind: "missing" }),
  };
  assert.equal(checkMount(withWitness, facts), null);
  assert.match(mountWarnings(withWitness, facts).join(), /no vote/);
  assert.deepEqual(mountWarnings(config, well), []);
});

test("a path is found in its file system, through bind mounts and mounts upon mounts", () => {
  const table = parseMountTable(
    [
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
      "30 22 8:2 / /data rw - xfs /dev/sdb ro",
      "31 22 8:1 /srv/a /mnt/b\\040c rw master:1 propagate_from:2 - ext4 /dev/sda1 rw",
      "32 22 0:50 / /data rw - tmpfs none rw",
      "nonsense",
    ].join("\n"),
  );
  assert.deepEqual(
    table.map((mount) => mount.readOnly),
    [false, true, false, false],
  );
  assert.deepEqual(
    ["/srv/a/x", "/mnt/b c/x", "/data/y", "/database"].map((path) => {
      const found = locate(path, table);
      return `${found?.mount.device} ${found?.inside}`;
    }),
    ["8:1 /srv/a/x", "8:1 /srv/a/x", "0:50 /y", "8:1 /database"],
  );
});
