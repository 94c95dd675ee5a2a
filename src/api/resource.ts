/** The ReplicatedVolume's place in the API. */
import { apiGroup, apiVersion, resourceKind, resourcePlural } from "./names.ts";

export const replicatedVolumes = { group: apiGroup, version: apiVersion, plural: resourcePlural, namespaced: false };
export const typeOfVolume = { apiVersion: `${apiGroup}/${apiVersion}`, kind: resourceKind };
