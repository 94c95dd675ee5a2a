import assert from "node:assert/strict";
import { test } from "node:test";
import { type MountOptions, parseHelperArguments, planMount } from "./mount-arguments.ts";

const plan = (options: MountOptions, ...places: string[]) =>
  planMount({ replica: ["/a", "/b"], ...options }, places, "/here");

test("defaults are those of the manual", () => {
  const { volume, source, onEvent, logFile } = plan({}, "/nowhere/web");
  assert.equal(volume.volume, "web");
  assert.deepEqual(
    volume.replicas.map((replica) => replica.name),
    ["a", "b"],
  );
  assert.deepEqual([volume.minInSyncReplicas, volume.deadlineMs, volume.resyncBytesPerSecond], [1, 10_000, null]);
  assert.deepEqual([volume.readPolicy, volume.fullPolicy, volume.writeCache], ["RoundRobin", "FailWrites", "None"]);
  assert.deepEqual([source, onEvent, logFile], ["chiron:web", null, null]);
});

test("every option arrives where it belongs", () => {
  const { volume, onEvent, logFile } = plan(
    {
      replicaSlow: ["/slow"],
      volume: "shop",
      minInSync: "2",
      readPolicy: "lowest-latency",
      fullPolicy: "drop-replica",
      writeCache: "write-back",
      resync: "manual",
      witness: "w",
      forceDegraded: true,
      log: "chiron.log",
      logLevel: "debug",
      metrics: "9100",
      capacity: "10GiB",
      source: "b",
      deadline: "2s",
      resyncBandwidth: "50M",
      onEvent: "mail root",
      o: ["ro,noatime", "nosuid"],
    },
    "mnt",
  );
  assert.deepEqual(volume.replicas.at(-1), { name: "slow", url: "/slow", slow: true, run: "auto" });
  assert.deepEqual([volume.volume, volume.mountpoint, volume.minInSyncReplicas], ["shop", "/here/mnt", 2]);
  assert.deepEqual(
    [volume.readPolicy, volume.fullPolicy, volume.writeCache],
    ["LowestLatency", "DropReplica", "WriteBack"],
  );
  assert.deepEqual([volume.resyncMode, volume.witness, volume.forceDegraded], ["Manual", "/here/w", true]);
  assert.deepEqual([volume.capacityBytes, volume.source, volume.deadlineMs], [10 * 2 ** 30, "b", 2000]);
  assert.deepEqual([volume.resyncBytesPerSecond, volume.metricsAddress], [50 * 2 ** 20, "9100"]);
  assert.deepEqual(volume.options, ["ro", "noatime", "nosuid"]);
  assert.deepEqual([onEvent, logFile, volume.logLevel], ["mail root", "/here/chiron.log", "debug"]);
});

test("the replicas may come as ChironFS has them", () => {
  const { volume, source } = planMount({}, ["/client1=/client2=:/slow", "/real"], "/");
  assert.deepEqual(
    volume.replicas.map(({ name, slow }) => [name, slow]),
    [
      ["client1", false],
      ["client2", false],
      ["slow", true],
    ],
  );
  assert.equal(source, "/client1=/client2=:/slow");
});

test("a line of fstab is understood, with options of mount(8), systemd and ours", () => {
  const line = [
    "/a=/b",
    "/srv/web",
    "-s",
    "-o",
    "rw,noatime,_netdev,x-systemd.after=b.mount,min-in-sync=2,on-event=a\\,b=c",
  ];
  const { options, positionals, fake } = parseHelperArguments(line);
  const { volume, onEvent, source } = planMount(options, positionals, "/");
  assert.deepEqual([volume.minInSyncReplicas, onEvent, source, fake], [2, "a,b=c", "/a=/b", false]);
  const byName = parseHelperArguments(["shop", "/srv/web", "-f", "-o", "replica=mars=/a,replica=/b,replica-slow=/c"]);
  assert.equal(byName.fake, true);
  const named = planMount(byName.options, byName.positionals, "/").volume;
  assert.deepEqual([named.volume, named.replicas.map(({ name }) => name)], ["shop", ["mars", "b", "c"]]);
});

test("what makes no sense is refused, and what to do is said", () => {
  const refused: [() => unknown, RegExp][] = [
    [() => plan({}), /Where to mount is missing/],
    [() => plan({}, "/a", "/b", "/c"), /too many/],
    [() => planMount({}, ["/mnt"], "/"), /No replica/],
    [() => plan({ minInSync: "3" }, "/m"), /--min-in-sync.*1 to 2/],
    [() => plan({ minInSync: "x" }, "/m"), /--min-in-sync/],
    [() => plan({ readPolicy: "best" }, "/m"), /--read-policy: "best" is not one of round-robin, nearest/],
    [() => plan({ source: "c" }, "/m"), /--source.*only a, b/],
    [() => plan({ metrics: "x" }, "/m"), /--metrics/],
    [() => plan({ capacity: "much" }, "/m"), /--capacity/],
    [() => plan({ deadline: "1ms" }, "/m"), /--deadline.*too short/],
    [() => plan({ volume: "../x" }, "/m"), /--volume/],
    [() => plan({ o: ["ro,big_writes"] }, "/m"), /Unknown mount option "big_writes"/],
    [() => parseHelperArguments(["a", "b", "-z"]), /unknown option -z/],
  ];
  for (const [attempt, message] of refused) assert.throws(attempt, message);
});
