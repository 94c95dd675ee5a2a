/** The chart by helm, kubectl and promtool: what it renders is what a real API server takes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { parseAllDocuments } from "yaml";
import { type ApiServer, run, skipWithoutApiServer, startApiServer } from "./api-server.ts";
import { findProgram, skipWithout } from "./programs.ts";

const chart = join(import.meta.dirname, "../../charts/chiron");
const helm = (...args: string[]) => run(findProgram("helm") ?? "helm", args);
const template = async (...args: string[]) => {
  const ran = await helm("template", "chiron", chart, "--kube-version=1.34.4", "--namespace=default", ...args);
  assert.equal(ran.code, 0, ran.stderr);
  return ran.stdout;
};
interface Rendered {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly annotations?: Readonly<Record<string, string>> };
  readonly spec?: unknown;
  readonly data?: Readonly<Record<string, string>>;
}
const objects = (yaml: string) =>
  parseAllDocuments(yaml)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);

const everything = [
  "--set=metrics.serviceMonitor.enabled=true",
  "--set=metrics.prometheusRule.enabled=true",
  "--set=metrics.dashboard.enabled=true",
  "--set=networkPolicy.enabled=true",
  "--set=storageClasses[0].name=chiron",
  "--set=storageClasses[0].default=true",
  '--set-json=storageClasses[0].parameters={"nfs":"mars:/export,venus:/export"}',
  '--set-json=storageClasses[0].mountOptions=["vers=4.1"]',
  "--set=snapshots.enabled=true",
  "--set=snapshots.classes[0].name=chiron",
  "--set=snapshots.classes[0].default=true",
  "--set=snapshots.classes[0].maxPauseSeconds=10",
  '--set-json=imagePullSecrets=[{"name":"pull"}]',
  '--set-json=controller.nodeSelector={"a":"b"}',
  '--set-json=controller.tolerations=[{"operator":"Exists"}]',
];
const valueSets: readonly (readonly [string, readonly string[]])[] = [
  ["its own values", []],
  ["everything enabled", everything],
  [
    "as little as possible",
    ["--set=crds.enabled=false", "--set=controller.replicas=1", "--set=controller.podDisruptionBudget.enabled=false"],
  ],
  ["other directories", ["--set=kubeletDir=/data/kubelet", "--set=runDir=/run/other", "--set=image.tag=x"]],
];

describe("the chart", { skip: skipWithout("helm", "promtool") || skipWithoutApiServer() }, () => {
  let api: ApiServer;
  before(async () => {
    api = await startApiServer({ crds: false });
  });
  after(() => api?.[Symbol.asyncDispose]());

  it("passes helm lint --strict", async () => {
    const ran = await helm("lint", "--strict", chart);
    assert.equal(ran.code, 0, ran.stdout);
  });

  for (const [what, values] of valueSets)
    it(`renders what the API server takes, with ${what}`, async () => {
      const rendered = objects(await template(...values));
      const foreign = /^(monitoring\.coreos\.com|snapshot\.storage\.k8s\.io)\//;
      const ours = rendered.filter(({ apiVersion }) => !foreign.test(apiVersion));
      const ran = await api.kubectl(
        ["apply", "--dry-run=server", "--validate=strict", "-f", "-"],
        ours.map((object) => JSON.stringify(object)).join("\n---\n"),
      );
      assert.equal(ran.code, 0, ran.stderr);
    });

  for (const [what, values, message] of [
    ["an unknown value", ["--set=controler.replicas=3"], /controler/],
    ["a relative directory", ["--set=kubeletDir=var/lib/kubelet"], /kubeletDir/],
    ["an unknown log level", ["--set=logLevel=loud"], /logLevel/],
    ["a StorageClass without parameters", ["--set=storageClasses[0].name=x"], /parameters/],
  ] as const)
    it(`refuses ${what}`, async () => {
      const ran = await helm("template", "chiron", chart, "--kube-version=1.34.4", ...values);
      assert.notEqual(ran.code, 0);
      assert.match(ran.stderr, message);
    });

  it("refuses Kubernetes before 1.34", async () => {
    const ran = await helm("template", "chiron", chart, "--kube-version=1.33.0");
    assert.match(ran.stderr, /requires kubeVersion: >=1.34/);
  });

  it("keeps the CRDs when it is uninstalled", async () => {
    const crds = objects(await template()).filter(({ kind }) => kind === "CustomResourceDefinition");
    assert.deepEqual(
      crds.map(({ metadata }) => [metadata.name, metadata.annotations?.["helm.sh/resource-policy"]]),
      [
        ["replicatedvolumes.chiron.storage", "keep"],
        ["replicatedvolumesnapshots.chiron.storage", "keep"],
      ],
    );
  });

  it("makes VolumeSnapshotClasses and runs csi-snapshotter only where snapshots are wanted", async () => {
    const classOf = async (...values: string[]) =>
      objects(await template(...values)).find(({ kind }) => kind === "VolumeSnapshotClass");
    assert.equal(await classOf(), undefined);
    const made = (await classOf(...everything)) as (Rendered & { readonly parameters?: object }) | undefined;
    assert.deepEqual(made?.parameters, { maxPauseSeconds: "10" });
    assert.equal(made?.metadata.annotations?.["snapshot.storage.kubernetes.io/is-default-class"], "true");
    assert.ok(!(await template()).includes("csi-snapshotter:"));
    assert.match(await template(...everything), /image: \S+csi-snapshotter:v8/);
  });

  it("has alerts that Prometheus understands, on metrics that the node plugin has", async () => {
    const ran = await run(findProgram("promtool") ?? "promtool", ["check", "rules", join(chart, "files/alerts.yaml")]);
    assert.equal(ran.code, 0, ran.stdout + ran.stderr);
    const metrics = readFileSync(join(import.meta.dirname, "../../src/node/node-metrics.ts"), "utf8");
    const used = ["alerts.yaml", "dashboard.json"].flatMap((file) => [
      ...readFileSync(join(chart, "files", file), "utf8").matchAll(/\bchiron_\w+/g),
    ]);
    assert.ok(used.length > 10);
    for (const [name] of used) assert.ok(metrics.includes(`  ${name}: [`), `${name} is no metric`);
  });

  it("has alerts that fire when they should, and not when they should not", async () => {
    const ran = await run(findProgram("promtool") ?? "promtool", [
      "test",
      "rules",
      join(import.meta.dirname, "alerts.yaml"),
    ]);
    assert.equal(ran.code, 0, ran.stdout + ran.stderr);
  });

  it("has the dashboard as JSON, and the alerts as they are in the file", async () => {
    const rendered = objects(await template(...everything));
    const dashboard = rendered.find(({ metadata }) => metadata.name.endsWith("-dashboard"));
    assert.equal((JSON.parse(dashboard?.data?.["chiron.json"] ?? "{}") as { title?: string }).title, "Chiron");
    const rule = rendered.find(({ kind }) => kind === "PrometheusRule");
    assert.match(JSON.stringify(rule?.spec), /Replica \{\{ \$labels.replica \}\} of volume/);
  });
});
