/**
 * The conditions of replication that a caller handles, or that a person has to act on. Each carries its data, and a
 * message of one line that says what happened and what to do; `retry` says whether trying again later may help.
 */
import { errnoName } from "../util/errno.ts";

export type QuorumLossCause =
  /** Fewer than `minInSyncReplicas` are left. */
  | "below-minimum"
  /** Fewer voters than a majority answer. */
  | "no-majority"
  /** Two replicas: one that the record names is missing. */
  | "member-missing"
  /** None of the replicas that the record names is here. */
  | "no-member"
  /** No member could take the record. */
  | "record-failed";

/** The membership cannot be claimed or recorded: nothing may be acknowledged. */
export class QuorumLostError extends Error {
  override readonly name = "QuorumLostError";
  readonly reason: QuorumLossCause;
  /** Voters that are missed. */
  readonly missing: readonly string[];
  readonly retry = true;

  constructor(reason: QuorumLossCause, missing: readonly string[], message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.reason = reason;
    this.missing = missing;
  }
}

/** Another process has claimed the volume after us. This process must never acknowledge anything again. */
export class ClaimLostError extends Error {
  override readonly name = "ClaimLostError";
  readonly term: number;
  readonly newerTerm: number;
  readonly retry = false;

  constructor(term: number, newerTerm: number, where: string) {
    super(
      `Another mount has claimed this volume (term ${newerTerm} on "${where}", ours is ${term}): ` +
        "unmount here, and use the volume where it was mounted last",
    );
    this.term = term;
    this.newerTerm = newerTerm;
  }
}

/** Another process on this machine uses the volume. */
export class VolumeBusyError extends Error {
  override readonly name = "VolumeBusyError";
  readonly path: string;
  readonly retry = true;

  constructor(path: string) {
    super(
      `"${path}" is in use by another mount of this volume on this machine, or by one that has not ended yet: ` +
        "find it with `chiron list`, unmount it, or wait until its process has gone",
    );
    this.path = path;
  }
}

export type IdentityProblem =
  /** No marker, and the directory is empty: perhaps an export that is not mounted. */
  | "unmounted"
  /** No marker, but the directory holds data. */
  | "not-ours"
  | "damaged"
  | "newer-version"
  | "other-volume"
  | "other-replica";

/** A backend is not the replica that it should be. Nothing was written to it. */
export class IdentityError extends Error {
  override readonly name = "IdentityError";
  readonly replica: string;
  readonly problem: IdentityProblem;
  readonly retry: boolean;

  constructor(replica: string, problem: IdentityProblem, message: string, cause?: unknown) {
    super(`Replica "${replica}": ${message}`, cause === undefined ? {} : { cause });
    this.replica = replica;
    this.problem = problem;
    this.retry = problem === "unmounted";
  }
}

/** Directories that are to become a volume do not tell which of them is the truth. Nothing was written. */
export class AdoptError extends Error {
  override readonly name = "AdoptError";
  /** Replicas that hold data. */
  readonly withData: readonly string[];
  readonly retry = false;

  constructor(withData: readonly string[], message: string) {
    super(message);
    this.withData = withData;
  }
}

/** A file under `.chiron` could not be read or written. */
export class ControlFileError extends Error {
  override readonly name = "ControlFileError";
  readonly path: string;
  /** A negative errno. */
  readonly errno: number;

  constructor(path: string, doing: string, errno: number) {
    super(`Cannot ${doing} "${path}": ${errnoName(errno)}`);
    this.path = path;
    this.errno = errno;
  }
}
