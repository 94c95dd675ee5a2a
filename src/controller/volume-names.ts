/** From the names that CreateVolume is given to names of Kubernetes objects. */
import { createHash } from "node:crypto";

/**
 * csi-provisioner's names (`pvc-<uuid>`) stay as they are; any other name is made one by its hash, so that the same
 * name is always the same volume and two names never are.
 */
export function volumeNameOf(csiName: string): string {
  if (/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(csiName)) return csiName;
  const slug = csiName
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-+|-+$/g, "")
    .slice(0, 40)
    .replace(/-+$/, "");
  const hash = createHash("sha256").update(csiName).digest("hex").slice(0, 16);
  return slug === "" ? `volume-${hash}` : `${slug}-${hash}`;
}
