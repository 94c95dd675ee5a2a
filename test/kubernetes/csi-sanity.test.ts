/**
 * The CSI conformance suite (kubernetes-csi/csi-test 5.6) against the real processes over real mounts. Its skips are
 * silent, so how many specs ran is asserted: fewer mean that a capability is no longer advertised, or that the suite
 * did not find what it needs.
 */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { run } from "./api-server.ts";
import { findProgram, skipWithout } from "./programs.ts";
import { skipWithoutSmallCluster, startSmallCluster } from "./small-cluster.ts";

/** How many specs ran when this was written. */
const specsThatRan = 70;

interface Report {
  readonly SpecReports: readonly {
    readonly LeafNodeType: string;
    readonly ContainerHierarchyTexts: readonly string[] | null;
    readonly LeafNodeText: string;
    readonly State: string;
    readonly Failure?: { readonly Message?: string };
  }[];
}

describe("csi-sanity", { skip: skipWithout("csi-sanity") || skipWithoutSmallCluster() }, () => {
  it("passes every spec that our capabilities ask for", async () => {
    await using cluster = await startSmallCluster();
    const { directory } = cluster;
    // The suite makes the directories themselves; their parents must be there.
    mkdirSync(join(directory, "kubelet/sanity"));
    const parameters = join(directory, "parameters.yaml");
    writeFileSync(parameters, JSON.stringify({ hostPath: cluster.places("replica-a", "replica-b") }));
    const secrets = join(directory, "secrets.yaml");
    const secret = { key: "not-for-the-log" };
    writeFileSync(
      secrets,
      JSON.stringify(
        Object.fromEntries(
          [
            "CreateVolumeSecret",
            "DeleteVolumeSecret",
            "NodeStageVolumeSecret",
            "NodePublishVolumeSecret",
            "CreateSnapshotSecret",
            "DeleteSnapshotSecret",
            "ListSnapshotsSecret",
          ].map((name) => [name, secret]),
        ),
      ),
    );
    const report = join(directory, "report.json");
    const ran = await run(
      findProgram("csi-sanity") ?? "csi-sanity",
      [
        `--csi.endpoint=${cluster.nodeSocket}`,
        `--csi.controllerendpoint=${cluster.controllerSocket}`,
        `--csi.mountdir=${join(directory, "kubelet/sanity/mount")}`,
        `--csi.stagingdir=${join(directory, "kubelet/sanity/staging")}`,
        `--csi.testvolumeparameters=${parameters}`,
        `--csi.secrets=${secrets}`,
        "--csi.testvolumesize=1073741824",
        "--csi.testvolumeexpandsize=2147483648",
        `--ginkgo.json-report=${report}`,
        "--ginkgo.no-color",
      ],
      "",
      { timeoutMs: 600_000 },
    );
    const [{ SpecReports: specs }] = JSON.parse(readFileSync(report, "utf8")) as [Report];
    const leaves = specs.filter(({ LeafNodeType }) => LeafNodeType === "It");
    const name = ({ ContainerHierarchyTexts, LeafNodeText }: (typeof leaves)[number]) =>
      [...(ContainerHierarchyTexts ?? []), LeafNodeText].join(" ");
    const failed = leaves.filter(({ State }) => !["passed", "skipped", "pending"].includes(State));
    const passed = leaves.filter(({ State }) => State === "passed");
    const list = failed.map((spec) => `${name(spec)}: ${spec.Failure?.Message ?? spec.State}`).join("\n");
    assert.equal(failed.length, 0, `${list}\n${ran.stdout.slice(-4000)}`);
    if (process.env["CHIRON_TEST_LOG"])
      for (const spec of leaves) if (spec.State === "skipped") process.stderr.write(`skipped: ${name(spec)}\n`);
    assert.ok(passed.length >= specsThatRan, `${passed.length} ran, and ${specsThatRan} should`);
    const { stdout } = await cluster.kubectl(["get", "rv", "-o", "name"]);
    assert.equal(stdout, "", "a deleted volume leaves no object behind");
    for (const replica of ["replica-a", "replica-b"])
      assert.deepEqual(readdirSync(join(directory, replica)), [], "a deleted volume leaves no directory behind");
    assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(directory), "a mount was left behind");
    const logs = Object.values(cluster.daemons).map((daemon) => daemon.log());
    for (const log of logs) assert.ok(!log.includes(secret.key), "a secret is in a log");
    process.stderr.write(`csi-sanity: ${passed.length} passed of ${leaves.length}\n`);
  });
});
