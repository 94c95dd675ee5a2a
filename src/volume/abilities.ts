/** What the volume offers: what all of its replicas can do. What some lack is refused on all, never silently different. */
import type { Capabilities } from "../replica/replica.ts";
import type { ByteString } from "../util/byte-string.ts";

const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;

export interface VolumeAbilities {
  readonly acls: boolean;
  readonly renameFlags: boolean;
  readonly maxNameBytes: number;
  /** May this attribute be read and written? */
  xattr(name: ByteString): boolean;
  fallocate(mode: number): boolean;
}

export function commonAbilities(all: readonly Capabilities[]): VolumeAbilities {
  const every = (can: (c: Capabilities) => boolean): boolean => all.every(can);
  const user = every((c) => c.userXattrs);
  const root = every((c) => c.rootXattrs);
  const acls = every((c) => c.acls);
  const allocate = every((c) => c.fallocate);
  const punch = every((c) => c.holes);
  return {
    acls,
    renameFlags: every((c) => c.renameFlags),
    maxNameBytes: Math.min(255, ...all.map((c) => c.maxNameBytes)),
    xattr: (name) => {
      if (name.startsWith("user.")) return user;
      if (name.startsWith("system.posix_acl_")) return acls;
      return root && (name.startsWith("trusted.") || name.startsWith("security."));
    },
    fallocate: (mode) => {
      if ((mode & FALLOC_PUNCH_HOLE) !== 0) return punch;
      return allocate && (mode & ~FALLOC_KEEP_SIZE) === 0;
    },
  };
}
