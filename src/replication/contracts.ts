/**
 * How the parts of replication meet. The engine (`replica-set.ts`) fans changes out and asks these; each has its own
 * file with the rules it keeps. Replicas are named by their index in the volume's configuration, 0 to 7.
 */
import type { ByteString } from "../util/byte-string.ts";
import type { Eventual } from "../util/op.ts";
import type { ControlFiles } from "./control-files.ts";
import type { AbsentReplica, LeaveReason, MembershipRecord } from "./model.ts";
import type { TreeNode } from "./tree.ts";

/** Keeps the membership on record. Standalone: on the voters; on Kubernetes: in the ReplicatedVolume's status. */
export interface Arbiter {
  /**
   * Makes this process the one that may change the membership, and answers the members that it goes on with (of the
   * best record, those who are here). Rejects where the rules forbid to go on, with a message for the administrator.
   */
  claim(): Promise<MembershipRecord>;
  /**
   * Records that only `members` are in sync from now on, `newcomer` among them if it joins, and what is known of those
   * who are not. Resolves with the record
   * that is in force now: it may have fewer members than asked for, since whoever cannot take the record leaves as
   * well. Rejects with QuorumLostError when no such record can be in force, or another process has claimed the volume.
   */
  record(
    members: readonly string[],
    newcomer: string | null,
    absent: readonly AbsentReplica[],
  ): Promise<MembershipRecord>;
  /** The volume was unmounted in order: the members are alike. */
  release(): Promise<void>;
}

/** What was found at the mount, and stays true for it. */
export interface Claim {
  /** The members need not be compared: the volume was unmounted in order, and nothing was served since. */
  readonly clean: boolean;
  /** The mount went on without the voters that it needs. */
  readonly forced: boolean;
  /** Their copies hold changes that the members never had. */
  readonly diverged: readonly string[];
}

/** A replica, or the witness, that a membership record can be kept on. */
export interface Voter {
  readonly name: string;
  readonly files: ControlFiles;
}

/** An arbiter for all of a volume's life: from the directories that become one to its unmounting. */
export interface VolumeArbiter extends Arbiter {
  /** Of the claim that succeeded. */
  readonly claimed: Claim;
  /** Puts the first record of a new volume on the voters, before their markers. */
  initialize(inSync: readonly string[]): Promise<void>;
  /** The best record that can be seen now, without claiming anything. */
  peek(): Promise<MembershipRecord | null>;
  /** Rejects with ClaimLostError if somebody has claimed the volume after us. */
  confirm(): Promise<void>;
  /** Right after the claim: earlier processes cannot be shut out of these members. Resolves with the record in force. */
  leave(unfenced: readonly string[]): Promise<MembershipRecord>;
  /** A replica that is no member is none of the volume's any more. */
  withdraw(replica: string): Promise<MembershipRecord>;
  /** A replica that is to become a voter when it is first in sync. */
  addVoter(voter: Voter): void;
}

/** The membership that the volume process acts on. `inSync` shrinks at once when a replica is expelled, and
 *  `settled` is the promise that this is on record: no change is acknowledged before it. */
export interface Membership {
  /** Indices of the in-sync replicas in configured order; the first is the leader. A new array at each change. */
  readonly inSync: readonly number[];
  /** Indices of replicas that are being resynced. */
  readonly syncing: readonly number[];
  readonly minInSync: number;
  /** Fewer than `minInSync` are in sync, or no record could be made: changes answer EROFS, reads go on. */
  readonly quorumLost: boolean;
  /** null while everything that was decided is on record. Rejects if it could not be recorded. */
  readonly settled: Promise<void> | null;
  /** Pending while this process may not be the one that changes the volume: nothing is sent, and nothing acknowledged.
   *  Rejects if that took too long. */
  readonly held: Promise<void> | null;
  /** Takes replicas out of the set at once, and starts recording it. */
  expel(replicas: readonly number[], reason: LeaveReason, errno: number): void;
}

/**
 * The intent record: before something changes, its name is on every in-sync replica, so that an unclean stop leaves a
 * list of what may differ. Each method answers 0 when the change may go on, or a negative errno; almost always at once,
 * since hot objects are covered already. Asked in the order of the changes.
 */
export interface Intents {
  /** Entries of a directory change: names come and go; also covers what is created under it from now on, and
   *  attribute changes of its children. */
  entries(directory: TreeNode): Eventual<number>;
  /** Attributes of an object change (mode, owner, times, size, xattrs). */
  attributes(node: TreeNode): Eventual<number>;
  /** Bytes that may be on stable storage are overwritten in place: the intent is flushed before this answers. */
  data(node: TreeNode): Eventual<number>;
  /** An object was just created in a directory whose entries are covered, and so is covered itself. */
  created(directory: TreeNode, node: TreeNode): void;
  /** A covered file was cut to nothing: its data are as a new file's from now on. */
  truncated(node: TreeNode): void;
  /** Something moves, and if it is a directory all that was recorded below it. Covers both directories' entries. Answers
   *  the number of the record, if there had to be one. */
  rename(from: TreeNode, fromName: ByteString, to: TreeNode, toName: ByteString, exchange: boolean): Eventual<number>;
  /** The rename of this record was refused by all. Before anything else happens in its directories. */
  renameRefused(record: number): Eventual<number>;
}

/**
 * What replicas that are not in sync have missed. `entry`, `data` and `attributes` are told before the change is sent
 * anywhere, `rename` when it has succeeded, all under the object's lock; `follows…` is asked in the turn of the first.
 */
export interface MissedChanges {
  /** False while every replica is in sync: the engine then skips this altogether. */
  readonly active: boolean;
  /** A name appears, disappears or is replaced. */
  entry(directory: TreeNode, name: ByteString): void;
  /** Bytes [start, end) of a file change. */
  data(node: TreeNode, start: number, end: number): void;
  /** `newSize`: bytes from there on change as well. */
  attributes(node: TreeNode, newSize?: number): void;
  /** `followed`: syncing replicas that have done it too. */
  rename(
    from: TreeNode,
    fromName: ByteString,
    to: TreeNode,
    toName: ByteString,
    exchange: boolean,
    followed: readonly number[],
  ): void;
  /** May this syncing replica take a change to this object (it is repaired there)? */
  follows(replica: number, node: TreeNode): boolean;
  /** The same for bytes [start, end) of a file, of which others may still differ. */
  followsData(replica: number, node: TreeNode, start: number, end: number): boolean;
  /** The same for a name in a directory. */
  followsEntry(replica: number, directory: TreeNode, name: ByteString): boolean;
  /** A change that a syncing replica should have followed failed there; `again` tells the change once more. */
  failed(replica: number, errno: number, again: (() => void) | null): void;
}

/** Excludes overlapping changes to one object, resync's included. Uncontended it costs a comparison. */
export interface ObjectLocks {
  /** Bytes [start, end) of a file, or with no range the whole object (a directory's entries, attributes). */
  acquire(node: TreeNode, start?: number, end?: number): Eventual<ObjectLock>;
}
export interface ObjectLock {
  release(): void;
}
