/** Which of CSI's volume capabilities Chiron has, and what it says of the others. */
import { VolumeCapability_AccessMode_Mode as Mode, type VolumeCapability } from "./generated/csi.ts";
import { CsiError } from "./status.ts";

type AccessMode = "ReadWriteOnce" | "ReadWriteOncePod" | "ReadOnlyMany" | "ReadWriteMany";

const modes: ReadonlyMap<number, AccessMode> = new Map<number, AccessMode>([
  [Mode.SINGLE_NODE_WRITER, "ReadWriteOnce"],
  [Mode.SINGLE_NODE_READER_ONLY, "ReadWriteOnce"],
  [Mode.SINGLE_NODE_MULTI_WRITER, "ReadWriteOnce"],
  [Mode.SINGLE_NODE_SINGLE_WRITER, "ReadWriteOncePod"],
  [Mode.MULTI_NODE_READER_ONLY, "ReadOnlyMany"],
]);

/** Why this capability cannot be had, or null. */
export function refusalOf(capability: VolumeCapability): string | null {
  if (capability.block)
    return "block volumes are not supported: a replicated volume is a tree of files; use volumeMode Filesystem";
  if (!capability.mount) return "neither mount nor block is asked for";
  if (!capability.accessMode) return "the access mode is missing";
  const { mode } = capability.accessMode;
  if (mode === Mode.MULTI_NODE_MULTI_WRITER || mode === Mode.MULTI_NODE_SINGLE_WRITER)
    return "ReadWriteMany is not supported yet: one node at a time may write; use ReadWriteOnce, or ReadOnlyMany";
  if (!modes.has(mode)) return `access mode ${mode} is not known`;
  return null;
}

/** The Kubernetes access mode; throws INVALID_ARGUMENT where Chiron does not have it. */
export function accessModeOf(capability: VolumeCapability): AccessMode {
  const refusal = refusalOf(capability);
  const mode = modes.get(capability.accessMode?.mode ?? Mode.UNKNOWN);
  if (refusal !== null || mode === undefined) throw new CsiError("INVALID_ARGUMENT", refusal ?? "no access mode");
  return mode;
}

export function readsOnly(capability: VolumeCapability): boolean {
  const mode = capability.accessMode?.mode;
  return mode === Mode.SINGLE_NODE_READER_ONLY || mode === Mode.MULTI_NODE_READER_ONLY;
}
