/** The CRDs of VolumeSnapshots, which belong to external-snapshotter: where Go keeps those of what was built. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** Files to be applied, or null where Go does not have them. */
export function snapshotCrds(): readonly string[] | null {
  const { stdout } = spawnSync("go", ["env", "GOMODCACHE"], { encoding: "utf8" });
  const parent = join((stdout ?? "").trim(), "github.com/kubernetes-csi/external-snapshotter/client");
  const newest = existsSync(parent) ? readdirSync(parent).sort().at(-1) : undefined;
  if (newest === undefined) return null;
  return ["classes", "contents", "s"].map((kind) =>
    join(parent, newest, `config/crd/snapshot.storage.k8s.io_volumesnapshot${kind}.yaml`),
  );
}
