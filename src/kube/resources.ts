/** The kinds that Chiron reads and writes, and their paths in the API. */
import type { Resource } from "./client.ts";

const core = (plural: string, namespaced: boolean): Resource => ({ group: "", version: "v1", plural, namespaced });

export const persistentVolumes = core("persistentvolumes", false);
export const persistentVolumeClaims = core("persistentvolumeclaims", true);
export const nodes = core("nodes", false);
export const events = core("events", true);
export const leases: Resource = { group: "coordination.k8s.io", version: "v1", plural: "leases", namespaced: true };
