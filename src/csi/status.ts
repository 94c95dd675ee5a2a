/**
 * gRPC's status codes as errors: what a call of CSI may fail with. A caller tries again by itself after ABORTED,
 * UNAVAILABLE and DEADLINE_EXCEEDED; the others say that something must be changed first.
 */
import type { status } from "@grpc/grpc-js";

export type StatusName = Exclude<keyof typeof status, number>;

export class CsiError extends Error {
  override readonly name = "CsiError";
  readonly status: StatusName;
  constructor(statusName: StatusName, message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.status = statusName;
  }
}

/** A request that lacks what CSI calls required. */
export function required<T>(value: T | undefined, field: string): NonNullable<T> {
  if (value === undefined || value === null || value === "")
    throw new CsiError("INVALID_ARGUMENT", `${field} is missing in the request`);
  return value;
}
