/** The words of replication, as types. */

/** `InSync` takes every change and may be read; `OutOfSync` is left behind; `Syncing` takes changes to what is already
 *  repaired, and is never read; `Unreachable` is OutOfSync and does not answer. */
export type ReplicaState = "InSync" | "OutOfSync" | "Syncing" | "Unreachable";

/** Why a replica left the in-sync set. */
export type LeaveReason =
  /** A call failed with a fault, or missed its deadline. */
  | "Fault"
  /** It answered differently from the others. */
  | "Diverged"
  /** No space, with `fullPolicy: DropReplica`. */
  | "Full"
  /** Its file system is not where it was. */
  | "Vanished"
  /** It could not take the membership record. */
  | "RecordFailed"
  /** It did not answer when the volume was mounted. */
  | "NotAtMount"
  /** An administrator disabled it. */
  | "Disabled"
  /** Added, and not filled yet. */
  | "New"
  /** Its resync failed. */
  | "ResyncFailed";

export type FullPolicy = "FailWrites" | "DropReplica";
export type ReadPolicy = "RoundRobin" | "Nearest" | "LowestLatency";
export type VolumeState = "Healthy" | "Degraded" | "Syncing" | "QuorumLost";

/** Who is in sync, on record: compared by term, then by seq. */
export interface MembershipRecord {
  readonly term: number;
  readonly seq: number;
  /** Names of the in-sync replicas. */
  readonly members: readonly string[];
  /** What is known of those that are not. */
  readonly absent: readonly AbsentReplica[];
}

export interface AbsentReplica {
  readonly name: string;
  readonly reason: LeaveReason;
  /** When it left, RFC 3339. */
  readonly since: string;
  /** From where a resync can go on; only who wrote it knows what it means. null: compare everything. */
  readonly resumePoint: string | null;
}

export interface ResyncProgress {
  readonly filesRemaining: number;
  readonly bytesRemaining: number;
  /** 0 to 100. */
  readonly percent: number;
}

export interface ReplicaStatus {
  readonly name: string;
  readonly url: string;
  readonly state: ReplicaState;
  readonly reason: LeaveReason | null;
  /** When it entered this state, RFC 3339. */
  readonly since: string;
  /** May be read now. */
  readonly readable: boolean;
  readonly progress: ResyncProgress | null;
  readonly lastError: string | null;
  readonly freeBytes: number | null;
}

/** What `chiron status --json` prints. */
export interface VolumeStatus {
  readonly volume: string;
  readonly mountpoint: string;
  readonly state: VolumeState;
  readonly epoch: string;
  readonly pid: number;
  readonly minInSyncReplicas: number;
  /** null: as much as the replicas have. */
  readonly capacityBytes?: number | null;
  /** As `df` shows it; null if no replica tells at once. */
  readonly space?: VolumeSpace | null;
  readonly replicas: readonly ReplicaStatus[];
}

export interface VolumeSpace {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly availableBytes: number;
  readonly files: number;
  readonly freeFiles: number;
}
