/**
 * What the holder and its volume process say to each other, as messages of Node's IPC channel, and what the CLI says to
 * the holder, as JSON lines on its control socket (`Call` in, `Reply` and `Progress` out). The holder answers what it
 * can by itself and passes the rest on.
 */

import type { FullPolicy, ReadPolicy, VolumeStatus } from "../replication/model.ts";
import type { Held, StatusRecord } from "../replication/takeover-rules.ts";

/** How one replica is reached and used. */
export interface ReplicaConfig {
  readonly name: string;
  /** A directory's absolute path, or `nfs://…`. */
  readonly url: string;
  /** Read only when all faster ones are out. */
  readonly slow: boolean;
  /** Where a directory's calls run: on the event loop, or on threads of its own; "auto" goes by file system type. */
  readonly run: "auto" | "loop" | "threads";
}

export interface VolumeConfig {
  /** The name that people gave; the volume's id is in the replicas' markers. */
  readonly volume: string;
  readonly mountpoint: string;
  readonly replicas: readonly ReplicaConfig[];
  readonly witness: string | null;
  /** Without one, the replicas keep the membership themselves. */
  readonly arbiter?: ArbiterConfig;
  readonly minInSyncReplicas: number;
  readonly readPolicy: ReadPolicy;
  readonly fullPolicy: FullPolicy;
  readonly writeCache: "None" | "WriteBack";
  /** How the kernel is spoken with; over /dev/fuse if absent. */
  readonly binding?: "fuse-native";
  readonly capacityBytes: number | null;
  /** The name of the replica whose contents are the truth when directories are adopted. */
  readonly source: string | null;
  /** A new volume's directories hold the same already: all of them are in sync. */
  readonly alike?: boolean;
  readonly forceDegraded: boolean;
  /** A call that takes longer is a fault. */
  readonly deadlineMs: number;
  readonly resyncBytesPerSecond: number | null;
  readonly resyncMode: "Automatic" | "Manual";
  /** Mount options that the volume process has to know (`ro`, `noatime`, …). */
  readonly options: readonly string[];
  /** Where state log, status page and lock are: a directory on tmpfs. */
  readonly stateDirectory: string;
  readonly metricsAddress: string | null;
  readonly logLevel: "debug" | "info" | "warn" | "error";
}

/** Where the membership is recorded outside of the replicas: on Kubernetes, through the node plugin. */
export interface ArbiterConfig extends LeaseTimes {
  /** The node plugin's. */
  readonly socket: string;
  readonly node: string;
  /** This mount's own name: whoever mounts the volume anew has another one. */
  readonly mount: string;
  /** Reads only, and leaves the record alone: others do so at the same time. */
  readonly observes: boolean;
  /** How long changes wait for the record, or the lease, before they fail. */
  readonly waitMs: number;
}
/** A lease that cannot be renewed ends after `leaseMs`; changes wait from `holdMs` on. */
export interface LeaseTimes {
  readonly renewMs: number;
  readonly holdMs: number;
  readonly leaseMs: number;
}

/** Holder → volume process. */
export type ToVolume =
  | {
      readonly type: "start";
      readonly config: VolumeConfig;
      /** An earlier process served this descriptor: restore its state log and ask the kernel to resend. */
      readonly resumed: boolean;
      /** Replicas on which the earlier process still has a call that has not ended: leave them alone, as faulted. */
      readonly avoid: readonly string[];
    }
  /** After "ready" of a first start: mount(2) has succeeded, so reading from the descriptor no longer fails (EPERM). Not
   *  sent to a resumed process, which may read at once. */
  | { readonly type: "mounted" }
  | { readonly type: "call"; readonly id: number; readonly method: Method; readonly params: CallParams };

/** Volume process → holder. */
export type FromVolume =
  /** Before anything is mounted (`resumed` false): replicas are checked, made alike, and ready. */
  | { readonly type: "ready"; readonly volumeId: string }
  | { readonly type: "failed"; readonly failure: Failure }
  /** The FUSE session has ended: unmounted by somebody. Everything is settled and released. */
  | { readonly type: "ended" }
  | { readonly type: "event"; readonly event: VolumeEvent }
  /** The list of replicas was changed by an administrator: what the next process is to be started with. */
  | {
      readonly type: "reconfigured";
      readonly replicas: readonly ReplicaConfig[];
      readonly capacityBytes: number | null;
    }
  | { readonly type: "progress"; readonly id: number; readonly progress: unknown }
  | { readonly type: "result"; readonly id: number; readonly value: unknown }
  | { readonly type: "error"; readonly id: number; readonly failure: Failure };

export type Method =
  | "status"
  /** Settle times, checkpoint, release the membership: the holder unmounts after this. */
  | "quiesce"
  | "replica.disable"
  | "replica.enable"
  | "replica.add"
  | "replica.remove"
  | "replica.replace"
  | "resync"
  | "verify"
  /** The volume may hold another number of bytes from now on. */
  | "resize"
  | "snapshot.create"
  | "snapshot.remove"
  | "snapshot.list"
  /** The exposition text for Prometheus; the holder serves it over HTTP. */
  | "metrics";

export interface CallParams {
  /** A replica's name. */
  readonly replica?: string;
  /** `replica.add`, `replica.replace`: where its data are; as in `ReplicaConfig.url`. */
  readonly path?: string;
  readonly slow?: boolean;
  readonly run?: ReplicaConfig["run"];
  readonly full?: boolean;
  /** `resize`. */
  readonly capacityBytes?: number;
  /** `snapshot.create`, `snapshot.remove`: its name. */
  readonly snapshot?: string;
  /** `snapshot.create`: how long changes may wait while its moment is fixed. */
  readonly maxPauseMs?: number;
  readonly repair?: boolean;
  /** `unmount`: take the mount out of the tree now and end when the last file is closed. */
  readonly lazy?: boolean;
  /** `unmount`: give pending requests an error and unmount whoever uses it. */
  readonly force?: boolean;
  /** `handover`: ask for the descriptors; take over (the old volume process ends); all is well, the old holder ends. */
  readonly step?: "offer" | "commit" | "done";
}

/** What `resync` and `verify` report while they run (the `progress` of a call). */
export interface WorkProgress {
  readonly replica: string | null;
  readonly filesDone: number;
  /** 0 where the whole is not known yet. */
  readonly filesTotal: number;
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** The value of a `verify` call. */
export interface VerifyReport {
  /** The replicas that were compared with each other: those in sync, the first being the one that others are held against. */
  readonly compared: readonly string[];
  /** Not in sync, so not looked at. */
  readonly leftOut: readonly string[];
  readonly filesCompared: number;
  readonly bytesCompared: number;
  readonly repaired: number;
  readonly differences: readonly VerifyDifference[];
}
/** The value of a `snapshot.create` call, and an element of that of `snapshot.list`. */
export interface SnapshotReport {
  readonly id: string;
  /** The moment that it shows, RFC 3339. */
  readonly createdAt: string;
  readonly files: number;
  readonly bytes: number;
  /** How long changes waited. */
  readonly pauseMs: number;
  readonly replicas: readonly SnapshotReplica[];
}
export interface SnapshotReplica {
  readonly name: string;
  readonly state: "Ready" | "Missing";
  /** How the files' contents were made; null if there are none. */
  readonly method: "reflink" | "copy" | null;
  /** Why it is missing. */
  readonly message: string | null;
}

/** One thing in which a replica differs from the leader. */
export interface VerifyDifference {
  /** From the volume's root, printable. */
  readonly path: string;
  readonly replica: string;
  /** "missing", "extra", "type", "content", "size", "mode", "owner", "mtime", "xattrs", "links", "target", … */
  readonly aspect: string;
  readonly detail: string;
}

/** `code` chooses the exit code (see `docs/cli.md`); `message` is one line that says what to do. */
export interface Failure {
  readonly code: FailureCode;
  readonly message: string;
}
export type FailureCode =
  | "usage"
  | "not-root"
  | "no-fuse"
  | "mountpoint"
  | "replica"
  | "identity"
  | "quorum"
  | "adopt"
  | "busy"
  | "state"
  | "not-mounted"
  /** Another node has taken the volume over: this mount must never serve again. */
  | "lost"
  | "internal";

/** What an administrator wires to mail (`--on-event`). */
export interface VolumeEvent {
  readonly time: string;
  readonly volume: string;
  readonly event:
    | "mounted"
    | "unmounted"
    | "replica-lost"
    | "replica-back"
    | "resync-started"
    | "resync-done"
    | "resync-failed"
    | "quorum-lost"
    | "quorum-restored"
    /** Changes are refused for want of space on a replica, or within the volume's capacity. */
    | "volume-full"
    | "volume-has-room"
    | "volume-process-restarted"
    /** Five deaths in a minute: it is started again ever more slowly, and requests wait. */
    | "volume-process-failing"
    /** Another node has taken the volume over; the mount is dead. */
    | "volume-lost"
    | "conflict";
  readonly replica: string | null;
  readonly message: string;
}

/** CLI → holder, one JSON object a line. The holder's own: `ping`, `unmount`, `handover`. */
export interface Call {
  readonly id: number;
  readonly method: Method | "ping" | "unmount" | "handover";
  readonly params: CallParams;
}
/** Holder → CLI. */
export type Reply =
  | { readonly id: number; readonly progress: unknown }
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly failure: Failure };

export type { Held, StatusRecord, VolumeStatus };
