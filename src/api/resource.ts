/** The places of our kinds in the API. */
import { apiGroup, apiVersion, resourceKind, resourcePlural, snapshotKind, snapshotPlural } from "./names.ts";

export const replicatedVolumes = { group: apiGroup, version: apiVersion, plural: resourcePlural, namespaced: false };
export const typeOfVolume = { apiVersion: `${apiGroup}/${apiVersion}`, kind: resourceKind };

export const volumeSnapshots = { group: apiGroup, version: apiVersion, plural: snapshotPlural, namespaced: false };
export const typeOfSnapshot = { apiVersion: `${apiGroup}/${apiVersion}`, kind: snapshotKind };
